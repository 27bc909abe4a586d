//! `dunlin explain`

use clap::Args;
use dunlin_api::{Exit, Explanation, Verdict};

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Output, Table, Tone};

/// Words of `dunlin explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The service
    pub service: String,
}

/// Says why a service is as it is.
pub async fn run(args: &ExplainArgs, context: &mut Context) -> Result<Exit, Failure> {
    let key = context.service(&args.service)?;
    let explanation = context.client.explain(&key).await?;
    if context.json {
        context.out.json(&explanation)?;
    } else {
        print(&explanation, &context.display(&key), &mut context.out)?;
    }
    Ok(Exit::Ok)
}

fn print(explanation: &Explanation, name: &str, out: &mut Output) -> Result<(), Failure> {
    out.line(format!("{name}: {}", explanation.summary))?;
    let networks: Vec<&str> = explanation.networks.iter().map(String::as_str).collect();
    out.line(format!("networks: {}", networks.join(", ")))?;
    if let Some(autoscale) = &explanation.autoscale {
        let text = show::autoscale(autoscale);
        let age = autoscale
            .since
            .map(|since| format!(", {} ago", out.age(since)));
        out.line(format!("autoscale: {text}{}", age.unwrap_or_default()))?;
    }
    if !explanation.slots.is_empty() {
        out.line("")?;
        out.table(&slots(explanation))?;
    }
    if !explanation.nodes.is_empty() {
        out.line("")?;
        out.table(&nodes(explanation))?;
    }
    Ok(())
}

fn slots(explanation: &Explanation) -> Table {
    let mut table = Table::new(["SLOT", "NODE", "STATUS", "MESSAGE"]).prose(&["MESSAGE"]);
    for slot in &explanation.slots {
        let status = match (slot.phase, slot.ready) {
            (Some(_), true) => Cell::toned("ready", Tone::Good),
            (Some(phase), false) => Cell::toned(show::phase(phase), show::phase_tone(phase, false)),
            (None, _) => Cell::toned("vacant", Tone::Bad),
        };
        table.row([
            Cell::from(slot.slot.to_string()),
            Cell::from(slot.node_name.as_deref().unwrap_or_default()),
            status,
            Cell::from(slot.message.as_deref().unwrap_or_default()),
        ]);
    }
    table
}

/// Every reason has a row of its own, so that none is cut.
fn nodes(explanation: &Explanation) -> Table {
    let mut table = Table::new(["NODE", "ONE MORE?", "REASON", "WHAT WOULD HELP"])
        .prose(&["REASON", "WHAT WOULD HELP"]);
    for node in &explanation.nodes {
        let verdict = match (node.verdict, node.score) {
            // The score compares nodes for this service only; a person gains nothing from it.
            (Verdict::Fits, _) => Cell::toned("fits", Tone::Good),
            (Verdict::Refused, _) => Cell::toned("refuses", Tone::Bad),
        };
        let mut first = Some((Cell::from(&node.name), verdict));
        for reason in &node.reasons {
            let (name, verdict) = first
                .take()
                .unwrap_or_else(|| (Cell::toned(" ", Tone::Plain), Cell::toned(" ", Tone::Plain)));
            let fix = Cell::from(reason.fix.as_deref().unwrap_or_default());
            table.row([name, verdict, Cell::from(&reason.text), fix]);
        }
        if let Some((name, verdict)) = first {
            table.row([name, verdict, Cell::from(""), Cell::from("")]);
        }
    }
    table
}
