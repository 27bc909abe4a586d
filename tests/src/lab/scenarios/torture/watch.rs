//! What happens on the way, by the process table: nobody is stopped without a reason (I2), no host takes
//! more than it has (I4), and of a strict singleton there are never two (I5).
//!
//! It watches the [services that nobody changes](super::fixed). Processes and not claims are what counts
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Lab;
use super::calls::Who;
use super::fixed::{ALONE, FIT, NAMES, STEADY};
use crate::lab::net::LabError;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A replica may end when another one of its slot was seen so recently: that one may have been hit by
/// trouble while this one was ending.
const RECENT: Duration = Duration::from_secs(10);
/// After a longer time without a look nobody knows who was there meanwhile.
const BLIND: Duration = Duration::from_secs(2);

/// Looks until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Replicas that ended while no other of their slot was about.
    ended: Vec<Who>,
    /// What may never be, whoever is in trouble.
    wrong: Vec<String>,
    /// Who runs, and when it was last seen, for a while after its end.
    known: BTreeMap<(u32, Who), Instant>,
    last: Option<Instant>,
}

impl Watch {
    /// Begins to look.
    pub(super) fn start(lab: &Lab) -> Result<Self, LabError> {
        let space = |at: usize| {
            let path = format!("/run/netns/{}", lab.network.namespace(at));
            fs::metadata(path).map(|m| m.ino())
        };
        let spaces: Result<BTreeSet<u64>, _> = (0..lab.hosts.len()).map(space).collect();
        let spaces = spaces.map_err(|e| LabError::new("look at a namespace", e))?;
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                look(&spaces, &shared);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Ok(Self {
            stop,
            seen,
            thread: Some(thread),
        })
    }

