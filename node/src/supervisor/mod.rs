//! The small process that stands between the daemon and one replica of the process runtime.
//!
//! A replica must outlive the daemon (restart, upgrade, crash) and its end must still be known. So
//! the daemon never is its parent: for each attempt it executes itself again as
//! `dunlin __supervise <directory>`, and that process, in a session of its own,
//!
//! 1. takes the lock of the attempt's directory, which is how anyone can tell that it lives;
//! 2. chooses free ports, enters the replica's cgroup where it may, and starts the workload;
//! 3. writes [`RunRecord`] and tells the daemon through its standard output how that went;
//! 4. copies what the workload prints into a bounded log, and obeys the FIFO `control`;
//! 5. when the workload ends, kills what it left behind, writes [`ExitRecord`] and ends.
//!
//! It is one thread with one poll loop: no tokio, no allocation that grows. It forwards nothing
//! else and knows nothing of the cluster. Should it be killed, the kernel kills the workload
//! (`PR_SET_PDEATHSIG`), so that nothing ever runs unseen.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::FlockOperation;

mod beside;
pub(crate) mod cgroup;
mod launch;
mod logfile;
mod names;
mod ports;
pub(crate) mod proc;
mod record;
pub(crate) mod session;
mod sys;
mod watch;

pub(crate) use beside::{Beside, Difference, beside};
pub(crate) use launch::user_ids;
pub(crate) use logfile::{Stream, files as log_files, parse_record};
pub(crate) use record::{
    ExitRecord, Handshake, LaunchSpec, Paths, PortWish, ProcessStamp, RunRecord, StoredId, boot_id,
    read_json, write_json,
};

/// The hidden subcommand that the executable must route to [`main`].
pub const SUBCOMMAND: &str = "__supervise";

/// Why a workload could not be started, for a person.
#[derive(Debug)]
struct Refusal {
    reason: String,
    hopeless: bool,
}

impl Refusal {
    /// Nothing that repeating on this node would change.
    fn hopeless(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hopeless: true,
        }
    }

    /// Something of the moment.
    fn passing(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hopeless: false,
        }
    }
}

/// Supervises the attempt whose directory this is, until it has ended. Must be called first thing
/// in a process with a single thread.
pub fn main(directory: &Path) -> ExitCode {
    sys::close_inherited();
    // Fails only when this process leads a group already, and then it has a session as well.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"dunlin-super");
    let paths = Paths::new(directory);
    match start(&paths) {
        Ok((launched, _lock)) => {
            let exit = watch::watch(&paths, launched);
            match write_json(&paths.exit(), &exit) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(refusal) => {
            tell(&Handshake::Failed {
                reason: refusal.reason,
                hopeless: refusal.hopeless,
            });
            ExitCode::FAILURE
        }
    }
}

fn start(paths: &Paths) -> Result<(launch::Launched, File), Refusal> {
    let lock = lock(&paths.lock())?;
    // Only now: a daemon that found the lock free has drawn its conclusion, or made the directory
    // anew for another supervisor.
    if paths.exit().exists() {
        return Err(Refusal::passing("it was given up before it had started"));
    }
    let spec: LaunchSpec = read_json(&paths.spec())
        .map_err(|e| Refusal::passing(format!("cannot read {}: {e}", paths.spec().display())))?;
    let launched = launch::launch(paths, &spec)?;
    let written = write_json(&paths.run(), &launched.record);
    if let Err(error) = written {
        // Without the record nobody could adopt it.
        launched.abandon();
        return Err(Refusal::passing(format!(
            "cannot write {}: {error}",
            paths.run().display()
        )));
    }
    tell(&Handshake::Started(Box::new(launched.record.clone())));
    Ok((launched, lock))
}

/// Takes the lock that this process holds until it dies.
fn lock(path: &Path) -> Result<File, Refusal> {
    let failed =
        |e: std::io::Error| Refusal::passing(format!("cannot lock {}: {e}", path.display()));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(failed)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| failed(e.into()))?;
    Ok(file)
}

/// Answers the daemon, then lets go of the pipe: the daemon waits for its end.
fn tell(answer: &Handshake) {
    let mut out = std::io::stdout().lock();
    if let Ok(mut text) = serde_json::to_vec(answer) {
        text.push(b'\n');
        // The daemon may be gone; the records on disk tell its successor.
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
