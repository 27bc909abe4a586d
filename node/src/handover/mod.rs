//! Listening sockets handed from a daemon that stops to the one that is started after it.
//!
//! Between two daemons, an upgrade for instance, connects would be refused. So a daemon that is
//! asked to stop gives its listening sockets to a small process, the *holder*, which executes this
//! same program, accepts nothing, and keeps them open: the kernel completes connects and queues
//! them. The next daemon of the same data directory takes the sockets from the holder and serves
//! what has queued. When none comes in time, the holder closes everything and ends, and whoever
//! has queued is reset.
//!
//! Sockets travel with their names in packets over Unix sockets (`SCM_RIGHTS`, unix(7)). The socket
//! that the holder is asked at is in the data directory and is for the daemon's user alone.

mod holder;
mod packets;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dunlin_lb::publish::Sockets;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, socketpair,
};
use tokio_util::sync::CancellationToken;

pub use holder::main;

use crate::vips::Vips;
use packets::{Head, patient, receive, receive_all, send_all};

/// The hidden subcommand that the executable must route to [`main`].
pub const SUBCOMMAND: &str = "__hold";

/// How long sockets are held after the daemon has ended, unless people say otherwise. A start takes
/// a tenth of a second, and systemd's `RestartSec=1` comes before it; clients that nobody will
/// serve should not wait much longer.
pub const HOLD: Duration = Duration::from_secs(5);

/// The longest that people may ask for: clients would rather be told that nobody is there.
pub const MAX_HOLD: Duration = Duration::from_secs(60);

/// How long the holder may take to say that it has everything.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a holder is asked, in the data directory.
const SOCKET: &str = "listeners.sock";

/// Hands the sockets over, once, when the daemon stops.
#[derive(Debug)]
pub(crate) struct Handover {
    data_dir: PathBuf,
    hold: Duration,
    head: Head,
    /// The claim to a range of virtual addresses, which goes with whatever is handed over.
    claim: Mutex<Sockets>,
    /// Sockets of parts that stop by themselves. Open here too, so that nobody is refused meanwhile.
    kept: Mutex<Sockets>,
    /// Set when this node leaves its cluster: then nobody comes after it.
    left: CancellationToken,
    /// Its end tells the holder that this process has ended.
    link: Mutex<Option<OwnedFd>>,
}

impl Handover {
    /// Hands over the range of virtual addresses too.
    pub(crate) fn new(data_dir: &Path, hold: Duration, vips: &Vips) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            hold,
            head: Head::new(hold, vips.range, vips.has_routes()),
            claim: Mutex::new(vips.claim()),
            kept: Mutex::default(),
            left: CancellationToken::new(),
            link: Mutex::default(),
        }
    }

    /// Hands these over too.
    pub(crate) fn keep(&self, mut sockets: Sockets) {
        if !self.hold.is_zero() {
            lock(&self.kept).append(&mut sockets);
        }
    }

    /// To be cancelled when this node leaves its cluster.
    pub(crate) fn left(&self) -> CancellationToken {
        self.left.clone()
    }

    /// Gives the sockets to a holder, unless nobody is to come. Blocks for some milliseconds.
    pub(crate) fn pass(&self, mut sockets: Sockets) {
        sockets.append(&mut lock(&self.kept));
        if self.hold.is_zero() || self.left.is_cancelled() || sockets.is_empty() {
            return;
        }
        sockets.append(&mut lock(&self.claim));
        let count = sockets.len();
        match self.start_holder(&sockets) {
            Ok(link) => {
                tracing::info!(sockets = count, hold = ?self.hold, "listeners are held for the next daemon");
                *lock(&self.link) = Some(link);
            }
            Err(error) => tracing::warn!(%error, "listeners are not held for the next daemon"),
        }
    }

    /// Whether a holder has the sockets, and looks after the routes.
    pub(crate) fn is_done(&self) -> bool {
        lock(&self.link).is_some()
    }

    fn start_holder(&self, sockets: &Sockets) -> io::Result<OwnedFd> {
        let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let (own, its) = socketpair(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
        // The file may have been replaced by the next version, and this one is still there.
        let mut child = Command::new("/proc/self/exe")
            .arg(SUBCOMMAND)
            .arg(&self.data_dir)
            .current_dir("/")
            .stdin(Stdio::from(its))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        patient(&own, PATIENCE)?;
        let told = send_all(&own, &self.head, sockets).and_then(|()| receive(&own));
        if let Err(error) = told {
            // It goes with its end of the link, but not before this process.
            let _gone = child.kill();
            let _reaped = child.wait();
            return Err(error);
        }
        Ok(own)
    }
}

/// Takes what the daemon before this one has left with a holder; nothing where there is none.
pub(crate) fn take(data_dir: &Path) -> Sockets {
    let asked = ask(&data_dir.join(SOCKET));
    match asked {
        Ok(sockets) => {
            if !sockets.is_empty() {
                let count = sockets.len();
                tracing::info!(
                    sockets = count,
                    "listeners are taken over from the daemon before"
                );
            }
            sockets
        }
        Err(error) => {
            tracing::warn!(%error, "listeners of the daemon before cannot be taken over");
            BTreeMap::new()
        }
    }
}

fn ask(path: &Path) -> io::Result<Sockets> {
    let kind = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => {}
        // None has been there, or it has ended, or been killed.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(error.into()),
    }
    patient(&socket, PATIENCE)?;
    let (_head, sockets) = receive_all(&socket)?;
    packets::acknowledge(&socket)?;
    Ok(sockets)
}

/// Nothing panics while it holds one of these.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
