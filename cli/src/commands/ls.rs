//! `dunlin ls`

use clap::Args;
use dunlin_api::{Exit, ServiceQuery};

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Lists services: those of one namespace when one is named, else all.
pub async fn run(args: &LsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let query = ServiceQuery {
        namespace: context.namespace.clone(),
    };
    let services = context.client.services(&query).await?;
    if context.json {
        context.out.json(&services)?;
        return Ok(Exit::Ok);
    }
    if args.quiet {
        for service in &services {
            let name = context.display(&service.service);
            context.out.line(name)?;
        }
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["NAME", "MODE", "REPLICAS", "RUNS", "PORTS", "REVISION"])
        .prose(&["RUNS", "PORTS"])
        .optional(&["REVISION", "MODE"]);
    for service in &services {
        let replicas = if service.running {
            show::fraction(service.ready, service.wanted, service.autoscale.as_ref())
        } else {
            Cell::toned("stopped", Tone::Dim)
        };
        table.row([
            Cell::from(context.display(&service.service)),
            Cell::from(show::mode(service.mode, service.job)),
            replicas,
            Cell::from(show::workload(&service.image, &service.command)),
            Cell::from(show::ports(&service.ports)),
            Cell::from(show::short(&service.revision)),
        ]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}
