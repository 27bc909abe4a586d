//! `dunlin completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use dunlin_api::Exit;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Output;

/// Words of `dunlin completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Prints the script, to be sourced or saved where the shell looks for it.
pub fn run(args: &CompletionsArgs, out: &mut Output) -> Result<Exit, Failure> {
    // Into memory first: the generator panics when its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dunlin", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())?;
    out.flush()?;
    Ok(Exit::Ok)
}
