//! Where a workload finds names: a resolv.conf of its own, in a mount namespace of its own.
//!
//! Everything else is mounted there as on the host, and what the host mounts later appears there
//! too; nothing goes the other way. It takes root, or `CAP_SYS_ADMIN`. Without it the workload has
//! the host's resolv.conf, and variables that say where names are answered.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use super::Paths;

/// What C libraries read.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Puts this process, and so its workload, into a namespace with that resolv.conf. The text says why
/// it could not.
pub(super) fn give(paths: &Paths, text: &str) -> Result<(), String> {
    attempt(paths, text).map_err(|error| {
        format!("it finds no names of the cluster by itself, only through DUNLIN_DNS: {error}")
    })
}

fn attempt(paths: &Paths, text: &str) -> io::Result<()> {
    let own = paths.resolv_conf();
    fs::write(&own, text)?;
    // The workload may run as another user.
    fs::set_permissions(&own, fs::Permissions::from_mode(0o644))?;
    leave_host()?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave)?;
    mount_bind(&own, RESOLV_CONF)?;
    Ok(())
}

/// Only mounts are unshared, in a process with a single thread: what makes this call dangerous are
/// descriptors that are unshared between threads.
#[expect(
    deprecated,
    reason = "its successor is the same call, and unsafe for other flags"
)]
fn leave_host() -> io::Result<()> {
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    Ok(())
}
