//! `dunlin namespace`

use clap::{Args, Subcommand};
use dunlin_api::{Exit, NamespaceSummary};
use dunlin_state::model::{Quota, QuotaOf};

use crate::compose::{bytes, cpu_millis};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone, cores, size};

/// Words of `dunlin namespace`.
#[derive(Debug, Args)]
pub struct NamespaceArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: NamespaceCommand,
}

/// What to do with namespaces.
#[derive(Debug, Subcommand)]
pub enum NamespaceCommand {
    /// List the namespaces, what their services want together, and what they may want
    Ls,
    /// Bound what the services of a namespace may reserve together. What is not named is not bounded
    SetQuota(SetQuotaArgs),
}

/// Words of `dunlin namespace set-quota`.
#[derive(Debug, Args)]
pub struct SetQuotaArgs {
    /// The namespace
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Reserved cores, such as 2.5
    #[arg(long, value_parser = cpu_millis, value_name = "CORES")]
    pub cpus: Option<u64>,
    /// Reserved memory, such as 16g
    #[arg(long, value_parser = bytes, value_name = "SIZE")]
    pub memory: Option<u64>,
    /// Replicas
    #[arg(long, value_name = "N")]
    pub replicas: Option<u64>,
    /// Remove the quota
    #[arg(long, conflicts_with_all = ["cpus", "memory", "replicas"])]
    pub none: bool,
}

/// Lists namespaces, or bounds one.
pub async fn run(args: &NamespaceArgs, context: &mut Context) -> Result<Exit, Failure> {
    match &args.command {
        NamespaceCommand::Ls => list(context).await,
        NamespaceCommand::SetQuota(args) => set_quota(args, context).await,
    }
}

async fn list(context: &mut Context) -> Result<Exit, Failure> {
    let namespaces = context.client.namespaces().await?;
    if context.json {
        context.out.json(&namespaces)?;
        return Ok(Exit::Ok);
    }
    let mut table =
        Table::new(["NAME", "SERVICES", "REPLICAS", "CPU", "MEMORY", "STATE"]).prose(&["STATE"]);
    for namespace in &namespaces {
        let NamespaceSummary { usage, quota, .. } = namespace;
        let replicas = (
            usage.replicas.to_string(),
            quota.replicas.map(|n| n.to_string()),
        );
        let cpu = (cores(usage.cpu_millis), quota.cpu_millis.map(cores));
        let memory = (size(usage.memory), quota.memory.map(size));
        let cell = |of, (used, bound): (String, Option<String>)| {
            let text = match bound {
                Some(bound) => format!("{used}/{bound}"),
                None => used,
            };
            match namespace.over.iter().any(|excess| excess.of == of) {
                true => Cell::toned(text, Tone::Bad),
                false => Cell::from(text),
            }
        };
        table.row([
            Cell::from(&namespace.name),
            Cell::from(namespace.services.to_string()),
            cell(QuotaOf::Replicas, replicas),
            cell(QuotaOf::Cpu, cpu),
            cell(QuotaOf::Memory, memory),
            state(namespace),
        ]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

fn state(namespace: &NamespaceSummary) -> Cell {
    if namespace.over.is_empty() {
        return Cell::from("");
    }
    let over: Vec<String> = namespace.over.iter().map(ToString::to_string).collect();
    Cell::toned(format!("over its quota: {}", over.join(", ")), Tone::Bad)
}

async fn set_quota(args: &SetQuotaArgs, context: &mut Context) -> Result<Exit, Failure> {
    let quota = Quota {
        cpu_millis: args.cpus,
        memory: args.memory,
        replicas: args.replicas,
    };
    if quota.is_none() && !args.none {
        return Err(Failure::Usage {
            message: "a quota bounds something".to_owned(),
            hint: Some("give --cpus, --memory or --replicas, or --none to remove it".to_owned()),
        });
    }
    let answer = context.client.set_quota(&args.name, &quota).await?;
    if context.json {
        context.out.json(&answer)?;
        return Ok(Exit::Ok);
    }
    let word = if answer.changed {
        "changed"
    } else {
        "as it was"
    };
    context
        .out
        .line(format!("quota of {}: {word}", args.name))?;
    let namespaces = context.client.namespaces().await?;
    let own = namespaces.iter().find(|n| n.name == args.name);
    if let Some(over) = own.filter(|own| !own.over.is_empty()) {
        let over: Vec<String> = over.over.iter().map(ToString::to_string).collect();
        context.out.note(format!(
            "it is exceeded now: {}. Nothing is stopped, and nothing can be added.",
            over.join(", ")
        ))?;
    }
    Ok(Exit::Ok)
}