    /// What was wrong since the last call. Whoever was on a touched host may have ended.
    pub(super) fn complaints(&self, touched: &BTreeSet<String>) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = std::mem::take(&mut seen.wrong);
        let ended = std::mem::take(&mut seen.ended);
        let untouched = ended.iter().filter(|who| !touched.contains(&who.node));
        found.extend(untouched.map(|who| {
            format!("{who} has ended: nothing was done to its host, and nobody else had its slot")
        }));
        found
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn look(spaces: &BTreeSet<u64>, seen: &Mutex<Seen>) {
    let now = Instant::now();
    let running = running(spaces);
    // A look takes a while, in which one can end and the next begin: only who is still there counts.
    let still = |pid: u32, who: &Who| Who::of_process(pid).as_ref() == Some(who);
    let mut wrong = Vec::new();
    for crowd in crowds(&running) {
        let here: Vec<_> = crowd.iter().filter(|(pid, who)| still(*pid, who)).collect();
        if here.len() == crowd.len() {
            let list: Vec<String> = here.iter().map(|(_, who)| who.to_string()).collect();
            wrong.push(format!("too many run at once: {}", list.join(", ")));
        }
    }
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    wrong.retain(|line| !seen.wrong.contains(line));
    seen.wrong.extend(wrong);
    seen.update(&running, now);
}

impl Seen {
    fn update(&mut self, running: &BTreeSet<(u32, Who)>, now: Instant) {
        let blind = self.last.is_some_and(|last| now - last > BLIND);
        let before = self.last.replace(now);
        if blind {
            self.known.clear();
        }
        self.known
            .extend(running.iter().map(|one| (one.clone(), now)));
        let ended = self.known.iter().filter(|((pid, who), at)| {
            // It was there at the last look, and is not now.
            Some(**at) == before && !running.contains(&(*pid, who.clone()))
        });
        let alone = ended.filter(|((_, who), _)| {
            let of = |other: &Who| (other.service.clone(), other.slot);
            let mut others = self.known.keys().map(|(_, other)| other);
            let other = others.any(|other| of(other) == of(who) && other.node != who.node);
            who.service == STEADY && !other
        });
        let alone: Vec<Who> = alone.map(|((_, who), _)| who.clone()).collect();
        self.ended.extend(alone);
        self.known.retain(|_, at| now - *at < RECENT);
    }
}

/// Those of whom there are more than may be.
fn crowds(running: &BTreeSet<(u32, Who)>) -> Vec<Vec<(u32, Who)>> {
    let of = |name: &'static str| running.iter().filter(move |(_, who)| who.service == name);
    let alone: Vec<_> = of(ALONE).cloned().collect();
    let mut hosts: BTreeMap<&str, Vec<(u32, Who)>> = BTreeMap::new();
    for one in of(STEADY) {
        hosts.entry(&one.1.node).or_default().push(one.clone());
    }
    let mut found: Vec<_> = hosts
        .into_values()
        .filter(|list| list.len() > FIT)
        .collect();
    found.extend((alone.len() > 1).then_some(alone));
    found
}

/// The replicas that run in these namespaces, of the services that nobody changes.
fn running(spaces: &BTreeSet<u64>) -> BTreeSet<(u32, Who)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: u32| {
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| spaces.contains(&m.ino()))
    };
    pids.filter_map(|pid| Some((pid, Who::of_process(pid)?)))
        .filter(|(pid, who)| NAMES.contains(&who.service.as_str()) && ours(*pid))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(service: &str, slot: u32, node: &str) -> Who {
        Who {
            service: service.to_owned(),
            slot,
            node: node.to_owned(),
            epoch: 1,
        }
    }

    /// A process, and whose: service, slot, host.
    type Process<'a> = (u32, &'a str, u32, &'a str);

    fn all(running: &[Process<'_>]) -> BTreeSet<(u32, Who)> {
        let one = |(pid, service, slot, node): &Process<'_>| (*pid, who(service, *slot, node));
        running.iter().map(one).collect()
    }

    /// Who has ended without a reason, after looks at these replicas at these times.
    fn ended(looks: &[(u64, &[Process<'_>])]) -> Vec<Who> {
        let (mut seen, start) = (Seen::default(), Instant::now());
        for (ms, running) in looks {
            seen.update(&all(running), start + Duration::from_millis(*ms));
        }
        seen.ended
    }

    #[test]
    fn an_end_needs_another_of_the_slot() {
        let here = (1, STEADY, 0, "h0");
        let there = (2, STEADY, 0, "h1");
        let next = (3, STEADY, 1, "h1");
        let lost = vec![who(STEADY, 0, "h0")];
        assert_eq!(ended(&[(0, &[here]), (100, &[])]), lost);
        assert_eq!(
            ended(&[(0, &[here, next]), (100, &[next])]),
            lost,
            "another slot"
        );
        let later = [(0, &[here][..]), (100, &[]), (200, &[there])];
        assert_eq!(ended(&later), lost, "the other one came too late");
        let restarted = [(0, &[here][..]), (100, &[(9, STEADY, 0, "h0")])];
        assert_eq!(ended(&restarted), lost, "another one on the same host");
        assert_eq!(ended(&[(0, &[here, there]), (100, &[there])]), []);
        let both = [(0, &[here, there][..]), (100, &[here]), (200, &[])];
        assert_eq!(ended(&both), [], "the other one was there a moment ago");
        assert_eq!(ended(&[(0, &[here]), (3_000, &[])]), [], "nobody looked");
        assert_eq!(ended(&[(0, &[(1, ALONE, 0, "h0")]), (100, &[])]), []);
    }

    #[test]
    fn crowds_are_seen() {
        let fit = [
            (1, STEADY, 0, "h0"),
            (2, STEADY, 1, "h0"),
            (3, ALONE, 0, "h0"),
        ];
        assert_eq!(crowds(&all(&fit)), Vec::<Vec<_>>::new());
        let apart = [&fit[..], &[(4, STEADY, 2, "h1")]].concat();
        assert_eq!(crowds(&all(&apart)), Vec::<Vec<_>>::new());
        let three = [&fit[..], &[(4, STEADY, 2, "h0")]].concat();
        assert_eq!(crowds(&all(&three)).len(), 1);
        let twice = [&three[..], &[(5, ALONE, 0, "h1")]].concat();
        assert_eq!(crowds(&all(&twice)).len(), 2);
    }
}
