//! What `/proc` tells about processes.

use std::collections::BTreeMap;

use super::record::ProcessStamp;

/// The fields of `/proc/<pid>/stat` that are needed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `Z` for a zombie.
    pub(crate) state: u8,
    /// Parent.
    pub(crate) parent: i32,
    /// Session.
    pub(crate) session: i32,
    /// CPU time of it in clock ticks, user and system.
    pub(crate) cpu_ticks: u64,
    /// The same of its children that have ended and were waited for, with theirs.
    pub(crate) children_ticks: u64,
    /// Start in clock ticks since the boot.
    pub(crate) start: u64,
    /// Resident pages.
    pub(crate) resident_pages: u64,
}

/// Reads the state of a process; `None` when there is none of that number.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The second field is the program's name in parentheses and may hold anything, also parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // `rest` starts with field 3 of proc(5).
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(4 - 3)?.parse().ok()?,
        session: fields.get(6 - 3)?.parse().ok()?,
        cpu_ticks: number(14)?.saturating_add(number(15)?),
        children_ticks: number(16)?.saturating_add(number(17)?),
        start: number(22)?,
        resident_pages: number(24)?,
    })
}

/// A process and the time of its start; `None` when it is gone.
pub(crate) fn stamp(pid: i32) -> Option<ProcessStamp> {
    stat(pid).map(|stat| ProcessStamp {
        pid,
        start: stat.start,
    })
}

/// Whether this very process is alive (or a zombie that nobody has reaped).
pub(crate) fn is_same(process: ProcessStamp) -> bool {
    stat(process.pid).is_some_and(|stat| stat.start == process.start)
}

/// The living processes of a session that started no earlier than its leader.
pub(crate) fn session_members(leader: ProcessStamp) -> Vec<i32> {
    // A number stays taken while a session of that number has members. So if the leader's number
    // now belongs to a later process, nothing of the old session is left.
    if stat(leader.pid).is_some_and(|stat| stat.start != leader.start) {
        return Vec::new();
    }
    all()
        .filter(|(pid, _)| *pid != leader.pid)
        .filter(|(_, stat)| stat.session == leader.pid && stat.start >= leader.start)
        .filter(|(_, stat)| stat.state != b'Z')
        .map(|(pid, _)| pid)
        .collect()
}

/// The children of every process that has some.
pub(crate) fn children() -> BTreeMap<i32, Vec<i32>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, stat) in all() {
        children.entry(stat.parent).or_default().push(pid);
    }
    children
}

/// All processes of the host.
fn all() -> impl Iterator<Item = (i32, Stat)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_shifts_no_field() {
        let text = "42 (a) b (c)) S 1 7 9 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 1 0 12345 1000 77 0";
        let expected = Stat {
            state: b'S',
            parent: 1,
            session: 9,
            cpu_ticks: 110,
            children_ticks: 15,
            start: 12345,
            resident_pages: 77,
        };
        assert_eq!(parse_stat(text), Some(expected));
    }

    #[test]
    fn nonsense_is_no_process() {
        for text in [
            "",
            "1",
            "1 (x",
            "1 (x) S",
            "1 (x) S a b c d e f g h i j k l m n o p q",
        ] {
            assert_eq!(parse_stat(text), None, "{text}");
        }
    }

    #[test]
    fn this_process_is_itself_and_no_later_one() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let stamp = stamp(pid).unwrap();
        assert!(is_same(stamp));
        let later = ProcessStamp {
            start: stamp.start + 1,
            ..stamp
        };
        assert!(!is_same(later));
    }
}
