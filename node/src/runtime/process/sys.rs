//! The only `unsafe` on the daemon's side of the process runtime.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a process's descriptor with the reactor. Must be called within a tokio runtime.
pub(super) fn register(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(pidfd, Interest::READABLE)
}

/// Registers a descriptor that is read and written, and does not block.
pub(super) fn register_both(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    watch(fd, Interest::READABLE | Interest::WRITABLE)
}

fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps one and the same descriptor open until it is dropped, and nobody
    // but the returned value has it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(io::Error::from)
}

/// Makes the child enter the cgroups behind `procs` (open `cgroup.procs` files), begin a session,
/// take its standard input for the terminal of that session if it is one, and die with the thread
/// that starts it, before it executes the program. The daemon's threads live as long as it does.
pub(super) fn begin_session(command: &mut Command, procs: Vec<File>, terminal: bool) {
    let before_exec = move || -> io::Result<()> {
        for file in &procs {
            // Which cgroup it is in limits it and does not decide whether it runs.
            let _ = rustix::io::write(file.as_fd(), b"0");
        }
        rustix::process::setsid()?;
        if terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock.
    unsafe { command.pre_exec(before_exec) };
}
