//! `dunlin cordon` and `dunlin uncordon`

use clap::Args;
use dunlin_api::{AvailabilityRequest, Exit};
use dunlin_state::model::Availability;

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin cordon`.
#[derive(Debug, Args)]
pub struct CordonArgs {
    /// The node
    pub node: String,
}

/// Words of `dunlin uncordon`.
#[derive(Debug, Args)]
pub struct UncordonArgs {
    /// The node
    pub node: String,
}

/// Gives a node no new replicas.
pub async fn cordon(args: &CordonArgs, context: &mut Context) -> Result<Exit, Failure> {
    set(&args.node, Availability::Cordoned, "cordoned", context).await
}

/// Lets a node take replicas again.
pub async fn uncordon(args: &UncordonArgs, context: &mut Context) -> Result<Exit, Failure> {
    set(&args.node, Availability::Active, "active", context).await
}

/// Sets a node's availability and says whether that changed anything.
pub(super) async fn set(
    node: &str,
    availability: Availability,
    word: &str,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let request = AvailabilityRequest { availability };
    let answer = context.client.set_availability(node, request).await?;
    if context.json {
        context.out.json(&answer)?;
    } else if answer.changed {
        context.out.line(format!("{node} is {word}"))?;
    } else {
        context.out.line(format!("{node} was {word} already"))?;
    }
    Ok(Exit::Ok)
}
