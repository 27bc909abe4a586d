//! A simulated cluster: virtual time, a network that loses, repeats and reorders, disks that sync
//! late and forget what they had not synced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_state::Now;
use dunlin_state::desired::{Actor, Command, Document};
use dunlin_state::model::{NodeId, NodeReport, ServiceKey, ServiceSpec, Version};
use dunlin_state::observed::{Register, Seal, SharedSecret};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::*;

pub(super) fn node(number: usize) -> NodeId {
    NodeId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What signs for a node in these tests.
pub(super) fn seal(id: NodeId) -> Arc<dyn Seal> {
    Arc::new(SharedSecret::new(id, [7; 32]))
}

/// A register of a node, signed by it.
pub(super) fn sealed(id: NodeId, version: Version, report: NodeReport) -> Arc<Register> {
    Arc::new(Register::first(id, version, report, &*seal(id)).unwrap())
}

/// As a peer would send it that knows nothing of the receiver, encoded.
pub(super) fn whole(register: &Register) -> Pushed {
    Pushed::from_bytes(register.encode(None))
}

pub(super) fn service(name: &str) -> ServiceKey {
    name.parse().unwrap()
}

pub(super) fn deploy(name: &str) -> Command {
    Command::Deploy {
        service: service(name),
        spec: Box::new(ServiceSpec {
            image: "hello:1".to_owned(),
            ..ServiceSpec::default()
        }),
        replicas: Some(1),
    }
}

pub(super) fn named(name: &str) -> Box<NodeReport> {
    Box::new(NodeReport {
        name: name.to_owned(),
        ..NodeReport::default()
    })
}

/// A disk: what is synced, and what waits for it.
#[derive(Default)]
pub(super) struct SimDisk {
    pub(super) saved: Option<Bytes>,
    pub(super) changes: Vec<Bytes>,
    waiting: VecDeque<(PersistId, Vec<Write>)>,
    pub(super) broken: bool,
    pub(super) syncs: u64,
}

impl SimDisk {
    fn apply(&mut self, writes: Vec<Write>) {
        self.syncs += 1;
        for write in writes {
            match write {
                Write::Document(saved) => {
                    self.saved = Some(saved);
                    self.changes.clear();
                }
                Write::Change(change) => {
                    assert!(self.saved.is_some(), "a change needs a document before it");
                    self.changes.push(change);
                }
            }
        }
    }

    /// What a restart would find.
    pub(super) fn load(&self, actor: Actor) -> Document {
        match &self.saved {
            Some(saved) => Document::load(saved, &self.changes, actor).expect("a whole disk"),
            None => Document::new(actor),
        }
    }
}

pub(super) struct Host {
    pub(super) machine: Option<Replication>,
    pub(super) disk: SimDisk,
    pub(super) boot: u64,
    timer: Option<u64>,
}

enum Event {
    Deliver {
        from: usize,
        to: usize,
        message: Message,
    },
    Sync {
        host: usize,
        boot: u64,
        id: PersistId,
    },
    Timer {
        host: usize,
    },
}

/// The faults of the network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: f64,
    pub(super) repeat: f64,
    /// Milliseconds, at least and at most; different delays reorder.
    pub(super) delay: (u64, u64),
}

impl Weather {
    pub(super) const CALM: Self = Self {
        loss: 0.0,
        repeat: 0.0,
        delay: (1, 1),
    };
    pub(super) const STORM: Self = Self {
        loss: 0.2,
        repeat: 0.1,
        delay: (1, 80),
    };
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) ids: Vec<NodeId>,
    pub(super) weather: Weather,
    /// Milliseconds a sync takes, at least and at most.
    pub(super) sync_ms: (u64, u64),
    pub(super) answers: BTreeMap<ProposalId, (usize, Result<bool, String>)>,
    pub(super) warnings: Vec<(usize, String)>,
    pub(super) bytes: u64,
    pub(super) messages: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    /// Of all lives: documents adopted, writes refused, syncs opened.
    pub(super) ended: [u64; 3],
    links: BTreeSet<(usize, usize)>,
    tuning: Tuning,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    next_proposal: u64,
    rng: ChaCha8Rng,
    log: blake3::Hasher,
}

impl World {
    /// Hosts without links.
    pub(super) fn new(size: usize, seed: u64) -> Self {
        let tuning = Tuning::from(Profile::Lan);
        Self::with_tuning(size, seed, tuning)
    }

