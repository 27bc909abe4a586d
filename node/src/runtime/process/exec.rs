//! Commands that people run beside a process: in its environment, directory and cgroup, as its
//! user, in a session of their own.
//!
//! When the command has ended, or nobody waits for it, everything that is left of its session is
//! killed. What has begun a session of its own by then ends with the replica, by the cgroup.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use dunlin_core::io::WorkloadId;
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::exec::{CUT, ExecInput, ExecOrder, ExecOutput, PIECE, Wires};
use super::super::execute::code;
use super::{Inner, blocking, is_held, sys};
use crate::supervisor::cgroup::CgroupPlan;
use crate::supervisor::{Beside, Difference, ProcessStamp, beside, proc, session};

/// Exit code of a program that is not there or cannot be executed, as shells have it.
const NOT_FOUND: i32 = 127;

/// Silence on its pipes after which a command that has ended is taken to have said everything: only
/// what escaped from its session can still hold them.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The character that ends input on a terminal (`VEOF`, as every terminal starts).
const END_OF_INPUT: &[u8] = &[4];

impl Inner {
    /// Runs a command beside an attempt that lives.
    pub(super) async fn exec(
        &self,
        id: &WorkloadId,
        order: &ExecOrder,
        wires: &mut Wires,
    ) -> Option<Result<i32, String>> {
        let (paths, words) = (self.paths(id), order.command.clone());
        let difference = Difference {
            environment: order.environment.clone(),
            user: order.user.clone(),
            working_dir: order.working_dir.as_ref().map(Into::into),
        };
        let prepared = blocking(move || {
            let runs = paths.directory().exists() && matches!(is_held(&paths), Ok(true));
            runs.then(|| beside(&paths, &words, difference))
        });
        let beside = match prepared.await?? {
            Ok(beside) => beside,
            Err(reason) => return Some(not_found(&reason, wires).await),
        };
        let ended = match order.terminal {
            Some(size) => on_terminal(beside, size, wires).await,
            None => on_pipes(beside, order.stdin, wires).await,
        };
        match ended {
            Err(Stopped::NoStart(reason)) => Some(not_found(&reason, wires).await),
            Err(Stopped::Other(reason)) => Some(Err(reason)),
            Ok(code) => Some(Ok(code)),
        }
    }
}

/// Why a command has no exit code.
enum Stopped {
    /// It could not be executed.
    NoStart(String),
    /// Anything else.
    Other(String),
}

/// What shells do: the reason goes to standard error, and the code says the rest.
async fn not_found(reason: &str, wires: &Wires) -> Result<i32, String> {
    let text = Bytes::from(format!("dunlin: {reason}\n"));
    // Nobody may be there to read it.
    let _gone = wires.output.send(ExecOutput::Err(text)).await;
    Ok(NOT_FOUND)
}

async fn on_pipes(beside: Beside, stdin: bool, wires: &mut Wires) -> Result<i32, Stopped> {
    let Beside {
        mut command,
        cgroup,
        ..
    } = beside;
    let input = if stdin { Stdio::piped() } else { Stdio::null() };
    command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut child, session) = spawn(command, cgroup.as_ref(), false)?;
    let ended = CancellationToken::new();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let stdin = child.stdin.take();
    let output = wires.output.clone();
    let printing = async {
        tokio::join!(
            print(out, &output, ExecOutput::Out, &ended),
            print(err, &output, ExecOutput::Err, &ended)
        );
    };
    let feeding = feed_pipe(stdin, &mut wires.input);
    attend(child, session, (&ended, &wires.cut), printing, feeding).await
}

async fn on_terminal(beside: Beside, size: (u16, u16), wires: &mut Wires) -> Result<i32, Stopped> {
    let Beside {
        command,
        cgroup,
        user,
    } = beside;
    let (terminal, command) = terminal(command, size, user)
        .map_err(|error| Stopped::Other(format!("cannot make a terminal: {error}")))?;
    let (child, session) = spawn(command, cgroup.as_ref(), true)?;
    let ended = CancellationToken::new();
    let output = wires.output.clone();
    let printing = print(Some(&terminal), &output, ExecOutput::Out, &ended);
    let feeding = feed_terminal(&terminal, &mut wires.input);
    attend(child, session, (&ended, &wires.cut), printing, feeding).await
}

