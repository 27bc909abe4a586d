//! From the process's arguments to its exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use dunlin_api::Exit;
use dunlin_api::client::{Client, Host};

use crate::args::{Cli, Command, Global};
use crate::context::{Context, default_socket};
use crate::contexts::Contexts;
use crate::failure::Failure;
use crate::output::Output;
use crate::{commands, demo, whoami};

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // Before anything else: the supervisor of a process must start with a single thread, and must
    // not depend on how the command line is spelt.
    if let [_, first, directory] = words.as_slice()
        && first == dunlin_node::supervisor::SUBCOMMAND
    {
        return dunlin_node::supervisor::main(Path::new(directory));
    }
    if let [_, first, directory] = words.as_slice()
        && first == dunlin_node::handover::SUBCOMMAND
    {
        return dunlin_node::handover::main(Path::new(directory));
    }
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are a success; a reader that is gone is
            // no reason to fail.
            let _ = error.print();
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            return ExitCode::from(exit.code());
        }
    };
    if let Command::Whoami(args) = cli.command {
        return whoami::run(args);
    }
    let mut output = Output::of_process();
    let json = cli.global.json;
    let exit = match run(cli, &mut output) {
        Ok(exit) => exit,
        Err(failure) => {
            report(&failure, json, &mut output);
            failure.exit()
        }
    };
    ExitCode::from(exit.code())
}

fn run(cli: Cli, output: &mut Output) -> Result<Exit, Failure> {
    match cli.command {
        Command::Root(args) => commands::root::run(&args),
        Command::Up(args) => commands::up::run(*args, &cli.global),
        Command::Demo(args) => demo::run(&args, cli.global.json, output),
        Command::Context(args) => commands::context::run(args, &cli.global, output),
        Command::Install(args) => commands::install::run(&args, cli.global.json, output),
        Command::Man(args) => commands::man::run(&args, output),
        Command::Completions(args) => commands::completions::run(&args, output),
        command => ask(command, &cli.global),
    }
}

/// Runs a command that asks a daemon.
fn ask(command: Command, global: &Global) -> Result<Exit, Failure> {
    let mut context = context(global, Output::of_process())?;
    let exit = block_on(commands::dispatch(command, &mut context))??;
    context.out.flush()?;
    Ok(exit)
}

/// Runs what speaks with a daemon to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System {
            message: "cannot start".to_owned(),
            source,
        })?;
    Ok(runtime.block_on(future))
}

fn context(global: &Global, out: Output) -> Result<Context, Failure> {
    Ok(Context {
        client: client(global, &Contexts::of_user())?,
        json: global.json,
        namespace: global.namespace().map(str::to_owned),
        out,
    })
}

/// The daemon that the words and the user's contexts name. A host of its own comes first; over TCP
/// it is spoken to with the key of a context, so that any node of a cluster can be asked.
fn client(global: &Global, contexts: &Contexts) -> Result<Client, Failure> {
    let host: Option<Host> = global.host().map(str::parse).transpose()?;
    match host {
        Some(Host::Unix(_)) if global.context().is_some() => Err(Failure::usage(
            "both a socket of this host and a context are named (--host, DUNLIN_HOST, --context, DUNLIN_CONTEXT): leave one out",
        )),
        Some(host @ Host::Unix(_)) => Ok(Client::new(host)),
        host => match (commands::context::chosen(global, contexts)?, host) {
            (Some(name), host) => {
                let remote = contexts.get(&name)?;
                let client = Client::new(host.unwrap_or_else(|| remote.host.clone()));
                Ok(client.with_credentials(remote.credentials()?))
            }
            (None, Some(host)) => with_key_for(host, contexts),
            (None, None) => Ok(Client::new(Host::unix(default_socket()))),
        },
    }
}

/// No context is in use; if one is for this very host, its key is meant.
fn with_key_for(host: Host, contexts: &Contexts) -> Result<Client, Failure> {
    for name in contexts.names()? {
        if let Ok(remote) = contexts.get(&name)
            && remote.host == host
        {
            return Ok(Client::new(host).with_credentials(remote.credentials()?));
        }
    }
    // Says that a key is missing, and how to get one.
    Ok(Client::new(host))
}

/// Tells a failure on standard error. There is nowhere to tell that this failed too.
pub(crate) fn report(failure: &Failure, json: bool, output: &mut Output) {
    if failure.is_silent() {
        return;
    }
    let body = failure.body();
    if json {
        let text = serde_json::to_string(&body).unwrap_or_else(|_| body.message.clone());
        let _ = output.note(text);
        return;
    }
    let _ = output.note(format!("dunlin: {}", body.message));
    if let Some(hint) = body.hint {
        let _ = output.note(format!("  hint: {hint}"));
    }
}
