//! Every process of a directory, also those whose parent is gone.
//!
//! A daemon names its data directory on its command line (`up --data-dir …`), a supervisor the
//! directory of its attempt (`__supervise …`), and whatever runs below a supervisor is in the
//! session that the supervisor leads. So `/proc` tells which processes belong to a demo, however
//! they were started and whoever died. That somebody reads a log of the demo makes no process
//! belong to it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use dunlin_node::supervisor::SUBCOMMAND;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Whether it supervises a workload, and so cleans up when that ends.
    pub(super) supervisor: bool,
    /// Clock ticks from the boot to its start: with the number it identifies a process.
    start: u64,
}

/// The processes of `directory`.
pub(super) fn of(directory: &Path) -> Vec<Process> {
    let all: Vec<(Stat, Option<Role>)> = numbers()
        .into_iter()
        .filter_map(|pid| Some((stat(pid)?, role(pid, directory))))
        .collect();
    let supervisors: BTreeSet<i32> = all
        .iter()
        .filter(|(_, role)| *role == Some(Role::Supervisor))
        .map(|(stat, _)| stat.pid)
        .collect();
    all.into_iter()
        .filter(|(stat, role)| role.is_some() || supervisors.contains(&stat.session))
        .map(|(stat, role)| Process {
            pid: stat.pid,
            supervisor: role == Some(Role::Supervisor),
            start: stat.start,
        })
        .collect()
}

/// Kills a process, if it is still the one that was seen.
pub(super) fn kill(process: &Process) {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return;
    };
    // The descriptor pins the process, so that the number cannot come to mean another one between
    // the check and the signal.
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if stat(process.pid).is_some_and(|now| now.start == process.start) {
        // It may have ended by itself.
        let _ = pidfd_send_signal(&descriptor, Signal::KILL);
    }
}

/// Resident memory of a process in bytes.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

struct Stat {
    pid: i32,
    session: i32,
    start: u64,
}

fn numbers() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// A process that runs; one that has ended and waits for its parent does not count.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &text)
}

fn parse(pid: i32, text: &str) -> Option<Stat> {
    // The program's name stands in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Field 3 of proc_pid_stat(5) comes first here.
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    Some(Stat {
        pid,
        session: fields.get(3)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// What a process is to a demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Daemon,
    Supervisor,
}

fn role(pid: i32, directory: &Path) -> Option<Role> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&OsStr> = line.split(|b| *b == 0).map(OsStr::from_bytes).collect();
    role_of(&words, directory)
}

fn role_of(words: &[&OsStr], directory: &Path) -> Option<Role> {
    let inside = |word: &OsStr| Path::new(word).starts_with(directory);
    let (first, rest) = words.get(1..)?.split_first()?;
    if *first == SUBCOMMAND {
        return rest.first().filter(|w| inside(w)).map(|_| Role::Supervisor);
    }
    let is_daemon = *first == "up"
        && rest
            .windows(2)
            .any(|pair| pair[0] == "--data-dir" && inside(pair[1]));
    is_daemon.then_some(Role::Daemon)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::{Role, parse, role_of};

    #[test]
    fn names_of_programs_may_hold_anything() {
        let tail = "S 1 7 8 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0";
        let stat = parse(9, &format!("9 (a) b (c) {tail}")).expect("it parses");
        assert_eq!((stat.session, stat.start), (8, 4242));
        let dead = tail.replacen('S', "Z", 1);
        assert!(parse(9, &format!("9 (a) {dead}")).is_none());
        assert!(parse(9, "9 (a").is_none());
    }

    #[test]
    fn only_daemons_and_supervisors_of_the_directory_belong_to_it() {
        let role = |line: &str| {
            let words: Vec<&OsStr> = line.split(' ').map(OsStr::new).collect();
            role_of(&words, Path::new("/t/demo"))
        };
        assert_eq!(
            role("dunlin up --data-dir /t/demo/n1 --name n1"),
            Some(Role::Daemon)
        );
        assert_eq!(
            role("dunlin __supervise /t/demo/n1/w/0-1-0"),
            Some(Role::Supervisor)
        );
        for other in [
            "dunlin up --data-dir /t/demo2/n1",
            "dunlin __supervise /t/other",
            "tail -f /t/demo/n1.log",
            "dunlin demo --end /t/demo",
            "dunlin",
            "",
        ] {
            assert_eq!(role(other), None, "{other}");
        }
    }
}