/// Stays with the command until it has ended and all it said was taken, or nobody waits for it.
async fn attend(
    mut child: Child,
    session: Session,
    (ended, cut): (&CancellationToken, &CancellationToken),
    printing: impl Future<Output = ()>,
    feeding: impl Future<Output = ()>,
) -> Result<i32, Stopped> {
    let mut printing = std::pin::pin!(printing);
    let mut feeding = std::pin::pin!(feeding);
    let (mut printed, mut fed) = (false, false);
    let status = loop {
        tokio::select! {
            () = cut.cancelled() => return Err(Stopped::Other(CUT.to_owned())),
            status = child.wait() => break status,
            () = &mut printing, if !printed => printed = true,
            () = &mut feeding, if !fed => fed = true,
        }
    };
    let status = status
        .map_err(|error| Stopped::Other(format!("the command cannot be waited for: {error}")))?;
    // Closes the pipes, unless something has left the session.
    drop(session);
    ended.cancel();
    if !printed {
        tokio::select! {
            () = cut.cancelled() => return Err(Stopped::Other(CUT.to_owned())),
            () = &mut printing => {}
        }
    }
    Ok(i32::try_from(code(status)).unwrap_or(i32::MAX))
}

fn spawn(
    mut command: Command,
    cgroup: Option<&CgroupPlan>,
    terminal: bool,
) -> Result<(Child, Session), Stopped> {
    let program = command.get_program().to_string_lossy().into_owned();
    let procs = cgroup.map(CgroupPlan::open_procs).unwrap_or_default();
    sys::begin_session(&mut command, procs, terminal);
    let mut command = tokio::process::Command::from(command);
    let spawned = command.kill_on_drop(true).spawn();
    let child =
        spawned.map_err(|error| Stopped::NoStart(format!("cannot execute {program}: {error}")))?;
    let session = Session::of(&child);
    Ok((child, session))
}

/// A session that ends with this value.
struct Session(Option<ProcessStamp>);

impl Session {
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Self(pid.and_then(proc::stamp))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            session::kill(leader);
        }
    }
}

/// Passes on what a command prints, until its end or until nobody reads any more.
async fn print(
    pipe: Option<impl AsyncRead + Unpin>,
    to: &mpsc::Sender<ExecOutput>,
    kind: fn(Bytes) -> ExecOutput,
    ended: &CancellationToken,
) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; PIECE];
    loop {
        let read = tokio::select! {
            biased;
            read = pipe.read(&mut buffer) => read,
            () = silence_after(ended) => return,
        };
        match read {
            // A terminal whose other side is closed fails instead of ending.
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let bytes = Bytes::copy_from_slice(&buffer[..count]);
                if to.send(kind(bytes)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn silence_after(ended: &CancellationToken) {
    ended.cancelled().await;
    tokio::time::sleep(LAST_WORDS).await;
}

async fn feed_pipe(stdin: Option<ChildStdin>, input: &mut mpsc::Receiver<ExecInput>) {
    let mut stdin = stdin;
    while let Some(what) = input.recv().await {
        match what {
            ExecInput::Bytes(bytes) => {
                let Some(pipe) = &mut stdin else { continue };
                if pipe.write_all(&bytes).await.is_err() {
                    // It reads no more; what comes is thrown away, as a shell's pipe does.
                    stdin = None;
                }
            }
            ExecInput::End => stdin = None,
            ExecInput::Resize(..) => {}
        }
    }
}

async fn feed_terminal(mut terminal: &Terminal, input: &mut mpsc::Receiver<ExecInput>) {
    while let Some(what) = input.recv().await {
        let written = match what {
            ExecInput::Bytes(bytes) => terminal.write_all(&bytes).await,
            ExecInput::End => terminal.write_all(END_OF_INPUT).await,
            ExecInput::Resize(rows, columns) => terminal.resize((rows, columns)),
        };
        if written.is_err() {
            return;
        }
    }
}

/// This side of a pseudoterminal.
struct Terminal(AsyncFd<OwnedFd>);

/// Makes a terminal and gives the command the other side of it.
fn terminal(
    mut command: Command,
    size: (u16, u16),
    user: Option<(u32, u32)>,
) -> io::Result<(Terminal, Command)> {
    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = rustix::fs::open(name, flags, Mode::empty())?;
    if let Some((uid, gid)) = user {
        std::os::unix::fs::fchown(&theirs, Some(uid), Some(gid))?;
    }
    rustix::fs::fcntl_setfl(&ours, OFlags::RDWR | OFlags::NONBLOCK)?;
    command
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs.try_clone()?))
        .stderr(Stdio::from(theirs));
    let terminal = Terminal(sys::register_both(ours)?);
    terminal.resize(size)?;
    Ok((terminal, command))
}

impl Terminal {
    fn resize(&self, (rows, columns): (u16, u16)) -> io::Result<()> {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(&self.0, size)?)
    }
}

impl AsyncRead for &Terminal {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        use std::task::{Poll, ready};
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let into = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd, &mut *into)?)) {
                Ok(read) => {
                    buffer.advance(read?);
                    return Poll::Ready(Ok(()));
                }
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for &Terminal {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        use std::task::{Poll, ready};
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd, bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
