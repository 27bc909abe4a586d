//! The supervisor's loop, from the start of the workload to its end.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::cgroup::CgroupPlan;
use super::launch::Launched;
use super::logfile::{LogWriter, Splitter, Stream, now_ms};
use super::record::{ExitRecord, Paths};
use crate::runtime::Deadline;

/// Bytes read from a pipe at once.
const READ_BYTES: usize = 16 * 1024;
/// How often orphans that ended are reaped when nothing else happens.
const REAP_INTERVAL: Duration = Duration::from_secs(30);
/// The longest grace that an order may ask for.
const MAX_GRACE: Duration = Duration::from_secs(24 * 3600);
/// How long processes left behind are killed again and again: one stuck in the kernel stays.
const CLEAN_UP: Duration = Duration::from_secs(2);
/// Pause between rounds of killing what was left behind.
const CLEAN_UP_PAUSE: Duration = Duration::from_millis(1);
/// Reads from each pipe after the end: a pipe holds 64 KiB, or 1 MiB where it was enlarged.
const DRAIN_READS: usize = 64;
/// Exit code of a workload whose status the kernel did not tell.
const UNKNOWN_EXIT: i32 = 255;

/// Stays with the workload until nothing of it is left, and tells how it ended.
pub(super) fn watch(paths: &Paths, launched: Launched) -> ExitRecord {
    let tap = |pipe, stream| Tap {
        pipe: Some(pipe),
        splitter: Splitter::new(stream),
    };
    let mut watch = Watch {
        leader: launched.leader,
        leader_fd: launched.leader_fd,
        control: launched.control,
        cgroup: launched.cgroup,
        taps: [
            tap(launched.out, Stream::Out),
            tap(launched.err, Stream::Err),
        ],
        log: LogWriter::new(paths.directory(), launched.log_file_bytes),
        deadline: None,
        dead_by: launched.dead_by,
        status: None,
        buffer: vec![0; READ_BYTES],
    };
    watch.until_end();
    watch.clean_up()
    // The ports' reservation in `launched` ends here, with the workload.
}

/// A pipe of the workload and what is made of it.
#[derive(Debug)]
struct Tap {
    pipe: Option<OwnedFd>,
    splitter: Splitter,
}

#[derive(Debug)]
struct Watch {
    leader: Pid,
    leader_fd: OwnedFd,
    control: File,
    cgroup: Option<CgroupPlan>,
    taps: [Tap; 2],
    log: LogWriter,
    /// When patience ends, once it has been asked to stop.
    deadline: Option<Instant>,
    /// When its lease ends, if it has one.
    dead_by: Option<Deadline>,
    status: Option<WaitStatus>,
    buffer: Vec<u8>,
}

/// What the last poll reported.
#[derive(Debug, Default)]
struct Ready {
    ended: bool,
    ordered: bool,
    taps: [bool; 2],
}

impl Watch {
    fn until_end(&mut self) {
        loop {
            let ready = self.poll();
            for (index, is_ready) in ready.taps.into_iter().enumerate() {
                if is_ready {
                    self.read(index);
                }
            }
            if ready.ordered {
                self.obey();
            }
            if ready.ended {
                return;
            }
            if self.dead_by.is_some_and(|at| at.left().is_zero()) {
                self.dead_by = None;
                self.kill();
            }
            if self.deadline.is_some_and(|at| at <= Instant::now()) {
                self.deadline = None;
                self.kill();
            }
            self.reap();
            if self.status.is_some() {
                return;
            }
        }
    }

