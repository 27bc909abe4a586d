//! `dunlin start`

use clap::Args;
use dunlin_api::Exit;

use crate::context::Context;
use crate::failure::Failure;
use crate::progress::{self, Target, WaitArgs};

/// Words of `dunlin start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// The services
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Starts stopped services and waits until they are as wanted.
pub async fn run(args: &StartArgs, context: &mut Context) -> Result<Exit, Failure> {
    let keys = args.services.iter().map(|text| context.service(text));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    let mut targets = Vec::with_capacity(keys.len());
    for key in keys {
        context.client.start(&key).await?;
        targets.push(Target::new(key).started());
    }
    progress::wait(&targets, &args.wait, context).await
}
