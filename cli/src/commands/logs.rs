//! `dunlin logs`

use clap::Args;
use dunlin_api::{Exit, LogQuery, LogRecord};

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::timestamp;
use crate::words::{self, Since};

/// Words of `dunlin logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Go on with lines as they are written
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines of each replica: a number, or 'all'
    #[arg(long, value_name = "N", value_parser = tail, default_value = "all")]
    pub tail: Tail,
    /// Only lines since then: a span such as 10m, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = words::since)]
    pub since: Option<Since>,
    /// Begin each line with its time
    #[arg(short, long)]
    pub timestamps: bool,
    /// The service, with .SLOT for one of its replicas
    #[arg(value_name = "SERVICE[.SLOT]")]
    pub service: String,
}

/// How many lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// All that are kept.
    All,
    /// At most so many of each replica.
    Last(u32),
}

/// Prints lines as they come. Nodes that cannot be asked are named on standard error, and make the
/// exit code 3, since lines are missing.
pub async fn run(args: &LogsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let (name, slot) = words::service_and_slot(&args.service);
    let slot = slot.map(str::to_owned);
    let key = context.service(name)?;
    let prefixed = slot.is_none();
    let query = LogQuery {
        slot,
        tail: match args.tail {
            Tail::All => None,
            Tail::Last(lines) => Some(lines),
        },
        since: args.since.map(|s| s.instant(context.out.now())),
        follow: args.follow,
    };
    let shown = context.display(&key);
    let mut records = context.client.logs(&key, &query).await?;
    let mut exit = Exit::Ok;
    while let Some(record) = records.next().await? {
        if matches!(record, LogRecord::Unreachable { .. }) {
            exit = Exit::Unreachable;
        }
        if context.json {
            context.out.json_line(&record)?;
        } else {
            print(&record, &shown, prefixed, args.timestamps, context)?;
        }
    }
    Ok(exit)
}

fn print(
    record: &LogRecord,
    name: &str,
    prefixed: bool,
    timestamps: bool,
    context: &mut Context,
) -> Result<(), Failure> {
    match record {
        LogRecord::Line { slot, at, text, .. } => {
            let mut line = String::new();
            if prefixed {
                line.push_str(&show::slot_name(name, *slot));
                line.push_str(" | ");
            }
            if timestamps {
                line.push_str(&timestamp(*at));
                line.push(' ');
            }
            line.push_str(text);
            context.out.line(line)?;
        }
        LogRecord::Unreachable {
            node_name, reason, ..
        } => {
            let note = format!("dunlin: the lines of {node_name} are missing: {reason}");
            context.out.note(note)?;
        }
        LogRecord::Skipped { slot, reason, .. } => {
            let slot = show::slot_name(name, *slot);
            context
                .out
                .note(format!("dunlin: lines of {slot} are missing: {reason}"))?;
        }
    }
    Ok(())
}

fn tail(text: &str) -> Result<Tail, String> {
    if text == "all" {
        return Ok(Tail::All);
    }
    let lines = text.parse();
    lines
        .map(Tail::Last)
        .map_err(|_not_a_number| format!("'{text}' is neither a number nor 'all'"))
}
