//! `dunlin stats`

use clap::Args;
use dunlin_api::{Exit, StatsQuery, StatsRecord};

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, size};

/// Clears a terminal and goes to its first line (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Words of `dunlin stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Show it once instead of going on
    #[arg(long)]
    pub no_stream: bool,
    /// Only this service
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
}

/// Shows what replicas use, on all nodes. Nodes that cannot be asked are named on standard error,
/// and make the exit code 3, since replicas are missing.
pub async fn run(args: &StatsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let service = args.service.as_deref();
    let service = service.map(|name| context.service(name)).transpose()?;
    let query = StatsQuery {
        namespace: match service {
            Some(_) => None,
            None => context.namespace.clone(),
        },
        service,
        follow: !args.no_stream,
    };
    let mut records = context.client.stats(&query).await?;
    let mut exit = Exit::Ok;
    let mut round = Vec::new();
    while let Some(record) = records.next().await? {
        if matches!(record, StatsRecord::Unreachable { .. }) {
            exit = Exit::Unreachable;
        }
        if context.json {
            context.out.json_line(&record)?;
        } else if matches!(record, StatsRecord::End) {
            print(&std::mem::take(&mut round), args.no_stream, context)?;
        } else {
            round.push(record);
        }
    }
    Ok(exit)
}

fn print(round: &[StatsRecord], once: bool, context: &mut Context) -> Result<(), Failure> {
    let mut table = Table::new([
        "NAME",
        "NODE",
        "CPU",
        "MEMORY",
        "LIMIT",
        "PROCS",
        "NET IN/OUT",
    ])
    .optional(&["LIMIT", "PROCS"]);
    let mut notes = Vec::new();
    for record in round {
        match record {
            StatsRecord::Replica {
                slot,
                node_name,
                cpu_millis,
                memory,
                memory_limit,
                processes,
                received,
                sent,
                ..
            } => {
                let name = context.display(&slot.service);
                let network = received.zip(*sent);
                let network = network.map(|(i, o)| format!("{} / {}", size(i), size(o)));
                table.row([
                    Cell::from(show::slot_name(&name, slot.slot)),
                    Cell::from(node_name.as_str()),
                    known(cpu_millis.map(percent)),
                    known(memory.map(size)),
                    known(memory_limit.map(size)),
                    known(processes.map(|count| count.to_string())),
                    known(network),
                ]);
            }
            StatsRecord::Unknown { slot, reason, .. } => {
                let name = show::slot_name(&context.display(&slot.service), slot.slot);
                notes.push(format!("dunlin: nothing is known of {name}: {reason}"));
            }
            StatsRecord::Unreachable {
                node_name, reason, ..
            } => notes.push(format!(
                "dunlin: the replicas of {node_name} are missing: {reason}"
            )),
            StatsRecord::End => {}
        }
    }
    if !once && context.out.look().width.is_some() {
        context.out.line(CLEAR)?;
    }
    context.out.table(&table)?;
    context.out.flush()?;
    for note in notes {
        context.out.note(note)?;
    }
    Ok(())
}

fn known(text: Option<String>) -> Cell {
    Cell::from(text.unwrap_or_else(|| "-".to_owned()))
}

/// Thousandths of a core as a percentage of one: two busy cores are 200%.
fn percent(millis: u64) -> String {
    format!("{}.{}%", millis / 10, millis % 10)
}
