//! From the process's arguments to its exit code.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use dunlin_api::Exit;
use dunlin_api::client::{Client, Host};

use crate::args::{Cli, Command, Global};
use crate::context::{Context, default_socket};
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
        Command::Up(args) => commands::up::run(*args, &cli.global),
        Command::Demo(args) => demo::run(&args, cli.global.json, output),
        Command::Completions(args) => commands::completions::run(&args, output),
        command => ask(command, &cli.global),
    }
}

/// Runs a command that asks a daemon.
fn ask(command: Command, global: &Global) -> Result<Exit, Failure> {
    let mut context = context(global, Output::of_process())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Failure::System {
            message: "cannot start".to_owned(),
            source,
        })?;
    let exit = runtime.block_on(commands::dispatch(command, &mut context))?;
    context.out.flush()?;
    Ok(exit)
}

fn context(global: &Global, out: Output) -> Result<Context, Failure> {
    let host = match global.host() {
        Some(text) => text.parse()?,
        None => Host::unix(default_socket()),
    };
    Ok(Context {
        client: Client::new(host),
        json: global.json,
        namespace: global.namespace().map(str::to_owned),
        out,
    })
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
