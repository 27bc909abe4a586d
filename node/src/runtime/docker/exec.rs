//! Commands that people run inside a container.

use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bytes::Bytes;
use dunlin_core::io::WorkloadId;
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::super::exec::{CUT, ExecInput, ExecOrder, ExecOutput, PIECE, Wires};
use super::execute::{INSPECT_LIMIT, SILENT, exit_code, kill};
use super::start::status;
use super::{Engine, Inner};

type Output = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type Input = Pin<Box<dyn AsyncWrite + Send>>;

impl Inner {
    /// Runs a command in the container of an attempt.
    pub(super) async fn exec(
        &self,
        id: &WorkloadId,
        order: &ExecOrder,
        wires: &mut Wires,
    ) -> Option<Result<i32, String>> {
        let engine = self.client()?;
        let name = self.owner.name(id);
        let created = engine.client.create_exec(&name, options(order));
        let silent = || SILENT.to_owned();
        let command = match tokio::time::timeout(INSPECT_LIMIT, created).await {
            Ok(Ok(created)) => created.id,
            // Another runtime's, or it has just ended.
            Ok(Err(error)) if matches!(status(&error), Some(404 | 409)) => return None,
            Ok(Err(error)) => return Some(Err(error.to_string())),
            Err(_elapsed) => return Some(Err(silent())),
        };
        let start = StartExecOptions {
            tty: order.terminal.is_some(),
            ..StartExecOptions::default()
        };
        let started = engine.client.start_exec(&command, Some(start));
        let (output, input) = match tokio::time::timeout(INSPECT_LIMIT, started).await {
            Ok(Ok(StartExecResults::Attached { output, input })) => (output, input),
            Ok(Ok(StartExecResults::Detached)) => return Some(Err(silent())),
            Ok(Err(error)) => return Some(Err(error.to_string())),
            Err(_elapsed) => return Some(Err(silent())),
        };
        if let Some(size) = order.terminal {
            resize(&engine, &command, size).await;
        }
        let attended = attend(&engine, &command, (output, input), wires).await;
        match attended {
            Attended::Ended => Some(exit_code(&engine, &command).await.map(clamp)),
            Attended::Broken(error) => Some(Err(error)),
            Attended::Cut => {
                kill(&engine, &command).await;
                Some(Err(CUT.to_owned()))
            }
        }
    }
}

fn clamp(code: i64) -> i32 {
    i32::try_from(code).unwrap_or(i32::MAX)
}

fn options(order: &ExecOrder) -> CreateExecOptions<String> {
    let variable = |(name, value): (&String, &String)| format!("{name}={value}");
    CreateExecOptions {
        attach_stdin: Some(order.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(order.terminal.is_some()),
        env: Some(order.environment.iter().map(variable).collect()),
        cmd: Some(order.command.clone()),
        user: order.user.clone(),
        working_dir: order.working_dir.clone(),
        ..CreateExecOptions::default()
    }
}

/// How it went with the command's wires.
enum Attended {
    /// It has ended and all it said was taken.
    Ended,
    /// Nobody waits for it any more.
    Cut,
    /// The engine has failed.
    Broken(String),
}

async fn attend(
    engine: &Engine,
    command: &str,
    (mut output, input): (Output, Input),
    wires: &mut Wires,
) -> Attended {
    let Wires {
        input: orders,
        output: to,
        cut,
    } = wires;
    let printing = async {
        while let Some(piece) = output.next().await {
            match piece {
                Ok(piece) => {
                    if !pass_on(piece, to).await {
                        return Attended::Cut;
                    }
                }
                Err(error) => return Attended::Broken(error.to_string()),
            }
        }
        Attended::Ended
    };
    let mut printing = std::pin::pin!(printing);
    let mut feeding = std::pin::pin!(feed(engine, command, input, orders));
    let mut fed = false;
    loop {
        tokio::select! {
            () = cut.cancelled() => return Attended::Cut,
            attended = &mut printing => return attended,
            () = &mut feeding, if !fed => fed = true,
        }
    }
}

/// False when nobody reads.
async fn pass_on(piece: LogOutput, to: &mpsc::Sender<ExecOutput>) -> bool {
    let (kind, mut bytes): (fn(Bytes) -> ExecOutput, Bytes) = match piece {
        LogOutput::StdErr { message } => (ExecOutput::Err, message),
        LogOutput::StdOut { message }
        | LogOutput::Console { message }
        | LogOutput::StdIn { message } => (ExecOutput::Out, message),
    };
    while !bytes.is_empty() {
        let part = bytes.split_to(bytes.len().min(PIECE));
        if to.send(kind(part)).await.is_err() {
            return false;
        }
    }
    true
}

async fn feed(
    engine: &Engine,
    command: &str,
    input: Input,
    orders: &mut mpsc::Receiver<ExecInput>,
) {
    let mut input = Some(input);
    while let Some(order) = orders.recv().await {
        match order {
            ExecInput::Bytes(bytes) => {
                let Some(pipe) = &mut input else { continue };
                let written = async {
                    pipe.write_all(&bytes).await?;
                    pipe.flush().await
                };
                if written.await.is_err() {
                    input = None;
                }
            }
            ExecInput::End => {
                if let Some(mut pipe) = input.take() {
                    // The engine may have closed it already.
                    let _ = pipe.shutdown().await;
                }
            }
            ExecInput::Resize(rows, columns) => resize(engine, command, (rows, columns)).await,
        }
    }
}

/// Fails when the command has just ended, which is as well.
async fn resize(engine: &Engine, command: &str, (height, width): (u16, u16)) {
    let size = ResizeExecOptions { height, width };
    let resized = engine.client.resize_exec(command, size);
    if let Ok(Err(error)) = tokio::time::timeout(INSPECT_LIMIT, resized).await {
        tracing::debug!(command, %error, "a terminal keeps its size");
    }
}
