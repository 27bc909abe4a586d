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
}

/// Prints the ticket alone, so that it can be piped.
pub async fn run(args: &TicketArgs, context: &mut Context) -> Result<Exit, Failure> {
    let ttl_ms = args
        .ttl
        .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let ticket = context.client.ticket(&TicketRequest { ttl_ms }).await?;
    if context.json {
        context.out.json(&ticket)?;
    } else {
        context.out.line(&ticket.ticket)?;
        if context.out.look().live {
            let note = "The ticket is a secret. On the other host: dunlin up --join <TICKET>";
            context.out.note(note)?;
        }
    }
    Ok(Exit::Ok)
}
