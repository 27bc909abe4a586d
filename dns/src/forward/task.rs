//! The task that asks upstreams.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::local::is_inside;
use super::stored::Stored;
use super::{Forwarder, Job, Key, Upstreams, Waiter, exchange};
use hickory_proto::rr::{DNSClass, RecordType};

/// Most questions in flight. Each takes a socket for some milliseconds, or for seconds when the
/// network is down; this many leave most of a process's descriptors to the rest of it.
const MAX_IN_FLIGHT: usize = 128;

/// Most clients that wait for one answer.
const MAX_WAITERS: usize = 64;

/// Most answers that one address waits for, so that a client whose names nobody answers leaves room
/// for others.
const MAX_PER_CLIENT: usize = 64;

/// How often the list of upstreams is read again.
const REREAD: Duration = Duration::from_secs(5);

/// How many readings of the list pass between looks for loops: five minutes.
const PROBE_EVERY: u32 = 60;

/// Asks, and tells those who wait.
pub(crate) struct Asking {
    forwarder: Forwarder,
    jobs: mpsc::Receiver<Job>,
    source: Upstreams,
    own: Vec<SocketAddr>,
    upstreams: Arc<[SocketAddr]>,
    /// Those upstreams that ask us.
    looped: Vec<SocketAddr>,
    /// Where in the list to begin: who answered last.
    first: usize,
    waiting: HashMap<Arc<Key>, Vec<Waiter>>,
    exchanges: JoinSet<Option<(Stored, usize)>>,
    keys: HashMap<Id, Arc<Key>>,
    probes: JoinSet<()>,
    probed: Vec<SocketAddr>,
    readings: u32,
}

type Ended = Result<(Id, Option<(Stored, usize)>), JoinError>;

impl Asking {
    pub(super) fn new(
        forwarder: Forwarder,
        jobs: mpsc::Receiver<Job>,
        source: Upstreams,
        own: Vec<SocketAddr>,
    ) -> Self {
        Self {
            forwarder,
            jobs,
            source,
            own,
            upstreams: Arc::default(),
            looped: Vec::new(),
            first: 0,
            waiting: HashMap::new(),
            exchanges: JoinSet::new(),
            keys: HashMap::new(),
            probes: JoinSet::new(),
            probed: Vec::new(),
            readings: 0,
        }
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut reread = interval(REREAD);
        reread.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = reread.tick() => self.read_upstreams().await,
                job = self.jobs.recv() => match job {
                    Some(Job::Ask(key, waiter)) => self.take(key, waiter),
                    Some(Job::Looped(index)) => self.break_loop(index),
                    // It holds a sender itself.
                    None => return,
                },
                Some(ended) = self.exchanges.join_next_with_id() => self.finish(ended),
                Some(_done) = self.probes.join_next() => {}
            }
        }
    }

    fn take(&mut self, key: Arc<Key>, waiter: Waiter) {
        let manner = self.forwarder.manner();
        let of_client = |ip: IpAddr| {
            let all = self.waiting.values().flatten();
            all.filter(|w| w.client == ip).count()
        };
        if of_client(waiter.client) >= MAX_PER_CLIENT || self.upstreams.is_empty() {
            return waiter.deliver(None, manner);
        }
        if let Some(others) = self.waiting.get_mut(&key) {
            if others.len() < MAX_WAITERS {
                others.push(waiter);
            }
            return;
        }
        if self.exchanges.len() >= MAX_IN_FLIGHT {
            return waiter.deliver(None, manner);
        }
        let asked = exchange::ask(self.upstreams.clone(), self.first, key.clone());
        let id = self.exchanges.spawn(asked).id();
        self.keys.insert(id, key.clone());
        self.waiting.insert(key, vec![waiter]);
    }

    fn finish(&mut self, ended: Ended) {
        let (id, answer) = match ended {
            Ok((id, answer)) => (id, answer),
            Err(panic) => {
                // What reads remote bytes may fail, and then fails alone.
                tracing::warn!(%panic, "a task that asks a resolver failed");
                (panic.id(), None)
            }
        };
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        let stored = match answer {
            Some((stored, index)) => {
                self.first = index;
                stored
            }
            None => Stored::failure(),
        };
        let stored = Arc::new(stored);
        {
            let cache = &self.forwarder.cache;
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.put(key.clone(), stored.clone(), Instant::now());
        }
        for waiter in self.waiting.remove(&key).unwrap_or_default() {
            waiter.deliver(Some(&stored), self.forwarder.manner());
        }
    }

    /// Takes over a changed list. Reading small local files takes microseconds, though it may
    /// wait for a disk, so that it is done on a thread that may.
    async fn read_upstreams(&mut self) {
        let (source, own) = (self.source.clone(), self.own.clone());
        let Ok(found) = tokio::task::spawn_blocking(move || source.read(&own)).await else {
            return;
        };
        let changed = found != self.probed;
        self.readings = self.readings.wrapping_add(1);
        if changed {
            tracing::info!(upstreams = ?found, "other names are asked of these resolvers");
        }
        if changed || self.readings.is_multiple_of(PROBE_EVERY) {
            self.probed = found;
            self.looped.clear();
            self.use_upstreams();
            self.look_for_loops();
        }
    }

    /// Those that do not ask us.
    fn use_upstreams(&mut self) {
        let usable = self.probed.iter().filter(|a| !self.looped.contains(a));
        self.upstreams = usable.copied().collect();
        self.first = 0;
        let inside = self.upstreams.iter().all(|a| is_inside(a.ip()));
        self.forwarder.policy.set_upstreams(inside);
    }

    fn look_for_loops(&mut self) {
        self.probes.abort_all();
        for (index, upstream) in self.probed.iter().enumerate() {
            let key = Arc::new(Key {
                name: self.forwarder.policy.probe(index),
                record_type: RecordType::TXT.into(),
                class: DNSClass::IN.into(),
                dnssec_ok: false,
                checking_disabled: false,
            });
            self.probes.spawn(exchange::probe(*upstream, key));
        }
    }

    /// Stops asking an upstream that asks us.
    fn break_loop(&mut self, index: usize) {
        let Some(upstream) = self.probed.get(index).copied() else {
            return;
        };
        if !self.looped.contains(&upstream) {
            self.looped.push(upstream);
            tracing::warn!(
                %upstream,
                "this resolver sends other names back here, so it is not asked; choose another one with --upstream-dns"
            );
            self.use_upstreams();
        }
    }
}