    pub(super) fn with_tuning(size: usize, seed: u64, tuning: Tuning) -> Self {
        let mut world = Self {
            now: 0,
            hosts: Vec::new(),
            ids: (0..size).map(node).collect(),
            weather: Weather::CALM,
            sync_ms: (1, 10),
            answers: BTreeMap::new(),
            warnings: Vec::new(),
            bytes: 0,
            messages: 0,
            lost: 0,
            repeated: 0,
            ended: [0; 3],
            links: BTreeSet::new(),
            tuning,
            events: BTreeMap::new(),
            next_event: 0,
            next_proposal: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            log: blake3::Hasher::new(),
        };
        for host in 0..size {
            world.hosts.push(Host {
                machine: None,
                disk: SimDisk::default(),
                boot: 0,
                timer: None,
            });
            world.start(host);
        }
        world
    }

    /// The same, all linked with all.
    pub(super) fn mesh(size: usize, seed: u64) -> Self {
        let mut world = Self::new(size, seed);
        world.link_all();
        world
    }

    pub(super) fn link_all(&mut self) {
        for a in 0..self.hosts.len() {
            for b in a + 1..self.hosts.len() {
                self.link(a, b);
            }
        }
    }

    pub(super) fn clock(&self) -> Now {
        Now {
            mono: self.now,
            wall: 1_700_000_000_000 + self.now,
        }
    }

