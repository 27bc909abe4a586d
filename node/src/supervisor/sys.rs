//! The only `unsafe` of the process runtime: two things that neither std nor rustix can promise
//! to be sound in general, and that are sound here for the reasons given.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::Signal;

/// Closes every file descriptor above standard error. The daemon opens all of its own with
/// `O_CLOEXEC`, but it may have inherited others from whoever started it, and a supervisor that
/// kept a pipe of a shell open would keep that shell waiting for as long as the workload lives.
pub(super) fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // SAFETY: called first thing in `main`, before this program has opened anything that it
        // keeps, so no owner of any of these descriptors exists. The directory that was being
        // listed is closed by now; closing its number again fails harmlessly with EBADF.
        let _ = unsafe { rustix::io::try_close(number) };
    }
}

/// Makes the child enter the cgroups behind `procs` (open `cgroup.procs` files) and die with its
/// parent, before it executes the program.
pub(super) fn bind_to_parent(command: &mut Command, procs: Vec<File>) {
    let parent = rustix::process::getpid();
    let before_exec = move || -> io::Result<()> {
        for file in &procs {
            // Which cgroup it is in limits it and does not decide whether it runs.
            let _ = rustix::io::write(file.as_fd(), b"0");
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above took effect.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::SRCH.raw_os_error(),
            ));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock. The
    // process has a single thread besides.
    unsafe { command.pre_exec(before_exec) };
}
