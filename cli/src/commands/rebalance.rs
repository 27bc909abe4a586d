//! `dunlin rebalance`

use clap::{Args, ValueEnum};
use dunlin_api::{Exit, RebalancePlan, RebalanceRequest};

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table};

/// Words of `dunlin rebalance`.
#[derive(Debug, Args)]
pub struct RebalanceArgs {
    /// Show what would move from where to where and why, and move nothing
    #[arg(long, conflicts_with = "auto")]
    pub plan: bool,
    /// Only say whether replicas move by themselves once the cluster has been quiet for a while
    #[arg(long, value_name = "on|off")]
    pub auto: Option<Auto>,
}

/// Whether replicas move by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auto {
    /// They do.
    On,
    /// They do not.
    Off,
}

/// Has replicas moved so that nodes are evenly used, or shows what would be.
pub async fn run(args: &RebalanceArgs, context: &mut Context) -> Result<Exit, Failure> {
    if args.plan {
        return plan(context).await;
    }
    let request = RebalanceRequest {
        automatic: args.auto.map(|auto| auto == Auto::On),
        now: args.auto.is_none(),
    };
    let answer = context.client.rebalance(&request).await?;
    if context.json {
        context.out.json(&answer)?;
        return Ok(Exit::Ok);
    }
    if let Some(auto) = args.auto {
        context.out.line(match auto {
            Auto::On => "replicas move by themselves when the cluster has been quiet for a while",
            Auto::Off => "replicas move only when `dunlin rebalance` asks for it",
        })?;
        return Ok(Exit::Ok);
    }
    let plan = context.client.rebalance_plan().await?;
    context.out.line(match plan.moves.len() {
        0 => "nothing to move".to_owned(),
        1 => "1 replica moves now".to_owned(),
        moves => format!("{moves} replicas move now, a few at a time"),
    })?;
    if !plan.moves.is_empty() {
        context
            .out
            .note("`dunlin rebalance --plan` shows what is left to move")?;
    }
    Ok(Exit::Ok)
}

async fn plan(context: &mut Context) -> Result<Exit, Failure> {
    let plan = context.client.rebalance_plan().await?;
    if context.json {
        context.out.json(&plan)?;
        return Ok(Exit::Ok);
    }
    if !plan.moves.is_empty() {
        let mut table = Table::new(["NAME", "FROM", "TO", "WHY"]).prose(&["WHY"]);
        for planned in &plan.moves {
            let service = context.display(&planned.service);
            table.row([
                Cell::from(show::slot_name(&service, planned.slot)),
                Cell::from(&planned.from),
                Cell::from(&planned.to),
                Cell::from(&planned.why),
            ]);
        }
        context.out.table(&table)?;
        context.out.line("")?;
    }
    let mut table = Table::new(["NODE", "REPLICAS", "THEN", "FULL", "THEN"]);
    for node in &plan.nodes {
        table.row([
            Cell::from(&node.name),
            Cell::from(node.replicas_before.to_string()),
            Cell::from(node.replicas_after.to_string()),
            Cell::from(percent(node.full_before_ppm)),
            Cell::from(percent(node.full_after_ppm)),
        ]);
    }
    context.out.table(&table)?;
    if !plan.stays.is_empty() {
        context.out.line("")?;
        let mut table = Table::new(["SERVICE", "STAYS BECAUSE"]).prose(&["STAYS BECAUSE"]);
        for staying in &plan.stays {
            let service = context.display(&staying.service);
            table.row([Cell::from(service), Cell::from(&staying.why)]);
        }
        context.out.table(&table)?;
    }
    context.out.line(summary(&plan))?;
    Ok(Exit::Ok)
}

fn percent(ppm: u32) -> String {
    format!("{}%", ppm / 10_000)
}

fn summary(plan: &RebalancePlan) -> String {
    let spread = |full: fn(&dunlin_api::NodeUse) -> u32| {
        let most = plan.nodes.iter().map(full).max().unwrap_or(0);
        percent(most - plan.nodes.iter().map(full).min().unwrap_or(0))
    };
    let more = if plan.more { " or more" } else { "" };
    let mut text = format!(
        "{}{more} replicas would move; the fullest and the emptiest node differ by {}, then by {}",
        plan.moves.len(),
        spread(|node| node.full_before_ppm),
        spread(|node| node.full_after_ppm),
    );
    if plan.moving > 0 {
        text.push_str(&format!("; {} on their way already", plan.moving));
    }
    text.push_str(match (plan.asked_until, plan.automatic) {
        (Some(_), _) => "; they move now, as somebody has asked",
        (None, true) => "; they move by themselves, slowly, where much is gained",
        (None, false) => "; they move when `dunlin rebalance` asks for it",
    });
    text
}
