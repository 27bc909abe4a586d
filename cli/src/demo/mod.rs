//! `dunlin demo`: a cluster on this host, shown at work and cleaned up again.
//!
//! It starts daemons of this very program on loopback addresses of their own, deploys
//! `examples/hello/compose.yaml`, calls each replica, kills a daemon together with its workloads as
//! a power cut would, measures how soon the others notice and replace what was lost, and scales up.
//! After each step it asks every living daemon for the service's name and calls its published port.
//! It needs no root and no Docker, and speaks to the daemons only as anyone else would: through
//! their command line and the typed client.
//!
//! - `layout`: where everything is: directories, addresses, command lines (pure).
//! - `flock`: starts the daemons, kills one, ends them all.
//! - `processes`: finds and ends every process of a directory, also those whose parent is gone.
//! - `plan`: what is deployed, and whom to kill (pure).
//! - `story`: the steps and what they measure; `story/reach` asks and calls through each daemon.
//! - `call`: one HTTP request to a replica, or through a published port.
//! - `resolve`: one question to a daemon's DNS server.
//! - `tell`: what a person or a program gets to read.
//! - `watch`: a process that cleans up should the demo itself be killed.
//!
//! Cleaning up does not depend on how the story ended. Whatever happens, also on Ctrl-C, SIGTERM,
//! SIGHUP or a panic, [`flock::Flock`] is dropped, and that ends all processes of its directory and
//! removes it. After SIGKILL the watch does the same.

mod call;
mod containers;
mod flock;
mod layout;
mod plan;
mod processes;
pub(crate) mod resolve;
mod story;
mod tell;
#[cfg(test)]
mod tests;
mod watch;

use std::future::Future;
use std::io;
use std::path::PathBuf;

use clap::Args;
use dunlin_api::Exit;
use dunlin_api::client::ClientError;
use dunlin_state::model::RuntimeKind;
use thiserror::Error;

use self::flock::Flock;
use self::layout::Layout;
use self::story::Story;
use self::tell::Teller;
use crate::failure::Failure;
use crate::output::Output;

pub use self::tell::Summary;

/// Most daemons. Each takes some 40 MB, and loopback has room for them all.
const MAX_NODES: i64 = 50;

/// Most replicas. Each is a process or two.
const MAX_REPLICAS: i64 = 500;

/// Words of `dunlin demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How many daemons to start
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=MAX_NODES))]
    pub nodes: u32,
    /// How many replicas to deploy
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=MAX_REPLICAS))]
    pub replicas: u32,
    /// What starts the replicas: process, docker or auto
    #[arg(long, default_value = "process", value_parser = runtime)]
    pub runtime: RuntimeKind,
    /// The image for --runtime docker; this program is mounted into it
    #[arg(long, default_value = "debian:stable-slim", value_name = "IMAGE")]
    pub image: String,
    /// Leave the cluster running and say where it is
    #[arg(long)]
    pub keep: bool,
    /// End a cluster that --keep left running in this directory
    #[arg(long, value_name = "DIR", exclusive = true)]
    pub end: Option<PathBuf>,
    /// The same as soon as standard input ends: how a demo is cleaned up that was killed
    #[arg(long, value_name = "DIR", exclusive = true, hide = true)]
    pub end_after: Option<PathBuf>,
}

fn runtime(text: &str) -> Result<RuntimeKind, String> {
    match text {
        "process" => Ok(RuntimeKind::Process),
        "docker" => Ok(RuntimeKind::Docker),
        "auto" => Ok(RuntimeKind::Auto),
        _ => Err("use process, docker or auto".to_owned()),
    }
}

/// Why the demo could not be shown to its end.
#[derive(Debug, Error)]
enum DemoError {
    /// This host did not let it.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: String,
        /// The system's word.
        source: io::Error,
    },
    /// No ports are free on the demo's addresses.
    #[error("no free ports on 127.0.1.1 and its neighbours: {0}")]
    NoPorts(io::Error),
    /// A daemon ended by itself.
    #[error("the daemon {name} ended ({status}); the end of its log:\n{log}")]
    Ended {
        /// Its name.
        name: String,
        /// Its exit status.
        status: String,
        /// The last lines that it wrote.
        log: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s{reason}")]
    TooLate {
        /// What.
        what: String,
        /// The deadline.
        seconds: u64,
        /// What the cluster says about it.
        reason: String,
    },
    /// A daemon said no.
    #[error("{what}: {source}")]
    Client {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        source: ClientError,
    },
    /// The built-in example is faulty.
    #[error("the built-in example: {0}")]
    Example(String),
    /// Docker is needed and does not answer.
    #[error("docker: {0}")]
    Docker(String),
    /// A published port did not do its duty, though everything was in place.
    #[error("{failed} of {calls} calls through the published port failed")]
    FailedCalls {
        /// Calls that got no answer.
        failed: u32,
        /// All calls.
        calls: u32,
    },
    /// The words could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// How the story ended, beside its own result.
enum Ending {
    Told(Result<(), DemoError>),
    Interrupted,
}

/// Shows it all. The exit code is 0 when everything happened as it should.
pub fn run(args: &DemoArgs, json: bool, output: &mut Output) -> Result<Exit, Failure> {
    if let Some(directory) = &args.end {
        return end(directory, output);
    }
    if let Some(directory) = &args.end_after {
        return Ok(watch::end_after(directory));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| system("cannot start", source))?;
    let interrupted = {
        let _context = runtime.enter();
        interruption().map_err(|source| system("cannot wait for signals", source))?
    };
    let mut teller = Teller::new(output, json, Summary::new(args));
    let (ending, kept) = match Flock::new(args) {
        Ok(mut flock) => {
            let ending = runtime.block_on(async {
                let story = Story::new(args, &mut flock, &mut teller);
                tokio::select! {
                    told = story.tell() => Ending::Told(told),
                    () = interrupted => Ending::Interrupted,
                }
            });
            let keep = args.keep && matches!(ending, Ending::Told(_));
            teller.cleaning(keep);
            (ending, keep.then(|| flock.keep()))
        }
        Err(error) => (Ending::Told(Err(error)), None),
    };
    // The flock has been dropped: whatever it started is gone.
    if let Ending::Told(Err(DemoError::Output(error))) = ending {
        // Nobody reads what could be told.
        return Err(error.into());
    }
    teller.finish(&ending, kept.as_ref())?;
    Ok(match ending {
        Ending::Told(Ok(())) => Exit::Ok,
        Ending::Told(Err(_)) => Exit::Failed,
        Ending::Interrupted => Exit::Interrupted,
    })
}

/// Resolves when a person or a service manager wants it to end.
fn interruption() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Ends what `--keep` left.
fn end(directory: &std::path::Path, output: &mut Output) -> Result<Exit, Failure> {
    let layout = Layout::existing(directory).map_err(|message| Failure::Usage {
        message,
        hint: Some("name the directory that the demo printed".to_owned()),
    })?;
    drop(Flock::of(layout));
    output.note("The demo has ended; nothing is left of it.")?;
    Ok(Exit::Ok)
}

fn system(message: &str, source: io::Error) -> Failure {
    Failure::System {
        message: message.to_owned(),
        source,
    }
}
