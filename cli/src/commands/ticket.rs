//! `dunlin ticket`

use std::time::Duration;

use clap::Args;
use dunlin_api::{Exit, TicketRequest};

use crate::context::Context;
use crate::failure::Failure;
use crate::words;

/// Words of `dunlin ticket`.
#[derive(Debug, Args)]
pub struct TicketArgs {
    /// For how long it shall be good, such as 1h
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub ttl: Option<Duration>,
    /// What its bearer becomes: node, or for a person (`dunlin context add`) viewer, operator,
    /// operator:NAMESPACE[,NAMESPACE...] or admin
    #[arg(long, default_value = "node")]
    pub role: String,
    /// How many may use it
    #[arg(long, value_name = "N")]
    pub uses: Option<u32>,
}

/// Prints the ticket alone, so that it can be piped.
pub async fn run(args: &TicketArgs, context: &mut Context) -> Result<Exit, Failure> {
    let ttl_ms = args
        .ttl
        .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let for_node = args.role == "node";
    let request = TicketRequest {
        ttl_ms,
        role: (!for_node).then(|| args.role.clone()),
        uses: args.uses,
    };
    let ticket = context.client.ticket(&request).await?;
    if context.json {
        context.out.json(&ticket)?;
    } else {
        context.out.line(&ticket.ticket)?;
        if context.out.look().live {
            let note = match for_node {
                true => "The ticket is a secret. On the other host: dunlin up --join <TICKET>",
                false => {
                    "The ticket is a secret. There: dunlin context add NAME --host tcp://HOST:PORT --ticket <TICKET>"
                }
            };
            context.out.note(note)?;
        }
    }
    Ok(Exit::Ok)
}
