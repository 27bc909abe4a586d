//! `dunlin diff`

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use dunlin_api::{Exit, RevisionEntry};
use dunlin_state::model::ServiceSpec;
use serde_json::Value;

use super::show;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The service
    pub service: String,
    /// The older revision, or a unique beginning of it; the one before the newer when absent
    pub from: Option<String>,
    /// The newer one; what is wanted now when absent
    pub to: Option<String>,
    /// List the revisions that are kept
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub list: bool,
}

/// Shows what differs between two specifications of a service.
pub async fn run(args: &DiffArgs, context: &mut Context) -> Result<Exit, Failure> {
    let key = context.service(&args.service)?;
    let list = context.client.revisions(&key).await?.revisions;
    if args.list {
        return print_list(&list, context);
    }
    let newer = match &args.to {
        Some(text) => find(&list, text)?,
        None => list
            .iter()
            .find(|e| e.current)
            .or(list.first())
            .ok_or_else(nothing)?,
    };
    let older = match &args.from {
        Some(text) => find(&list, text)?,
        None => {
            let mut after = list.iter().skip_while(|e| !std::ptr::eq(*e, newer));
            after.nth(1).ok_or_else(nothing)?
        }
    };
    let changes = changes(&older.spec, &newer.spec)?;
    if context.json {
        let rows = changes.iter().map(|(name, before, after)| {
            serde_json::json!({ "field": name, "before": before, "after": after })
        });
        context.out.json(&rows.collect::<Vec<_>>())?;
        return Ok(Exit::Ok);
    }
    let names = (show::short(&older.revision), show::short(&newer.revision));
    context.out.line(format!("{} -> {}", names.0, names.1))?;
    print_changes(changes, context)?;
    Ok(Exit::Ok)
}

/// A field's path, and its values before and after.
type Change = (String, Option<Value>, Option<Value>);

/// Prints what differs between two specifications.
pub(super) fn print(
    older: &ServiceSpec,
    newer: &ServiceSpec,
    context: &mut Context,
) -> Result<(), Failure> {
    print_changes(changes(older, newer)?, context)
}

fn print_changes(changes: Vec<Change>, context: &mut Context) -> Result<(), Failure> {
    for (name, before, after) in changes {
        for (sign, value) in [('-', before), ('+', after)] {
            if let Some(value) = value {
                context.out.line(format!("{sign} {name}: {value}"))?;
            }
        }
    }
    Ok(())
}

fn changes(older: &ServiceSpec, newer: &ServiceSpec) -> Result<Vec<Change>, Failure> {
    let (old, new) = (flat(older)?, flat(newer)?);
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let (before, after) = (old.get(name), new.get(name));
        if before != after {
            changes.push((name.clone(), before.cloned(), after.cloned()));
        }
    }
    Ok(changes)
}

fn print_list(list: &[RevisionEntry], context: &mut Context) -> Result<Exit, Failure> {
    if context.json {
        context.out.json(&list)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["REVISION", "AGE", "AUTHOR", "RUNS", "STATE"]).prose(&["RUNS"]);
    for entry in list {
        let state = match entry.current {
            true => Cell::toned("current", Tone::Good),
            false => Cell::toned("replaced", Tone::Dim),
        };
        table.row([
            Cell::from(show::short(&entry.revision)),
            Cell::from(context.out.age(entry.at)),
            Cell::from(&entry.author),
            Cell::from(show::workload(&entry.spec.image, &entry.spec.command)),
            state,
        ]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

fn nothing() -> Failure {
    Failure::Refused {
        message: "there is no earlier specification to compare with".to_owned(),
        hint: Some("`dunlin diff SERVICE --list` shows those that are kept".to_owned()),
    }
}

/// The revision that begins so.
pub(super) fn find<'a>(
    list: &'a [RevisionEntry],
    text: &str,
) -> Result<&'a RevisionEntry, Failure> {
    let mut hits = list.iter().filter(|e| e.revision.starts_with(text));
    let first = hits.next();
    match (
        first,
        hits.find(|e| first.is_some_and(|f| f.revision != e.revision)),
    ) {
        (Some(entry), None) => Ok(entry),
        (Some(_), Some(_)) => Err(Failure::Refused {
            message: format!("several revisions begin with '{text}'"),
            hint: Some("give more of its characters".to_owned()),
        }),
        (None, _) => Err(Failure::Refused {
            message: format!("no revision that is kept begins with '{text}'"),
            hint: Some("`dunlin diff SERVICE --list` shows those that are kept".to_owned()),
        }),
    }
}

/// Every value of a specification by its path.
fn flat(spec: &ServiceSpec) -> Result<BTreeMap<String, Value>, Failure> {
    let value = serde_json::to_value(spec)
        .map_err(|e| Failure::usage(format!("a specification cannot be shown: {e}")))?;
    let mut flat = BTreeMap::new();
    walk("", &value, &mut flat);
    Ok(flat)
}

fn walk(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    let join = |name: &str| match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    };
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                walk(&join(name), field, into);
            }
        }
        Value::Null => {}
        other => {
            into.insert(path.to_owned(), other.clone());
        }
    }
}