    pub(super) fn random(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below)
    }

    pub(super) fn machine(&self, host: usize) -> &Replication {
        self.hosts[host].machine.as_ref().unwrap()
    }

    pub(super) fn is_up(&self, host: usize) -> bool {
        self.hosts[host].machine.is_some()
    }

    pub(super) fn start(&mut self, host: usize) {
        let seed = self.rng.random();
        let clock = self.clock();
        let (id, tuning) = (self.ids[host], self.tuning);
        let state = &mut self.hosts[host];
        state.boot += 1;
        let document = state.disk.load(Actor::new(id, state.boot));
        let machine = Replication::new(id, state.boot, document, seal(id), seed, clock);
        state.machine = Some(machine.with_tuning(tuning));
        state.timer = None;
        self.set_timer(host);
    }

    /// Power fails: what had not synced is gone, or has just made it.
    pub(super) fn crash(&mut self, host: usize) {
        if let Some(machine) = self.hosts[host].machine.take() {
            let m = machine.metrics();
            let counts = [m.documents_adopted, m.disk_refusals, m.syncs_opened];
            self.ended
                .iter_mut()
                .zip(counts)
                .for_each(|(sum, count)| *sum += count);
        }
        let made_it = self.random(self.hosts[host].disk.waiting.len() + 1);
        let waiting: Vec<_> = self.hosts[host].disk.waiting.drain(..).collect();
        for (_, writes) in waiting.into_iter().take(made_it) {
            self.hosts[host].disk.apply(writes);
        }
        for other in 0..self.hosts.len() {
            self.unlink(host, other);
        }
    }

    pub(super) fn link(&mut self, a: usize, b: usize) {
        let up = self.is_up(a) && self.is_up(b);
        if up && a != b && self.links.insert((a.min(b), a.max(b))) {
            self.tell(a, Input::Connected(self.ids[b]));
            self.tell(b, Input::Connected(self.ids[a]));
        }
    }

    pub(super) fn unlink(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            self.tell(a, Input::Disconnected(self.ids[b]));
            self.tell(b, Input::Disconnected(self.ids[a]));
        }
    }

    pub(super) fn propose(&mut self, host: usize, commands: Vec<Command>) -> ProposalId {
        self.next_proposal += 1;
        let id = ProposalId(self.next_proposal);
        let author = "tester".to_owned();
        self.tell(
            host,
            Input::Propose {
                id,
                commands,
                author,
            },
        );
        id
    }

    pub(super) fn tell(&mut self, host: usize, input: Input) {
        let clock = self.clock();
        let Some(machine) = self.hosts[host].machine.as_mut() else {
            return;
        };
        self.log
            .update(format!("{clock:?} {host} < {input:?}").as_bytes());
        let effects = machine.handle(input, clock);
        self.perform(host, effects);
    }

    fn perform(&mut self, host: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(host, to, message),
                Effect::Persist { id, writes } => {
                    self.hosts[host].disk.waiting.push_back((id, writes));
                    let ms = self.rng.random_range(self.sync_ms.0..=self.sync_ms.1);
                    let boot = self.hosts[host].boot;
                    self.schedule(ms, Event::Sync { host, boot, id });
                }
                Effect::Proposed { id, result } => {
                    let result = result.map_err(|rejection| rejection.to_string());
                    let twice = self.answers.insert(id, (host, result));
                    assert!(twice.is_none(), "a proposal is answered once");
                }
                Effect::Warning(text) => self.warnings.push((host, text)),
                Effect::DesiredChanged | Effect::ObservedChanged(_) => {}
            }
        }
        self.set_timer(host);
    }

    fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let to = self.ids.iter().position(|id| *id == to).unwrap();
        self.messages += 1;
        self.bytes += encoded(&message) as u64;
        if self.rng.random_bool(self.weather.loss) {
            self.lost += 1;
            return;
        }
        let copies = 1 + u64::from(self.rng.random_bool(self.weather.repeat));
        self.repeated += copies - 1;
        for _ in 0..copies {
            let delay = self
                .rng
                .random_range(self.weather.delay.0..=self.weather.delay.1);
            let message = message.clone();
            self.schedule(delay, Event::Deliver { from, to, message });
        }
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.next_event += 1;
        self.events
            .insert((self.now + delay, self.next_event), event);
    }

    fn set_timer(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        let due = state.machine.as_ref().and_then(Replication::poll_timeout);
        if let Some(due) = due.filter(|due| state.timer.is_none_or(|set| *due < set)) {
            state.timer = Some(due);
            let delay = due.saturating_sub(self.now);
            self.schedule(delay, Event::Timer { host });
        }
    }

    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Runs until `done` or `end`. Returns whether it is done.
    pub(super) fn run_until(&mut self, end: u64, done: impl Fn(&Self) -> bool) -> bool {
        while !done(self) {
            let next = self.events.first_entry().filter(|next| next.key().0 <= end);
            let Some(((at, _), event)) = next.map(|next| next.remove_entry()) else {
                return false;
            };
            self.now = self.now.max(at);
            self.happen(event);
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, message } => {
                if self.links.contains(&(from.min(to), from.max(to))) {
                    let from = self.ids[from];
                    self.tell(to, Input::Message { from, message });
                }
            }
            Event::Sync { host, boot, id } => self.sync(host, boot, id),
            Event::Timer { host } => {
                if self.hosts[host].timer.is_some_and(|due| due <= self.now) {
                    self.hosts[host].timer = None;
                    let clock = self.clock();
                    if let Some(machine) = self.hosts[host].machine.as_mut() {
                        let effects = machine.handle_timeout(clock);
                        self.perform(host, effects);
                    }
                }
            }
        }
    }

    fn sync(&mut self, host: usize, boot: u64, id: PersistId) {
        let state = &mut self.hosts[host];
        if state.boot != boot
            || state
                .disk
                .waiting
                .front()
                .is_none_or(|(first, _)| *first != id)
        {
            return;
        }
        let (_, writes) = state.disk.waiting.pop_front().unwrap();
        if state.disk.broken {
            // Nobody knows whether a refused write is there; half of them are.
            if self.rng.random_bool(0.5) {
                self.hosts[host].disk.apply(writes);
            }
            let reason = "no space left on device".to_owned();
            self.tell(host, Input::PersistFailed { id, reason });
        } else {
            state.disk.apply(writes);
            self.tell(host, Input::Persisted(id));
        }
    }

    /// Whether all that run hold the same document and the same registers.
    pub(super) fn agrees(&self) -> bool {
        let mut up = self.hosts.iter().filter_map(|host| host.machine.as_ref());
        let Some(first) = up.next() else {
            return true;
        };
        up.all(|other| {
            first.fingerprint() == other.fingerprint() && first.observed() == other.observed()
        })
    }

    /// Documents adopted, writes refused and syncs opened, of all lives.
    pub(super) fn totals(&self) -> [u64; 3] {
        let up = self.hosts.iter().filter_map(|host| host.machine.as_ref());
        up.map(Replication::metrics)
            .fold(self.ended, |[a, r, s], m| {
                [
                    a + m.documents_adopted,
                    r + m.disk_refusals,
                    s + m.syncs_opened,
                ]
            })
    }

    pub(super) fn offences(&self) -> u64 {
        let up = self.hosts.iter().filter_map(|host| host.machine.as_ref());
        up.map(|machine| machine.metrics().offences).sum()
    }

    pub(super) fn log_hash(&self) -> blake3::Hash {
        self.log.finalize()
    }
}

pub(super) fn encoded(message: &Message) -> usize {
    let mut bytes = Vec::new();
    ciborium::into_writer(message, &mut bytes).unwrap();
    bytes.len()
}
