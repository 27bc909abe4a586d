//! `dunlin nodes`

use clap::Args;
use dunlin_api::{Exit, Node};

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, cores, size};

/// Words of `dunlin nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// Lists the nodes.
pub async fn run(args: &NodesArgs, context: &mut Context) -> Result<Exit, Failure> {
    let nodes = context.client.nodes().await?;
    if context.json {
        context.out.json(&nodes)?;
    } else if args.quiet {
        for node in &nodes {
            context.out.line(node.id.to_string())?;
        }
    } else {
        let table = table(&nodes);
        context.out.table(&table)?;
        if context.client.node().await.is_ok_and(|node| node.removed) {
            let note = "This node was removed from its cluster by an admin: what is shown is what it last knew.";
            context.out.note(note)?;
        }
    }
    Ok(Exit::Ok)
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new([
        "NAME",
        "ID",
        "STATE",
        "AVAILABILITY",
        "ADDRESS",
        "REPLICAS",
        "CPU",
        "MEMORY",
        "LABELS",
        "VERSION",
    ])
    .prose(&["LABELS"])
    .optional(&["VERSION", "LABELS", "ID", "ADDRESS", "MEMORY", "CPU"]);
    for node in nodes {
        let name = if node.this {
            format!("{}*", node.name)
        } else {
            node.name.clone()
        };
        let used = |used: String, of: String| Cell::from(format!("{used}/{of}"));
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        table.row([
            Cell::from(name),
            Cell::from(node.id.short()),
            show::node_state_cell(node.state),
            show::node_availability(node),
            Cell::from(node.address.map(|a| a.to_string()).unwrap_or_default()),
            Cell::from(node.replicas.to_string()),
            used(
                cores(node.reserved.cpu_millis),
                cores(node.capacity.cpu_millis),
            ),
            used(size(node.reserved.memory), size(node.capacity.memory)),
            Cell::from(labels.join(",")),
            Cell::from(&node.version),
        ]);
    }
    table
}
