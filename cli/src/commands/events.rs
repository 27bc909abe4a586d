//! `dunlin events`

use clap::Args;
use dunlin_api::{EventQuery, EventRecord, Exit};

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with events as they happen
    #[arg(short, long)]
    pub follow: bool,
}

/// Shows what the node saw happen, oldest first.
pub async fn run(args: &EventsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let query = EventQuery {
        follow: args.follow,
    };
    let mut events = context.client.events(&query).await?;
    while let Some(event) = events.next().await? {
        if context.json {
            context.out.json_line(&event)?;
        } else {
            let text = line(&event, context);
            context.out.line(text)?;
        }
    }
    Ok(Exit::Ok)
}

fn line(event: &EventRecord, context: &Context) -> String {
    let mark = if event.warning { "!" } else { " " };
    let about = match (&event.service, event.slot) {
        (Some(service), Some(slot)) => format!("{}.{slot}: ", context.display(service)),
        (Some(service), None) => format!("{}: ", context.display(service)),
        (None, _) => String::new(),
    };
    let age = context.out.age(event.at);
    format!("{age:>4} ago {mark} {about}{}", event.text)
}
