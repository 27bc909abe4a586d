//! `dunlin secret` and `dunlin config`

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use dunlin_api::{Exit, ItemQuery, ItemRequest};
use dunlin_state::model::{ItemKey, ItemKind, MAX_ITEM_BYTES};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin secret` and `dunlin config`.
#[derive(Debug, Args)]
pub struct ItemArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ItemCommand,
}

/// What to do with secrets or configs.
#[derive(Debug, Subcommand)]
pub enum ItemCommand {
    /// Create one from a file, or from standard input ('-')
    Create(WriteArgs),
    /// Give one another content: replicas that run get it at once, without a restart
    #[command(visible_alias = "rotate")]
    Update(WriteArgs),
    /// List them
    #[command(visible_alias = "list")]
    Ls {
        /// Print names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove those that no service uses
    #[command(visible_alias = "remove")]
    Rm {
        /// Which
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show them in full; the value of a secret is shown to nobody
    Inspect {
        /// Which
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Words of `create` and `update`.
#[derive(Debug, Args)]
pub struct WriteArgs {
    /// Its name, or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The file that holds its content, '-' for standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// Labels to give it; with `update`, in the place of those that it has
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
}

/// Runs a command on secrets or configs.
pub async fn run(kind: ItemKind, args: &ItemArgs, context: &mut Context) -> Result<Exit, Failure> {
    match &args.command {
        ItemCommand::Create(args) => write(kind, args, false, context).await?,
        ItemCommand::Update(args) => write(kind, args, true, context).await?,
        ItemCommand::Ls { quiet } => list(kind, *quiet, context).await?,
        ItemCommand::Rm { names } => remove(kind, names, context).await?,
        ItemCommand::Inspect { names } => inspect(kind, names, context).await?,
    }
    Ok(Exit::Ok)
}

async fn write(
    kind: ItemKind,
    args: &WriteArgs,
    existing: bool,
    context: &mut Context,
) -> Result<(), Failure> {
    let key = item(&args.name, context)?;
    let labels = labels(&args.labels)?;
    let value = read(kind, &args.file)?;
    let request = ItemRequest {
        value: data_encoding::BASE64.encode(&value),
        labels: (!existing || !labels.is_empty()).then_some(labels),
        existing: Some(existing),
    };
    let answer = context.client.put_item(kind, &key, &request).await?;
    if context.json {
        context.out.json(&answer)?;
    } else if answer.changed {
        context.out.line(&args.name)?;
    } else {
        context.out.line(format!("{}: as it was", args.name))?;
    }
    Ok(())
}

fn read(kind: ItemKind, path: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::System {
        message: format!("cannot read the {kind} from {}", path.display()),
        source,
    };
    let mut value = Vec::new();
    // One byte more than allowed tells one that is too large.
    let most = MAX_ITEM_BYTES as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut value)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut value))
    }
    .map_err(failed)?;
    if value.len() > MAX_ITEM_BYTES {
        let limit = MAX_ITEM_BYTES / 1024;
        return Err(Failure::usage(format!(
            "{} has more than {limit} KiB; larger content belongs into an image or a volume",
            path.display()
        )));
    }
    Ok(value)
}

fn labels(words: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for word in words {
        // As Docker: a label without a value has an empty one.
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        if key.is_empty() {
            return Err(Failure::usage(format!("'{word}' is not KEY=VALUE")));
        }
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// Reads `name` or `namespace/name`.
fn item(text: &str, context: &Context) -> Result<ItemKey, Failure> {
    let key = match (text.contains('/'), &context.namespace) {
        (false, Some(namespace)) => ItemKey::new(namespace, text),
        (true, _) | (false, None) => text.parse(),
    };
    key.map_err(|bad| Failure::usage(bad.to_string()))
}

fn display(key: &ItemKey, context: &Context) -> String {
    let implied = context.namespace.as_deref();
    match key.namespace() == implied.unwrap_or("default") {
        true => key.name().to_owned(),
        false => key.to_string(),
    }
}

async fn list(kind: ItemKind, quiet: bool, context: &mut Context) -> Result<(), Failure> {
    let query = ItemQuery {
        namespace: context.namespace.clone(),
    };
    let items = context.client.items(kind, &query).await?;
    if context.json {
        return Ok(context.out.json(&items)?);
    }
    if quiet {
        for item in &items {
            let name = display(&item.name, context);
            context.out.line(name)?;
        }
        return Ok(());
    }
    let mut table = Table::new(["NAME", "VERSION", "UPDATED", "USED BY", "LABELS"])
        .prose(&["USED BY", "LABELS"])
        .optional(&["LABELS"]);
    for item in &items {
        let users: Vec<String> = item.used_by.iter().map(|s| context.display(s)).collect();
        let labels: Vec<String> = item
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        table.row([
            Cell::from(display(&item.name, context)),
            Cell::from(item.version.to_string()),
            Cell::from(context.out.age(item.updated)),
            match users.is_empty() {
                true => Cell::toned("nobody", Tone::Dim),
                false => Cell::from(users.join(", ")),
            },
            Cell::from(labels.join(", ")),
        ]);
    }
    Ok(context.out.table(&table)?)
}

async fn remove(kind: ItemKind, names: &[String], context: &mut Context) -> Result<(), Failure> {
    // All names are read before the first one goes.
    let keys = names.iter().map(|text| item(text, context));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    for (text, key) in names.iter().zip(&keys) {
        context.client.remove_item(kind, key).await?;
        if !context.json {
            context.out.line(text)?;
        }
    }
    if context.json {
        context.out.json(&serde_json::json!({ "removed": names }))?;
    }
    Ok(())
}

async fn inspect(kind: ItemKind, names: &[String], context: &mut Context) -> Result<(), Failure> {
    let mut details = Vec::new();
    for text in names {
        let key = item(text, context)?;
        details.push(context.client.item(kind, &key).await?);
    }
    // As Docker: always JSON, and always a list.
    Ok(context.out.json(&details)?)
}
