//! `dunlin rm`

use clap::Args;
use dunlin_api::Exit;

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// The services
    #[arg(required = true, value_name = "SERVICE")]
    pub services: Vec<String>,
}

/// Removes services and prints each one's name, as Docker does.
pub async fn run(args: &RmArgs, context: &mut Context) -> Result<Exit, Failure> {
    let keys = args.services.iter().map(|text| context.service(text));
    // All names are read before the first service goes: a slip must not leave half of the work.
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    for (text, key) in args.services.iter().zip(&keys) {
        context.client.remove(key).await?;
        if !context.json {
            context.out.line(text)?;
        }
    }
    if context.json {
        context
            .out
            .json(&serde_json::json!({ "removed": args.services }))?;
    }
    Ok(Exit::Ok)
}
