//! `dunlin ps`

use std::collections::BTreeMap;

use clap::Args;
use dunlin_api::{ConvergenceQuery, Exit, Replica, ReplicaList, ReplicaQuery, WaitingService};
use dunlin_state::model::{ServiceKey, Slot, SlotId};

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Only replicas of this service
    pub service: Option<String>,
    /// Only replicas on this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Lists replicas, and after them the slots that nobody holds.
pub async fn run(args: &PsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let service = args.service.as_deref();
    let query = ReplicaQuery {
        service: service.map(|text| context.service(text)).transpose()?,
        namespace: match service {
            Some(_) => None,
            None => context.namespace.clone(),
        },
        node: args.node.clone(),
    };
    let list = context.client.replicas(&query).await?;
    if context.json {
        context.out.json(&list.replicas)?;
    } else if args.quiet {
        for replica in &list.replicas {
            let name = show::slot_name(&context.display(&replica.service), replica.slot);
            context.out.line(name)?;
        }
    } else {
        let reasons = reasons(&query, &list, context).await;
        let table = table(&list, &reasons, context);
        context.out.table(&table)?;
        for note in &list.notes {
            context.out.note(note)?;
        }
    }
    Ok(Exit::Ok)
}

/// Why slots are vacant, by service. Not worth an error of its own: `explain` tells as well.
async fn reasons(
    query: &ReplicaQuery,
    list: &ReplicaList,
    context: &mut Context,
) -> BTreeMap<ServiceKey, String> {
    if list.vacant.is_empty() {
        return BTreeMap::new();
    }
    let query = ConvergenceQuery {
        namespace: query.namespace.clone(),
        service: query.service.clone(),
    };
    let progress = context.client.convergence(&query).await;
    let progress = progress.unwrap_or_default().into_iter();
    progress
        .filter_map(|p| Some((p.service, p.reason?)))
        .collect()
}

fn table(list: &ReplicaList, reasons: &BTreeMap<ServiceKey, String>, context: &Context) -> Table {
    let mut table = Table::new([
        "NAME",
        "NODE",
        "STATUS",
        "AGE",
        "RESTARTS",
        "ENDPOINTS",
        "REVISION",
        "MESSAGE",
    ])
    .prose(&["MESSAGE"])
    .optional(&["REVISION", "ENDPOINTS", "RESTARTS"]);
    let mut rows: Vec<((&ServiceKey, Slot), [Cell; 8])> = Vec::new();
    for replica in &list.replicas {
        let place = (&replica.service, replica.slot);
        rows.push((place, held(replica, context)));
    }
    for slot in &list.vacant {
        let waits = list.waiting.iter().find(|w| w.service == slot.service);
        let reason = reasons.get(&slot.service);
        rows.push((
            (&slot.service, slot.slot),
            vacant(slot, waits, reason, context),
        ));
    }
    for service in &list.asleep {
        rows.push(((service, Slot::Replica(0)), asleep(service, context)));
    }
    // A stable sort: of several claims to a slot the node has put the one that counts first.
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    for (_, cells) in rows {
        table.row(cells);
    }
    table
}

/// A service that nobody connects to.
fn asleep(service: &ServiceKey, context: &Context) -> [Cell; 8] {
    let empty = || Cell::from("");
    [
        Cell::from(context.display(service)),
        empty(),
        Cell::toned("asleep", Tone::Dim),
        empty(),
        empty(),
        empty(),
        empty(),
        Cell::from("nobody connects; the first connection starts a replica"),
    ]
}

fn held(replica: &Replica, context: &Context) -> [Cell; 8] {
    let name = show::slot_name(&context.display(&replica.service), replica.slot);
    let since = replica.started_at.unwrap_or(replica.since);
    [
        Cell::from(name),
        Cell::from(&replica.node_name),
        show::status(replica),
        Cell::from(context.out.age(since)),
        Cell::from(replica.restarts.to_string()),
        Cell::from(show::endpoints(&replica.endpoints)),
        Cell::from(show::short(&replica.revision)),
        Cell::from(message(replica)),
    ]
}

fn vacant(
    slot: &SlotId,
    waits: Option<&WaitingService>,
    reason: Option<&String>,
    context: &Context,
) -> [Cell; 8] {
    let name = context.display(&slot.service);
    let (status, message) = match waits {
        None => (
            Cell::toned("vacant", Tone::Bad),
            reason
                .cloned()
                .unwrap_or_else(|| format!("see `dunlin explain {name}`")),
        ),
        Some(waits) if waits.in_vain => (Cell::toned("blocked", Tone::Bad), waits.reason.clone()),
        Some(waits) => (Cell::toned("waiting", Tone::Warn), waits.reason.clone()),
    };
    [
        Cell::from(show::slot_name(&name, slot.slot)),
        Cell::from(""),
        status,
        Cell::from(""),
        Cell::from(""),
        Cell::from(""),
        Cell::from(""),
        Cell::from(message),
    ]
}

/// Why it is not running; how it last ended, where that is all that is known.
pub(super) fn message(replica: &Replica) -> String {
    match (&replica.message, &replica.last_exit) {
        (Some(message), _) => message.clone(),
        (None, Some(exit)) if !replica.ready => show::exit(exit),
        (None, _) => String::new(),
    }
}
