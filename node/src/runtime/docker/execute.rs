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
            Err(_elapsed) => return Some(Err("the container engine does not answer".to_owned())),
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
        .map_err(|_elapsed| "the container engine does not answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let silent = || "the container engine does not say how it ended".to_owned();
    found.exit_code.ok_or_else(silent)
}

/// The API cannot end a command, but the engine tells its process, which on this host a daemon with
/// root can kill, with all that is in its session. Elsewhere it goes on until the container ends,
/// and is said to.
pub(super) async fn kill(engine: &Engine, command: &str) {
    let process = async {
        let found = engine.client.inspect_exec(command).await.ok()?;
        let number = found.pid.filter(|_| found.running == Some(true))?;
        let pid = Pid::from_raw(i32::try_from(number).ok()?)?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Still running after the handle was taken: the number means this process.
        let again = engine.client.inspect_exec(command).await.ok()?;
        let leader = proc::stamp(pid.as_raw_nonzero().get());
        (again.running == Some(true)).then_some((handle, leader))
    };
    let killed = match tokio::time::timeout(INSPECT_LIMIT, process).await {
        Ok(Some((handle, leader))) => {
            let sent = rustix::process::pidfd_send_signal(handle, Signal::KILL).is_ok();
            // The engine makes every command the leader of a session.
            if let Some(leader) = leader {
                // It reads all of `/proc`.
                let _ = tokio::task::spawn_blocking(move || session::kill(leader)).await;
            }
            sent
        }
        Ok(None) | Err(_) => false,
    };
    if !killed {
        tracing::warn!(command, "a command in a container could not be killed");
    }
}
