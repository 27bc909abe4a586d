//! `dunlin exec`

use std::io::{IsTerminal as _, stdin};

use bytes::Bytes;
use clap::Args;
use dunlin_api::client::{ClientError, ExecInput, ExecOutput};
use dunlin_api::{ErrorBody, ErrorCode, ExecFrame, ExecStart, Exit, PING_EVERY, TerminalSize};
use tokio::io::{AsyncWrite, AsyncWriteExt as _, stderr, stdout};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::context::Context;
use crate::failure::Failure;
use crate::keyboard::{Keyboard, Raw, terminal_size};
use crate::words;

/// The terminal that a command gets where this process has none: what terminals start with.
const PLAIN: TerminalSize = TerminalSize {
    rows: 24,
    columns: 80,
};

/// The largest exit code that a process can have.
const MAX_CODE: u8 = u8::MAX;

/// Words of `dunlin exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Pass standard input on to the command
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Set a variable for the command
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = words::pair)]
    pub env: Vec<(String, String)>,
    /// Run as this user instead of the replica's: name or number, also USER:GROUP
    #[arg(short, long)]
    pub user: Option<String>,
    /// Run in this directory instead of the replica's
    #[arg(short, long, value_name = "DIRECTORY")]
    pub workdir: Option<String>,
    /// The service, with .SLOT for one of its replicas
    #[arg(value_name = "SERVICE[.SLOT]")]
    pub service: String,
    /// The program and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub command: Vec<String>,
}

/// Runs a command beside a replica, and ends with its exit code.
pub async fn run(args: &ExecArgs, context: &mut Context) -> Result<Exit, Failure> {
    let (name, slot) = words::service_and_slot(&args.service);
    let key = context.service(name)?;
    if args.interactive && args.tty && !stdin().is_terminal() {
        return Err(Failure::Usage {
            message: "standard input is no terminal".to_owned(),
            hint: Some("leave out -t to pass a pipe or a file on".to_owned()),
        });
    }
    let start = start(args, slot);
    // Both are installed before anything can happen, so that nothing is missed.
    let mut ended = signal(SignalKind::terminate()).map_err(system)?;
    let resized = signal(SignalKind::window_change()).map_err(system)?;
    let (input, mut output) = context.client.exec(&key, start).await?;
    let on_terminal = args.interactive && args.tty;
    let _raw = on_terminal.then(Raw::begin).transpose().map_err(system)?;
    let keyboard = args.interactive.then(Keyboard::open).transpose();
    let wires = Wires {
        input,
        keyboard: keyboard.map_err(system)?,
        resized: args.tty.then_some(resized),
        ping: ping(),
    };
    let mut feeding = std::pin::pin!(wires.feed());
    let mut printing = std::pin::pin!(print(&mut output));
    let mut feeds = true;
    loop {
        tokio::select! {
            exit = &mut printing => return exit,
            () = &mut feeding, if feeds => feeds = false,
            _ = ended.recv() => return Ok(Exit::Interrupted),
        }
    }
}

/// Prints what the command prints, to its end. Not by way of [`crate::output`]: a reader that is
/// slow must not keep this process from telling the node that it is there.
async fn print(output: &mut ExecOutput) -> Result<Exit, Failure> {
    let (mut out, mut err) = (stdout(), stderr());
    let write = async |to: &mut (dyn AsyncWrite + Unpin), bytes: &[u8]| {
        to.write_all(bytes).await?;
        to.flush().await
    };
    while let Some(frame) = output.next().await? {
        match frame {
            ExecFrame::Output(bytes) => write(&mut out, &bytes).await?,
            ExecFrame::Error(bytes) => write(&mut err, &bytes).await?,
            ExecFrame::Exit(code) => return Ok(exit(code)),
            ExecFrame::Failed(body) => return Err(ClientError::Answered(body).into()),
            ExecFrame::Started(_)
            | ExecFrame::Ping
            | ExecFrame::Start(_)
            | ExecFrame::Input(_)
            | ExecFrame::InputEnd
            | ExecFrame::Resize(_) => {}
        }
    }
    let text = "the node closed the connection before the command had ended";
    let body = ErrorBody::new(ErrorCode::PeerUnreachable, text);
    Err(ClientError::Answered(body).into())
}

fn system(source: std::io::Error) -> Failure {
    Failure::System {
        message: "cannot use the terminal".to_owned(),
        source,
    }
}

fn exit(code: i32) -> Exit {
    match u8::try_from(code) {
        Ok(0) => Exit::Ok,
        Ok(code) => Exit::Command(code),
        Err(_out_of_range) => Exit::Command(MAX_CODE),
    }
}

fn start(args: &ExecArgs, slot: Option<&str>) -> ExecStart {
    let mut environment: std::collections::BTreeMap<_, _> = args.env.iter().cloned().collect();
    if args.tty
        && let Ok(kind) = std::env::var("TERM")
    {
        environment.entry("TERM".to_owned()).or_insert(kind);
    }
    ExecStart {
        slot: slot.map(str::to_owned),
        command: args.command.clone(),
        stdin: args.interactive,
        terminal: args.tty.then(|| terminal_size().unwrap_or(PLAIN)),
        environment,
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
    }
}

fn ping() -> Interval {
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping
}

/// What goes to the command.
struct Wires {
    input: ExecInput,
    keyboard: Option<Keyboard>,
    resized: Option<Signal>,
    ping: Interval,
}

/// Something to send.
enum Next {
    Typed(Option<Bytes>),
    Resized,
    Ping,
}

impl Wires {
    /// Sends until the command has ended.
    async fn feed(mut self) {
        loop {
            let next = tokio::select! {
                typed = typed(&mut self.keyboard) => Next::Typed(typed),
                () = changed(&mut self.resized) => Next::Resized,
                _ = self.ping.tick() => Next::Ping,
            };
            let frame = match next {
                Next::Typed(Some(bytes)) => ExecFrame::Input(bytes),
                Next::Typed(None) => {
                    self.keyboard = None;
                    ExecFrame::InputEnd
                }
                Next::Resized => match terminal_size() {
                    Some(size) => ExecFrame::Resize(size),
                    None => continue,
                },
                Next::Ping => ExecFrame::Ping,
            };
            if !self.input.send(&frame).await {
                return;
            }
        }
    }
}

async fn typed(keyboard: &mut Option<Keyboard>) -> Option<Bytes> {
    match keyboard {
        Some(keyboard) => keyboard.next().await,
        None => std::future::pending().await,
    }
}

async fn changed(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        std::future::pending::<()>().await;
    }
}