    fn poll(&self) -> Ready {
        let wait = match self.deadline {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => REAP_INTERVAL,
        };
        let wait = self.dead_by.map_or(wait, |at| wait.min(at.left()));
        let mut fds = vec![
            PollFd::new(&self.leader_fd, PollFlags::IN),
            PollFd::new(&self.control, PollFlags::IN),
        ];
        let open = [self.taps[0].pipe.is_some(), self.taps[1].pipe.is_some()];
        for pipe in self.taps.iter().filter_map(|tap| tap.pipe.as_ref()) {
            fds.push(PollFd::new(pipe, PollFlags::IN));
        }
        // Rounded up: a deadline must have passed when this returns for it.
        let wait = wait + Duration::from_millis(1);
        let timeout = Timespec::try_from(wait).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        });
        if rustix::event::poll(&mut fds, Some(&timeout)).is_err() {
            return Ready::default();
        }
        let mut happened = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || happened.next().unwrap_or(false);
        Ready {
            ended: next(),
            ordered: next(),
            taps: [open[0] && next(), open[1] && next()],
        }
    }

    /// Moves what one pipe holds to the log. Returns whether there may be more.
    fn read(&mut self, index: usize) -> bool {
        let tap = &mut self.taps[index];
        let Some(pipe) = &tap.pipe else {
            return false;
        };
        let mut records = Vec::new();
        let more = match rustix::io::read(pipe, &mut self.buffer[..]) {
            Ok(0) => {
                tap.splitter.finish(now_ms(), &mut records);
                tap.pipe = None;
                false
            }
            Ok(count) => {
                tap.splitter
                    .push(&self.buffer[..count], now_ms(), &mut records);
                true
            }
            Err(Errno::AGAIN) => false,
            Err(Errno::INTR) => true,
            Err(_) => {
                tap.pipe = None;
                false
            }
        };
        self.log.append(&records);
        more
    }

    /// Takes orders from the FIFO. The daemon writes each with one call, so none is cut in two.
    fn obey(&mut self) {
        let mut text = [0; 512];
        let count = match self.control.read(&mut text) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return,
        };
        for line in text[..count].split(|b| *b == b'\n') {
            if let Some(dead_by) = parse_lease(line) {
                self.dead_by = Some(dead_by);
            }
            if let Some((signal, grace)) = parse_order(line) {
                self.signal(signal);
                let at = Instant::now() + grace;
                self.deadline = Some(self.deadline.map_or(at, |earlier| earlier.min(at)));
            }
        }
    }

    /// The leader has not been reaped, so its number still means its group.
    fn signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process_group(self.leader, signal);
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill_all();
        }
    }

    /// Reaps all that have ended, the leader or orphans. Returns whether any children are left.
    fn reap(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if pid == self.leader {
                        self.status = Some(status);
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// The leader has ended. What it left behind ends with it, as in a container.
    fn clean_up(mut self) -> ExitRecord {
        if self.status.is_none() {
            self.kill();
        }
        let until = Instant::now() + CLEAN_UP;
        while self.reap() && Instant::now() < until {
            for child in children() {
                let _ = rustix::process::kill_process(child, Signal::KILL);
            }
            std::thread::sleep(CLEAN_UP_PAUSE);
        }
        for index in [0, 1] {
            for _ in 0..DRAIN_READS {
                if !self.read(index) {
                    break;
                }
            }
            let mut records = Vec::new();
            self.taps[index].splitter.finish(now_ms(), &mut records);
            self.log.append(&records);
        }
        let code = self.status.map_or(UNKNOWN_EXIT, exit_code);
        let oom = code != 0 && self.cgroup.as_ref().is_some_and(CgroupPlan::oom_killed);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill_all();
            cgroup.remove();
        }
        ExitRecord {
            code,
            oom,
            at: now_ms(),
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128_i32.saturating_add(signal),
        (None, None) => UNKNOWN_EXIT,
    }
}

/// Reads `lease <ms of the monotonic clock>`.
fn parse_lease(line: &[u8]) -> Option<Deadline> {
    let text = std::str::from_utf8(line).ok()?;
    text.strip_prefix("lease ")?.parse().ok().map(Deadline)
}

/// Reads `stop <signal number> <grace in ms>`.
fn parse_order(line: &[u8]) -> Option<(Signal, Duration)> {
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.strip_prefix("stop ")?.split(' ');
    let signal = Signal::from_named_raw(words.next()?.parse().ok()?)?;
    let grace = Duration::from_millis(words.next()?.parse().ok()?);
    Some((signal, grace.min(MAX_GRACE)))
}

/// The children of this process, of which it has one thread. Empty on kernels without
/// `CONFIG_PROC_CHILDREN`; then only the process group and the cgroup are killed.
fn children() -> Vec<Pid> {
    std::fs::read_to_string("/proc/thread-self/children")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_well_formed_orders_are_obeyed() {
        assert_eq!(parse_lease(b"lease 70"), Some(Deadline(70)));
        assert_eq!(parse_lease(b"lease -1"), None);
        assert_eq!(parse_lease(b"stop 15 1"), None);
        let order = parse_order(b"stop 15 2500");
        assert_eq!(order, Some((Signal::TERM, Duration::from_millis(2500))));
        let day = parse_order(b"stop 9 99999999999999");
        assert_eq!(day, Some((Signal::KILL, MAX_GRACE)));
        for bad in [
            "",
            "stop",
            "stop 15",
            "stop 0 1",
            "stop 999 1",
            "stop 15 -1",
            "go 15 1",
        ] {
            assert_eq!(parse_order(bad.as_bytes()), None, "{bad}");
        }
    }
}
