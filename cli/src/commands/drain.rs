//! `dunlin drain`

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use dunlin_api::{Exit, ReplicaQuery};
use dunlin_state::model::Availability;
use tokio::time::Instant;

use super::{cordon, show};
use crate::context::Context;
use crate::failure::Failure;
use crate::words;

/// Milliseconds between two looks at the node: replicas move in hundreds of milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Words of `dunlin drain`.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The node
    pub node: String,
    /// Wait until it holds no replicas
    #[arg(short, long)]
    pub wait: bool,
    /// Give up waiting after this time, with exit code 4; 0 waits for ever
    #[arg(long, default_value = "10m", value_parser = words::duration, value_name = "DURATION")]
    pub timeout: Duration,
}

/// Asks a node to hand over its replicas.
pub async fn run(args: &DrainArgs, context: &mut Context) -> Result<Exit, Failure> {
    let exit = cordon::set(&args.node, Availability::Drained, "draining", context).await?;
    if !args.wait {
        return Ok(exit);
    }
    tokio::select! {
        exit = empty(args, context.client.clone(), context) => exit,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

async fn empty(
    args: &DrainArgs,
    client: dunlin_api::client::Client,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let started = Instant::now();
    let query = ReplicaQuery {
        node: Some(args.node.clone()),
        ..ReplicaQuery::default()
    };
    let mut before = None;
    let mut told = BTreeSet::new();
    loop {
        let left = client.replicas(&query).await?.replicas;
        if left.is_empty() {
            if !context.json {
                context.out.line(format!("{} is empty", args.node))?;
            }
            return Ok(Exit::Ok);
        }
        if before != Some(left.len()) {
            before = Some(left.len());
            context.out.note(format!("{} replicas left", left.len()))?;
        }
        // What cannot move, as its data is here, says so.
        for replica in &left {
            let name = show::slot_name(&context.display(&replica.service), replica.slot);
            if let Some(message) = &replica.message
                && told.insert((name.clone(), message.clone()))
            {
                context.out.note(format!("{name}: {message}"))?;
            }
        }
        if !args.timeout.is_zero() && started.elapsed() >= args.timeout {
            for replica in &left {
                let name = show::slot_name(&context.display(&replica.service), replica.slot);
                context.out.note(format!("still there: {name}"))?;
            }
            context
                .out
                .note("the draining goes on; `dunlin explain SERVICE` says what it waits for")?;
            return Ok(Exit::TimedOut);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
