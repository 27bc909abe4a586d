//! Commands inside a container.

use std::time::Duration;

use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use dunlin_core::io::WorkloadId;
use futures::StreamExt as _;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::super::execute::{Beginning, Executed};
use super::super::probe::no_answer;
use super::start::status;
use super::{Engine, Inner};
use crate::supervisor::{proc, session};

/// How long the engine may take to say how a command ended.
pub(super) const INSPECT_LIMIT: Duration = Duration::from_secs(5);
/// Pause between questions for the process of a command that is just starting.
const START_PAUSE: Duration = Duration::from_millis(10);
/// An engine that is stuck or gone.
pub(super) const SILENT: &str = "the container engine does not answer";

impl Inner {
    /// Runs a command in the container of an attempt.
    pub(super) async fn execute(
        &self,
        id: &WorkloadId,
        words: &[String],
        limit: Duration,
    ) -> Option<Result<Executed, String>> {
        let engine = self.client()?;
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(words.to_vec()),
            ..CreateExecOptions::default()
        };
        let name = self.owner.name(id);
        let created = engine.client.create_exec(&name, options);
        let command = match tokio::time::timeout(limit, created).await {
            Ok(Ok(created)) => created.id,
            // Another runtime's, or it has just ended.
            Ok(Err(error)) if matches!(status(&error), Some(404 | 409)) => return None,
            Ok(Err(error)) => return Some(Err(error.to_string())),
            Err(_elapsed) => return Some(Err(SILENT.to_owned())),
        };
        let mut output = Beginning::default();
        let run = follow(&engine, &command, &mut output);
        match tokio::time::timeout(limit, run).await {
            Ok(Ok(())) => Some(ended(&engine, &command, output).await),
            Ok(Err(error)) => Some(Err(error.to_string())),
            Err(_elapsed) => {
                kill(&engine, &command).await;
                Some(Err(no_answer(limit)))
            }
        }
    }
}

/// Reads what the command prints until it has ended.
async fn follow(engine: &Engine, command: &str, into: &mut Beginning) -> Result<(), Error> {
    let options = StartExecOptions::default();
    match engine.client.start_exec(command, Some(options)).await? {
        StartExecResults::Attached { mut output, .. } => {
            while let Some(piece) = output.next().await {
                into.push(piece?.as_ref());
            }
        }
        StartExecResults::Detached => {}
    }
    Ok(())
}

async fn ended(engine: &Engine, command: &str, output: Beginning) -> Result<Executed, String> {
    Ok(Executed {
        code: exit_code(engine, command).await?,
        output: output.into_bytes(),
    })
}

/// How a command that prints no more has ended.
pub(super) async fn exit_code(engine: &Engine, command: &str) -> Result<i64, String> {
    let inspected = engine.client.inspect_exec(command);
    let found = tokio::time::timeout(INSPECT_LIMIT, inspected)
        .await
        .map_err(|_elapsed| SILENT.to_owned())?
        .map_err(|error| error.to_string())?;
    let silent = || "the container engine does not say how it ended".to_owned();
    found.exit_code.ok_or_else(silent)
}

/// The API cannot end a command, but the engine tells its process, which on this host a daemon with
/// root can kill, with all that is in its session. Elsewhere it goes on until the container ends,
/// and is said to.
pub(super) async fn kill(engine: &Engine, command: &str) {
    let killing = async {
        let Some(pid) = process(engine, command).await? else {
            return Ok(());
        };
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        let handle = handle.map_err(|error| error.to_string())?;
        let leader = proc::stamp(pid.as_raw_nonzero().get());
        // Still running after the handle was taken: the number means this process.
        if process(engine, command).await? != Some(pid) {
            return Ok(());
        }
        let sent = rustix::process::pidfd_send_signal(handle, Signal::KILL);
        // The engine makes every command the leader of a session.
        if let Some(leader) = leader {
            // It reads all of `/proc`.
            let _ = tokio::task::spawn_blocking(move || session::kill(leader)).await;
        }
        sent.map_err(|error| error.to_string())
    };
    let killed = tokio::time::timeout(INSPECT_LIMIT, killing).await;
    if let Err(error) = killed.unwrap_or_else(|_elapsed| Err(SILENT.to_owned())) {
        tracing::warn!(command, %error, "a command in a container could not be killed");
    }
}

/// The process of a command that was started; `None` when it has ended. The engine passes on what a
/// command prints before it can tell the number of its process, so this waits for that.
async fn process(engine: &Engine, command: &str) -> Result<Option<Pid>, String> {
    loop {
        let found = engine.client.inspect_exec(command).await;
        let found = found.map_err(|error| error.to_string())?;
        let number = found.pid.and_then(|number| i32::try_from(number).ok());
        let pid = number.filter(|number| *number > 0).and_then(Pid::from_raw);
        match (found.running, pid) {
            (Some(true), Some(pid)) => return Ok(Some(pid)),
            (Some(false), _) if found.exit_code.is_some() => return Ok(None),
            (Some(_) | None, _) => tokio::time::sleep(START_PAUSE).await,
        }
    }
}
