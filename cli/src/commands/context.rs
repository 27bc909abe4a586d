//! `dunlin context`

use clap::{Args, Subcommand};
use dunlin_api::Exit;
use dunlin_api::client::{Client, Credentials, Host};
use dunlin_trust::{SecretKey, Ticket};

use crate::args::Global;
use crate::contexts::{ContextError, Contexts, LOCAL, Remote};
use crate::failure::Failure;
use crate::output::{Cell, Output, Table};

/// Words of `dunlin context`.
#[derive(Debug, Args)]
pub struct ContextArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ContextCommand,
}

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Turn a ticket of another cluster into a context
    #[command(visible_alias = "create")]
    Add(AddArgs),
    /// Ask that cluster from now on ('default': the daemon of this host)
    Use {
        /// Which
        #[arg(value_name = "CONTEXT")]
        name: String,
    },
    /// List the contexts
    #[command(visible_alias = "list")]
    Ls {
        /// Print names only
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove contexts with their keys
    #[command(visible_alias = "remove")]
    Rm {
        /// Which
        #[arg(value_name = "CONTEXT", required = true)]
        names: Vec<String>,
    },
    /// Show the name of the context in use
    Show,
}

/// Words of `dunlin context add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// What to call it
    #[arg(value_name = "CONTEXT")]
    pub name: String,
    /// A ticket for a viewer, an operator or an admin (`dunlin ticket --role ROLE`), or `-` to read
    /// it from standard input
    #[arg(
        long,
        value_name = "TICKET",
        env = "DUNLIN_TICKET",
        hide_env_values = true
    )]
    pub ticket: String,
}

/// Runs a command on contexts; only `add` speaks with a daemon.
pub fn run(args: ContextArgs, global: &Global, out: &mut Output) -> Result<Exit, Failure> {
    let contexts = Contexts::of_user();
    match args.command {
        ContextCommand::Add(args) => add(&args, global, &contexts, out)?,
        ContextCommand::Use { name } => {
            contexts.set_current(&name)?;
            out.line(name)?;
        }
        ContextCommand::Ls { quiet } => list(quiet, global, &contexts, out)?,
        ContextCommand::Rm { names } => {
            for name in names {
                contexts.remove(&name)?;
                out.line(name)?;
            }
        }
        ContextCommand::Show => {
            let name = chosen(global, &contexts)?;
            out.line(name.as_deref().unwrap_or(LOCAL))?;
        }
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn add(
    args: &AddArgs,
    global: &Global,
    contexts: &Contexts,
    out: &mut Output,
) -> Result<(), Failure> {
    let Some(host) = global.host() else {
        return Err(Failure::usage(
            "which daemon? Name it with --host tcp://HOST:PORT",
        ));
    };
    let host: Host = host.parse()?;
    if host.socket().is_some() {
        return Err(Failure::usage(
            "a context is for another host: name it with --host tcp://HOST:PORT",
        ));
    }
    contexts.check_free(&args.name)?;
    let ticket: Ticket = match args.ticket.as_str() {
        "-" => io_ticket()?,
        text => text.to_owned(),
    }
    .parse()
    .map_err(|bad: dunlin_trust::BadTicket| Failure::usage(bad.to_string()))?;
    let key = fresh_key()?;
    let credentials = Credentials::bare(key.clone(), ticket.cluster)?;
    let client = Client::new(host.clone()).with_credentials(credentials);
    let redeemed = crate::entry::block_on(client.redeem(&ticket))??;
    let remote = Remote {
        host,
        key,
        root: redeemed.root,
        chain: redeemed.chain,
    };
    contexts.add(&args.name, &remote)?;
    if global.json {
        out.json(&serde_json::json!({
            "name": args.name,
            "host": remote.host.to_string(),
            "role": redeemed.role.to_string(),
            "expires_at": redeemed.expires_at,
        }))?;
        return Ok(());
    }
    out.line(&args.name)?;
    out.note(format!(
        "You are {} there. Use it with: dunlin context use {}",
        redeemed.role, args.name
    ))?;
    Ok(())
}

fn list(
    quiet: bool,
    global: &Global,
    contexts: &Contexts,
    out: &mut Output,
) -> Result<(), Failure> {
    let chosen = chosen(global, contexts)?;
    let names = contexts.names()?;
    if quiet {
        for name in std::iter::once(LOCAL).chain(names.iter().map(String::as_str)) {
            out.line(name)?;
        }
        return Ok(());
    }
    let local = Host::unix(crate::context::default_socket()).to_string();
    let mut rows = vec![(LOCAL.to_owned(), local, String::new(), String::new())];
    for name in names {
        rows.push(match contexts.get(&name) {
            Ok(remote) => {
                let verified = remote.verified();
                let role = verified.map_or_else(|| "damaged".to_owned(), |v| v.power.to_string());
                let cluster = dunlin_trust::ClusterId::of(&remote.root).to_string();
                (name, remote.host.to_string(), role, cluster)
            }
            Err(error) => (name, String::new(), error.to_string(), String::new()),
        });
    }
    let current = |name: &str| chosen.as_deref().unwrap_or(LOCAL) == name;
    if global.json {
        let rows = rows.iter().map(|(name, host, role, cluster)| {
            serde_json::json!({
                "name": name, "host": host, "role": role, "cluster": cluster,
                "current": current(name),
            })
        });
        out.json(&rows.collect::<Vec<_>>())?;
        return Ok(());
    }
    let mut table = Table::new(["NAME", "HOST", "ROLE", "CLUSTER"]).optional(&["CLUSTER"]);
    for (name, host, role, cluster) in rows {
        let mark = if current(&name) { " *" } else { "" };
        table.row([
            Cell::from(format!("{name}{mark}")),
            Cell::from(host),
            Cell::from(role),
            Cell::from(cluster),
        ]);
    }
    out.table(&table)?;
    Ok(())
}

/// The context that a command would use: the named one, else the one in use.
pub(crate) fn chosen(global: &Global, contexts: &Contexts) -> Result<Option<String>, ContextError> {
    match global.context() {
        Some(name) => Ok(Some(name.to_owned()).filter(|name| name != LOCAL)),
        None => contexts.current(),
    }
}

fn io_ticket() -> Result<String, Failure> {
    /// Longer than any ticket.
    const MAX_TICKET: u64 = 4 * 1024;
    let mut text = String::new();
    let mut input = std::io::Read::take(std::io::stdin(), MAX_TICKET);
    std::io::Read::read_to_string(&mut input, &mut text).map_err(|source| Failure::System {
        message: "cannot read the ticket".to_owned(),
        source,
    })?;
    Ok(text)
}

fn fresh_key() -> Result<SecretKey, Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::System {
        message: "cannot draw a key".to_owned(),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(SecretKey::from_seed(seed))
}
