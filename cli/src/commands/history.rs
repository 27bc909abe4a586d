//! `dunlin history`

use clap::Args;
use dunlin_api::Exit;

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The service
    pub service: String,
}

/// Shows who changed what, newest first.
pub async fn run(args: &HistoryArgs, context: &mut Context) -> Result<Exit, Failure> {
    let key = context.service(&args.service)?;
    let history = context.client.history(&key).await?;
    if context.json {
        context.out.json(&history.entries)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["AGE", "ASPECT", "CHANGE", "REVISION", "AUTHOR", "STATE"])
        .prose(&["CHANGE"])
        .optional(&["REVISION", "AUTHOR"]);
    for entry in &history.entries {
        let state = match (entry.current, entry.lost) {
            (_, true) => Cell::toned("lost to a concurrent change", Tone::Warn),
            (true, false) => Cell::toned("current", Tone::Good),
            (false, false) => Cell::toned("replaced", Tone::Dim),
        };
        table.row([
            Cell::from(context.out.age(entry.at)),
            Cell::from(&entry.aspect),
            Cell::from(&entry.summary),
            Cell::from(
                entry
                    .revision
                    .as_deref()
                    .map(show::short)
                    .unwrap_or_default(),
            ),
            Cell::from(&entry.author),
            state,
        ]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}
