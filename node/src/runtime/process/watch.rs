//! Watching supervisors and stopping what they run.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tracing::warn;

use super::super::{Ending, signal};
use super::{blocking, directory, is_held, sys};
use crate::runtime::Deadline;
use crate::supervisor::{
    ExitRecord, LaunchSpec, Paths, ProcessStamp, RunRecord, boot_id, proc, read_json, session,
    write_json,
};

/// How much longer than the grace a supervisor may take to stop its workload, before the daemon
/// does it in its place.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(3);
/// Rounds of killing a session; each reads all of `/proc`.
const KILL_ROUNDS: u32 = 100;
/// Pause between such rounds.
const KILL_PAUSE: Duration = Duration::from_millis(5);
/// Exit code of a workload that died unseen: with its supervisor, or with the host's power.
/// `SIGKILL` is what the kernel sends it in the first case.
const KILLED: i32 = 128 + 9;

/// A supervisor whose end is waited for.
pub(super) struct Watched {
    pidfd: AsyncFd<OwnedFd>,
    /// Present when it is a child of this life of the daemon and must be reaped.
    child: Option<Child>,
}

impl Watched {
    /// Watches a supervisor. Must be called within a tokio runtime.
    pub(super) fn new(pidfd: OwnedFd, child: Option<Child>) -> io::Result<Self> {
        Ok(Self {
            pidfd: sys::register(pidfd)?,
            child,
        })
    }

    /// Watches a supervisor from an earlier life, if it still is the same process.
    pub(super) fn adopt(record: &RunRecord) -> io::Result<Self> {
        let pidfd = open_same(record.supervisor)?;
        Self::new(pidfd, None)
    }

    /// Completes when the attempt has ended, with what is known of it.
    pub(super) async fn ended(self, paths: Paths) -> Ending {
        self.gone().await;
        let ended = blocking(move || conclude(&paths)).await;
        ended.unwrap_or(Ending::Lost)
    }

    /// Ends a supervisor that has not started anything, and deletes its directory.
    pub(super) async fn discard(self, paths: Paths) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
        self.gone().await;
        blocking(move || {
            // It may have come further than it could tell.
            if let Ok(record) = read_json::<RunRecord>(&paths.run()) {
                kill_leftovers(&paths, &record);
            }
            directory::delete(paths.directory());
        })
        .await;
    }

    async fn gone(mut self) {
        // A pidfd is readable once its process is a zombie.
        if let Err(error) = self.pidfd.readable().await {
            warn!(%error, "cannot watch a supervisor");
        }
        if let Some(child) = &mut self.child {
            let _ = child.try_wait();
        }
    }
}

/// Opens a process if its number still means the one that was recorded.
fn open_same(process: ProcessStamp) -> io::Result<OwnedFd> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the process is gone");
    let pid = Pid::from_raw(process.pid).ok_or_else(gone)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    // In this order: what is open now cannot be replaced by another one any more.
    match proc::is_same(process) {
        true => Ok(pidfd),
        false => Err(gone()),
    }
}

/// How an attempt ended whose supervisor is gone. Kills what that one could not.
pub(super) fn conclude(paths: &Paths) -> Ending {
    if let Ok(exit) = read_json::<ExitRecord>(&paths.exit()) {
        return Ending::Exited {
            code: exit.code,
            oom: exit.oom,
        };
    }
    if let Ok(record) = read_json::<RunRecord>(&paths.run()) {
        kill_leftovers(paths, &record);
    }
    let at = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let exit = ExitRecord {
        code: KILLED,
        oom: false,
        at,
    };
    // So that later lives of the daemon find the matter closed.
    if let Err(error) = write_json(&paths.exit(), &exit) {
        warn!(path = %paths.exit().display(), %error, "cannot record the end of an attempt");
    }
    Ending::Lost
}

/// Kills everything that an attempt may have left without its supervisor.
fn kill_leftovers(paths: &Paths, record: &RunRecord) {
    if record.boot == boot_id() {
        kill_session(record.supervisor);
    }
    let spec = read_json::<LaunchSpec>(&paths.spec());
    if let Some(cgroup) = spec.ok().and_then(|spec| spec.cgroup) {
        cgroup.kill_all();
        cgroup.remove();
    }
}

/// Kills a session and waits a little for its members to be gone: a successor may want their
/// ports.
fn kill_session(leader: ProcessStamp) {
    for _ in 0..KILL_ROUNDS {
        session::kill(leader);
        if proc::session_members(leader).is_empty() {
            return;
        }
        std::thread::sleep(KILL_PAUSE);
    }
}

/// Sends a signal to the workload, if it lives.
pub(super) fn notify(paths: &Paths, name: &str) {
    let Some(signal) = signal::parse(name) else {
        warn!(
            signal = name,
            "unknown signal; the change of a secret is not told"
        );
        return;
    };
    let record = read_json::<RunRecord>(&paths.run());
    let workload = record.and_then(|record| open_same(record.workload));
    let sent = workload.and_then(|w| Ok(rustix::process::pidfd_send_signal(w, signal)?));
    if let Err(error) = sent {
        tracing::debug!(%error, "the workload has just ended");
    }
}

/// Tells the supervisor until when its workload may live.
pub(super) async fn extend(paths: Paths, dead_by: Deadline) {
    order(&paths, format!("lease {}\n", dead_by.0)).await;
}

async fn order(paths: &Paths, order: String) {
    let control = paths.control();
    let sent = blocking(move || {
        std::fs::File::options()
            .write(true)
            .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0))
            .open(control)?
            .write_all(order.as_bytes())
    })
    .await;
    if let Some(Err(error)) = sent {
        // No reader: the supervisor has ended, which its watcher is about to see.
        tracing::debug!(%error, "the supervisor takes no orders");
    }
}

/// Asks the supervisor to stop its workload; does it in its place should that one be stuck.
pub(super) async fn stop(paths: Paths, signal: Option<Signal>, grace_ms: u64) {
    let signal = signal.unwrap_or(Signal::TERM).as_raw();
    order(&paths, format!("stop {signal} {grace_ms}\n")).await;
    tokio::time::sleep(Duration::from_millis(grace_ms).saturating_add(SUPERVISOR_PATIENCE)).await;
    blocking(move || force(&paths)).await;
}

fn force(paths: &Paths) {
    if !matches!(is_held(paths), Ok(true)) {
        return;
    }
    let Ok(record) = read_json::<RunRecord>(&paths.run()) else {
        return;
    };
    warn!(path = %paths.directory().display(), "a supervisor is stuck; killed with its workload");
    if let Ok(supervisor) = open_same(record.supervisor) {
        let _ = rustix::process::pidfd_send_signal(supervisor, Signal::KILL);
    }
    kill_leftovers(paths, &record);
}
