//! `dunlin leave`

use clap::Args;
use dunlin_api::Exit;

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin leave`.
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// Leave although this node holds replicas; others take them over after it has gone
    #[arg(short, long)]
    pub force: bool,
}

/// Takes the node out of its cluster.
pub async fn run(args: &LeaveArgs, context: &mut Context) -> Result<Exit, Failure> {
    let status = context.client.node().await?;
    let (name, held) = (&status.node.name, status.node.replicas);
    if held > 0 && !args.force {
        return Err(Failure::Refused {
            message: format!("{name} holds {held} replicas, which would stop before others start"),
            hint: Some(format!(
                "`dunlin drain {name} --wait` first, or use --force"
            )),
        });
    }
    let answer = context.client.leave().await?;
    if context.json {
        context.out.json(&answer)?;
    } else {
        context.out.line(format!("{name} has left the cluster"))?;
    }
    Ok(Exit::Ok)
}
