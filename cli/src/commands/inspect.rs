//! `dunlin inspect`

use clap::Args;
use dunlin_api::{Exit, Replica, ServiceDetail};

use super::{ps, show};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, cores, size};

/// Words of `dunlin inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The services
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Shows services in full; `--json` gives a list, as Docker does.
pub async fn run(args: &InspectArgs, context: &mut Context) -> Result<Exit, Failure> {
    let mut details = Vec::with_capacity(args.services.len());
    for text in &args.services {
        let key = context.service(text)?;
        details.push(context.client.inspect(&key).await?);
    }
    if context.json {
        context.out.json(&details)?;
        return Ok(Exit::Ok);
    }
    for (index, detail) in details.iter().enumerate() {
        if index > 0 {
            context.out.line("")?;
        }
        for (name, value) in facts(detail) {
            context
                .out
                .line(format!("{:<14}{value}", format!("{name}:")))?;
        }
        if !detail.replicas.is_empty() {
            context.out.line("")?;
            let table = replicas(detail, context);
            context.out.table(&table)?;
            for replica in &detail.replicas {
                for line in life(replica, context) {
                    context.out.line(line)?;
                }
            }
        }
    }
    Ok(Exit::Ok)
}

/// The latest steps of a replica that has not had a quiet life, and what it said when it failed.
fn life(replica: &Replica, context: &Context) -> Vec<String> {
    let Some(exit) = &replica.last_exit else {
        return Vec::new();
    };
    let mut lines = vec![
        String::new(),
        format!(
            "{}.{} on {} last ended {} ago: {}",
            context.display(&replica.service),
            replica.slot,
            replica.node_name,
            context.out.age(exit.at),
            show::exit(exit)
        ),
    ];
    for step in &replica.history {
        let age = context.out.age(step.at);
        let what = if step.ready {
            "ready"
        } else {
            show::phase(step.phase)
        };
        let code = step.exit.map(|code| format!(", exit code {code}"));
        let memory = if step.oom {
            ", out of memory (OOM)"
        } else {
            ""
        };
        let code = code.unwrap_or_default();
        lines.push(format!("  {age:>6} ago  {what}{code}{memory}"));
    }
    let words = exit.last_words.iter();
    lines.extend(words.map(|line| format!("  log> {line}")));
    lines
}

/// What there is to say, without what was left at its default.
fn facts(detail: &ServiceDetail) -> Vec<(&'static str, String)> {
    let spec = &detail.spec;
    let amount = |r: dunlin_state::model::Resources| {
        let mut parts = Vec::new();
        if r.cpu_millis > 0 {
            parts.push(format!("{} cores", cores(r.cpu_millis)));
        }
        if r.memory > 0 {
            parts.push(format!("{} memory", size(r.memory)));
        }
        if r.disk > 0 {
            parts.push(format!("{} disk", size(r.disk)));
        }
        parts.join(", ")
    };
    let constraints = spec.placement.constraints.iter().map(ToString::to_string);
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        let each: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
        each.join(" ")
    };
    let running = if detail.running { "" } else { ", stopped" };
    let volumes = spec.volumes.iter().map(|v| {
        let only = if v.read_only { ":ro" } else { "" };
        format!("{}:{}{only}", v.source, v.target)
    });
    let all = vec![
        ("Service", detail.service.to_string()),
        ("Revision", detail.revision.clone()),
        (
            "Replicas",
            format!("{} ready of {}{running}", detail.ready, detail.wanted),
        ),
        (
            "Autoscale",
            detail
                .autoscale
                .as_ref()
                .map(show::autoscale)
                .unwrap_or_default(),
        ),
        ("Mode", show::mode(spec.mode, spec.job.is_some()).to_owned()),
        ("Runtime", show::runtime(spec.runtime).to_owned()),
        ("Image", spec.image.clone()),
        ("Entrypoint", spec.entrypoint.join(" ")),
        ("Command", spec.command.join(" ")),
        ("Environment", pairs(&spec.environment)),
        (
            "Address",
            detail.address.map(|a| a.to_string()).unwrap_or_default(),
        ),
        ("Ports", show::ports(&spec.ports)),
        ("Reserves", amount(spec.reservation)),
        ("Limits", amount(spec.limit)),
        ("Constraints", constraints.collect::<Vec<_>>().join(", ")),
        ("Volumes", volumes.collect::<Vec<_>>().join(" ")),
        ("Labels", pairs(&spec.labels)),
        ("Outputs", pairs(&detail.outputs.clone().into())),
        (
            "Vacant slots",
            detail
                .vacant
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

fn replicas(detail: &ServiceDetail, context: &Context) -> Table {
    let mut table = Table::new([
        "SLOT",
        "NODE",
        "STATUS",
        "EPOCH",
        "AGE",
        "ENDPOINTS",
        "WORKLOAD",
        "MESSAGE",
    ])
    .prose(&["MESSAGE"])
    .optional(&["WORKLOAD", "EPOCH", "ENDPOINTS"]);
    for replica in &detail.replicas {
        table.row([
            Cell::from(replica.slot.to_string()),
            Cell::from(&replica.node_name),
            show::status(replica),
            Cell::from(replica.epoch.to_string()),
            Cell::from(context.out.age(replica.started_at.unwrap_or(replica.since))),
            Cell::from(show::endpoints(&replica.endpoints)),
            Cell::from(
                replica
                    .workload
                    .as_deref()
                    .map(show::short)
                    .unwrap_or_default(),
            ),
            Cell::from(ps::message(replica)),
        ]);
    }
    table
}
