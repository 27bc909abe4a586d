//! Standard input, read while other things happen, and the terminal that it may be.
//!
//! Reading it blocks, so a thread does it; one that waits for a key could not be ended, so the
//! thread waits for either the key or the end of a pipe that this side holds.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread::JoinHandle;

use bytes::Bytes;
use dunlin_api::TerminalSize;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

/// Bytes read at once.
const PIECE: usize = 16 * 1024;
/// Pieces that wait to be sent.
const WAITING: usize = 4;

/// Standard input. Dropping it ends the reading.
pub(crate) struct Keyboard {
    pieces: Option<mpsc::Receiver<Bytes>>,
    wake: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Keyboard {
    /// Begins to read.
    pub(crate) fn open() -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel(WAITING);
        let (asleep, wake) = rustix::pipe::pipe()?;
        let thread = std::thread::Builder::new().name("stdin".to_owned());
        let thread = thread.spawn(move || read(&asleep, &sender))?;
        Ok(Self {
            pieces: Some(pieces),
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// What was typed or piped; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.pieces.as_mut()?.recv().await
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        // In this order: neither a full queue nor a missing key may hold the thread.
        self.pieces = None;
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ended = thread.join();
        }
    }
}

fn read(asleep: &OwnedFd, to: &mpsc::Sender<Bytes>) {
    let stdin = io::stdin();
    let mut buffer = vec![0; PIECE];
    loop {
        let mut fds = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(asleep, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        match rustix::io::read(stdin.as_fd(), &mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                let piece = Bytes::copy_from_slice(&buffer[..count]);
                if to.blocking_send(piece).is_err() {
                    return;
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

/// The terminal hands on every key as it is, as long as this lives.
pub(crate) struct Raw(Termios);

impl Raw {
    /// From now on.
    pub(crate) fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The size of the terminal of this process, if it has one.
pub(crate) fn terminal_size() -> Option<TerminalSize> {
    let sizes = [tcgetwinsize(io::stdin()), tcgetwinsize(io::stdout())];
    let size = sizes.into_iter().find_map(Result::ok)?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}
