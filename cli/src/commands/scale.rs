//! `dunlin scale`

use clap::Args;
use dunlin_api::Exit;

use crate::context::Context;
use crate::failure::Failure;
use crate::progress::{self, Target, WaitArgs};

/// Words of `dunlin scale`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// The services with their new numbers of replicas
    #[arg(required = true, value_name = "SERVICE=N", value_parser = wish)]
    pub services: Vec<(String, u32)>,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Changes numbers of replicas and waits until they are there.
pub async fn run(args: &ScaleArgs, context: &mut Context) -> Result<Exit, Failure> {
    let mut wishes = Vec::with_capacity(args.services.len());
    for (text, replicas) in &args.services {
        wishes.push((context.service(text)?, *replicas));
    }
    let mut targets = Vec::new();
    for (key, replicas) in wishes {
        context.client.scale(&key, replicas).await?;
        targets.push(Target::new(key).of_scale(replicas));
    }
    progress::wait(&targets, &args.wait, context).await
}

fn wish(text: &str) -> Result<(String, u32), String> {
    let bad = || format!("'{text}' is not SERVICE=N");
    let (service, replicas) = text.split_once('=').ok_or_else(bad)?;
    let replicas = replicas.parse().map_err(|_not_a_number| bad())?;
    if service.is_empty() {
        return Err(bad());
    }
    Ok((service.to_owned(), replicas))
}
