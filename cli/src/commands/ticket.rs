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
    /// What a host that joins with it, or a person who adds it (`dunlin context add`), may do: `node` runs workloads; `operator`, or
    /// `operator:NAMESPACE[,…]`, may also deploy; `viewer` may look; `admin` may do everything
    #[arg(long, default_value = "node", value_name = "ROLE")]
    pub role: String,
    /// For how long it shall be good [default: 1h]
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub ttl: Option<Duration>,
    /// How many may use it [default: any number of hosts, one for other roles than node]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
}

/// Prints the ticket alone, so that it can be piped.
pub async fn run(args: &TicketArgs, context: &mut Context) -> Result<Exit, Failure> {
    let ttl_ms = args
        .ttl
        .map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let request = TicketRequest {
        ttl_ms,
        role: Some(args.role.clone()),
        uses: args.uses,
    };
    let ticket = context.client.ticket(&request).await?;
    if context.json {
        context.out.json(&ticket)?;
        return Ok(Exit::Ok);
    }
    context.out.line(&ticket.ticket)?;
    if context.out.look().live {
        let may = match ticket.role.as_str() {
            "node" => "runs workloads and may look; for one to deploy from, add --role operator",
            "viewer" => "runs workloads and may look",
            "admin" => "runs workloads and may do everything",
            _ => "runs workloads and may deploy",
        };
        let person = match ticket.role.as_str() {
            "node" => "",
            _ => " For a person: dunlin context add NAME --host tcp://HOST:PORT --ticket <TICKET>.",
        };
        let note = format!(
            "The ticket is a secret. On the other host: dunlin up --join <TICKET>; that host then {may}.{person}"
        );
        context.out.note(note)?;
    }
    Ok(Exit::Ok)
}
