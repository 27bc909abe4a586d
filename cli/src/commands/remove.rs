//! `dunlin remove`

use clap::Args;
use dunlin_api::{Exit, RemoveQuery};

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The node: its name, its id, or a unique beginning of that
    pub node: String,
    /// Also the node that is asked itself, or one known by its whole id only
    #[arg(short, long)]
    pub force: bool,
    /// Why, for `dunlin audit` and for those who ask later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Removes a node's key from the cluster for good.
pub async fn run(args: &RemoveArgs, context: &mut Context) -> Result<Exit, Failure> {
    let query = RemoveQuery {
        force: args.force,
        reason: args.reason.clone(),
    };
    let answer = context.client.remove_node(&args.node, &query).await?;
    if context.json {
        context.out.json(&answer)?;
    } else if answer.changed {
        context.out.line(format!(
            "{} is removed: its connections are closed, its changes are refused, and the cluster's keys are replaced",
            args.node
        ))?;
    } else {
        context
            .out
            .line(format!("{} was removed already", args.node))?;
    }
    Ok(Exit::Ok)
}
