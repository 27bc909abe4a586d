//! The process that cleans up should the demo itself be killed: nothing else could, after SIGKILL.
//!
//! It holds the read end of a pipe whose write end only the demo has. When the demo is gone, in
//! whatever way, the kernel closes that end. After an orderly end there is nothing left to do.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dunlin_api::Exit;

use super::flock::Flock;
use super::layout::Layout;

/// The watching process. Dropping this lets it look after things, and waits for its end.
pub(super) struct Watch {
    child: Child,
}

impl Watch {
    /// Starts watching over the demo in `root`.
    pub(super) fn start(program: &Path, root: &Path) -> io::Result<Self> {
        let child = Command::new(program)
            .args(["demo", "--end-after"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What ends the demo from a terminal must not end this one too.
            .process_group(0)
            .spawn()?;
        Ok(Self { child })
    }

    /// Ends it without any cleaning up.
    pub(super) fn dismiss(mut self) {
        // It may have been killed by somebody, which is the same.
        let _ = self.child.kill();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// What the process does.
pub(super) fn end_after(root: &Path) -> Exit {
    end_when_closed(io::stdin().lock(), root);
    Exit::Ok
}

/// Waits for the end of `input`, then ends the demo in `root`, if it still is there.
pub(super) fn end_when_closed(mut input: impl Read, root: &Path) {
    // Nobody writes into it; a failure to read means the end too.
    let _ = io::copy(&mut input, &mut io::sink());
    if let Ok(layout) = Layout::existing(root) {
        drop(Flock::of(layout));
    }
}
