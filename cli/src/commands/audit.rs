//! `dunlin audit`

use clap::Args;
use dunlin_api::Exit;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {}

/// Shows who changed what, with which key, newest first.
pub async fn run(_args: &AuditArgs, context: &mut Context) -> Result<Exit, Failure> {
    let audit = context.client.audit().await?;
    if context.json {
        context.out.json(&audit.entries)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["AGE", "WHAT", "AUTHOR", "ROLE", "KEY", "STATE"]).prose(&["WHAT"]);
    for entry in &audit.entries {
        let key = entry.key.as_deref().unwrap_or("not signed");
        let state = match (entry.void, entry.removed) {
            (true, _) => Cell::toned("void: its signer was removed", Tone::Warn),
            (false, true) => Cell::toned("removed", Tone::Dim),
            (false, false) => Cell::toned("written", Tone::Good),
        };
        table.row([
            Cell::from(context.out.age(entry.at)),
            Cell::from(&entry.what),
            Cell::from(&entry.author),
            Cell::from(entry.role.as_deref().unwrap_or_default()),
            Cell::from(key.get(..10).unwrap_or(key)),
            state,
        ]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}
