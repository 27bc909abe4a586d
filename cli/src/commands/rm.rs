//! `dunlin rm`

use clap::Args;
use dunlin_api::client::ClientError;
use dunlin_api::{ErrorCode, Exit, RemoveRequest};
use dunlin_state::model::ServiceKey;

use crate::context::Context;
use crate::failure::Failure;

/// Services that are removed at a time: few enough for one change of the document.
const MAX_PART: usize = 100;

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
    let parts = keys.chunks(MAX_PART).rev();
    // The last is the next.
    let mut left: Vec<&[ServiceKey]> = parts.collect();
    let mut names = args.services.iter();
    while let Some(part) = left.pop() {
        match remove(part, context).await {
            Ok(()) => {}
            Err(ClientError::Answered(body))
                if body.code == ErrorCode::TooLarge && part.len() > 1 =>
            {
                let (first, second) = part.split_at(part.len() / 2);
                left.extend([second, first]);
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        for name in names.by_ref().take(part.len()).filter(|_| !context.json) {
            context.out.line(name)?;
        }
    }
    if context.json {
        context
            .out
            .json(&serde_json::json!({ "removed": args.services }))?;
    }
    Ok(Exit::Ok)
}

async fn remove(part: &[ServiceKey], context: &Context) -> Result<(), ClientError> {
    match part {
        [service] => context.client.remove(service).await?,
        several => {
            let services = several.to_vec();
            context
                .client
                .remove_all(&RemoveRequest { services })
                .await?
        }
    };
    Ok(())
}
