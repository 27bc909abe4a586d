//! A network of membership machines under a virtual clock: latency, loss, duplication,
//! reordering, one-way cuts, stalls, crashes. One seed, one run.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use dunlin_gossip::membership::{
    Effect, Input, MemberEvent, MemberId, MemberState, Membership, Profile,
};
use dunlin_state::Now;
use dunlin_state::model::NodeId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a datagram costs beside its plain text, bytes: seal, UDP, IPv4.
const OVERHEAD: u64 = 28 + 28;
/// The core's check of a "down": how long it waits for an answer, and for how long the member
/// must have been silent, ms.
const CHECK_WAIT: u64 = 1_000;
const CHECK_SILENCE: u64 = 2_000;
/// Datagrams that wait for a process that stands still; as many as a socket buffer holds.
const SOCKET_BUFFER: usize = 256;

/// What the network does to datagrams.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// One way, ms, uniform; a wide range reorders.
    pub latency: (u64, u64),
    /// Share lost.
    pub loss: f64,
    /// Share delivered twice.
    pub duplicates: f64,
    /// Whether the reliable path works.
    pub reliable: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            latency: (1, 20),
            loss: 0.0,
            duplicates: 0.0,
            reliable: true,
        }
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Datagrams and their bytes with overhead.
    pub datagrams: u64,
    pub bytes: u64,
    /// Messages over the reliable path.
    pub reliable: u64,
    /// Beliefs "suspect" and "down" about processes that live.
    pub false_suspect: u64,
    pub false_down: u64,
    /// Of those, how many the core's check would have let pass.
    pub false_moves: u64,
    /// Stalls that happened, datagrams that were lost.
    pub stalls: u64,
    pub lost: u64,
}

enum Happening {
    Datagram {
        to: usize,
        from: usize,
        bytes: Bytes,
    },
    Reliable {
        to: usize,
        from: usize,
        bytes: Bytes,
    },
    Timer {
        node: usize,
    },
    Thaw {
        node: usize,
    },
    Check {
        observer: usize,
        member: usize,
        down_at: u64,
    },
}

struct Node {
    machine: Membership,
    boot: u64,
    up: bool,
    frozen_until: u64,
    waiting: Vec<Input>,
    timer: Option<u64>,
}

/// All of it.
pub struct Sim {
    pub now: u64,
    pub network: Network,
    pub figures: Figures,
    /// Every event, with its time and observer.
    pub log: Vec<(u64, usize, MemberEvent)>,
    nodes: Vec<Node>,
    /// Ordered pairs between which datagrams vanish, or everything.
    lossy_cuts: BTreeSet<(usize, usize)>,
    cuts: BTreeSet<(usize, usize)>,
    happenings: BTreeMap<(u64, u64), Happening>,
    order: u64,
    rng: ChaCha8Rng,
    seed: u64,
    profile: Profile,
    hash: u64,
}

pub fn node_id(index: usize) -> NodeId {
    let mut key = [0; 32];
    // Spread, so that the order of nodes is not the order of keys.
    let spread = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    key[..8].copy_from_slice(&spread.to_be_bytes());
    key[8..16].copy_from_slice(&(index as u64).to_be_bytes());
    NodeId::from_bytes(key)
}

fn index_of(node: NodeId) -> usize {
    let mut index = [0; 8];
    index.copy_from_slice(&node.as_bytes()[8..16]);
    u64::from_be_bytes(index) as usize
}

pub fn address(index: usize) -> SocketAddr {
    let [_, _, high, low] = (index as u32).to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, high, low), 7000))
}

impl Sim {
    pub fn new(count: usize, profile: Profile, network: Network, seed: u64) -> Self {
        let mut sim = Self {
            now: 1_000_000,
            network,
            figures: Figures::default(),
            log: Vec::new(),
            nodes: Vec::new(),
            lossy_cuts: BTreeSet::new(),
            cuts: BTreeSet::new(),
            happenings: BTreeMap::new(),
            order: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            seed,
            profile,
            hash: 0xcbf2_9ce4_8422_2325,
        };
        for index in 0..count {
            let machine = sim.machine(index, 1);
            sim.nodes.push(Node {
                machine,
                boot: 1,
                up: true,
                frozen_until: 0,
                waiting: Vec::new(),
                timer: None,
            });
            sim.plan(index);
        }
        sim
    }

    /// A cluster whose members all know each other.
    pub fn joined(count: usize, profile: Profile, network: Network, seed: u64) -> Self {
        let mut sim = Self::new(count, profile, network, seed);
        for index in 1..count {
            sim.advance(1 + 2_000 / count as u64);
            sim.join(index, index / 4);
        }
        assert!(sim.settle(120_000), "the cluster never forms");
        sim
    }

    fn machine(&self, index: usize, boot: u64) -> Membership {
        let me = MemberId {
            node: node_id(index),
            boot,
            address: address(index),
        };
        let seed = self.seed ^ ((index as u64) << 32) ^ boot;
        Membership::new(me, self.profile, seed, self.time())
    }

    fn time(&self) -> Now {
        Now {
            mono: self.now,
            wall: self.now,
        }
    }

    pub fn machine_of(&self, index: usize) -> &Membership {
        &self.nodes[index].machine
    }

    pub fn join(&mut self, index: usize, through: usize) {
        let address = address(through);
        self.input(index, Input::Join { address });
    }

    pub fn leave(&mut self, index: usize) {
        self.input(index, Input::Leave);
    }

    pub fn input(&mut self, index: usize, input: Input) {
        let now = self.time();
        let effects = self.nodes[index].machine.handle(input, now);
        self.perform(index, effects);
    }

    /// Whether every process that runs holds all others that run for alive, in their present life.
    pub fn agreed(&self) -> bool {
        (0..self.nodes.len()).all(|index| !self.nodes[index].up || self.sees_all(index))
    }

    fn sees_all(&self, index: usize) -> bool {
        let alive = self.nodes[index]
            .machine
            .members()
            .filter(|view| view.state == MemberState::Alive)
            .filter(|view| self.nodes[index_of(view.id.node)].boot == view.id.boot)
            .filter(|view| self.nodes[index_of(view.id.node)].up)
            .count();
        let listed = self.nodes[index]
            .machine
            .members()
            .filter(|view| matches!(view.state, MemberState::Alive | MemberState::Suspect))
            .count();
        let others = self.nodes.iter().filter(|node| node.up).count() - 1;
        alive == others && listed == others
    }

    /// What everybody but `index` believes of it.
    pub fn beliefs(&self, index: usize) -> BTreeSet<Option<MemberState>> {
        let others = (0..self.nodes.len()).filter(|other| *other != index);
        others
            .filter(|other| self.nodes[*other].up)
            .map(|other| self.nodes[other].machine.state_of(node_id(index)))
            .collect()
    }

    /// Runs until all agree, at most so long. Steps are coarse where there are many to ask.
    pub fn settle(&mut self, within: u64) -> bool {
        let step = 10 + self.nodes.len() as u64;
        let end = self.now + within;
        while self.now < end {
            if self.agreed() {
                return true;
            }
            self.advance(step);
        }
        self.agreed()
    }

    /// Runs until `done`, at most so long; how long it took.
    pub fn until(&mut self, within: u64, done: impl Fn(&Self) -> bool) -> Option<u64> {
        let start = self.now;
        while !done(self) {
            if self.now >= start + within {
                return None;
            }
            self.advance(10);
        }
        Some(self.now - start)
    }

    /// Lets time pass.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(entry) = self.happenings.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.now = entry.key().0;
            let happening = entry.remove();
            self.happen(happening);
        }
        self.now = end;
    }

    /// A digest of everything that was sent and believed.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { to, from, bytes } => {
                let from = address(from);
                self.deliver(to, Input::Datagram { from, bytes });
            }
            Happening::Reliable { to, from, bytes } => {
                let from = node_id(from);
                self.deliver(to, Input::Reliable { from, bytes });
            }
            Happening::Timer { node } => self.timer(node),
            Happening::Thaw { node } => self.thaw(node),
            Happening::Check {
                observer,
                member,
                down_at,
            } => self.check(observer, member, down_at),
        }
    }

    fn deliver(&mut self, to: usize, input: Input) {
        if !self.nodes[to].up {
            return;
        }
        if self.is_frozen(to) {
            if self.nodes[to].waiting.len() < SOCKET_BUFFER {
                self.nodes[to].waiting.push(input);
            }
            return;
        }
        self.input(to, input);
    }

    fn timer(&mut self, index: usize) {
        if self.nodes[index].timer != Some(self.now) {
            return;
        }
        self.nodes[index].timer = None;
        if !self.nodes[index].up || self.is_frozen(index) {
            return;
        }
        let now = self.time();
        let effects = self.nodes[index].machine.handle_timeout(now);
        self.perform(index, effects);
    }

    /// The process runs again. Whether it looks at its clock or its socket first is chance.
    fn thaw(&mut self, index: usize) {
        if !self.nodes[index].up || self.is_frozen(index) {
            return;
        }
        let now = self.time();
        if self.rng.random_bool(0.5) {
            let effects = self.nodes[index].machine.handle_timeout(now);
            self.perform(index, effects);
        }
        for input in std::mem::take(&mut self.nodes[index].waiting) {
            self.input(index, input);
        }
        self.nodes[index].timer = None;
        self.plan(index);
    }

    fn perform(&mut self, from: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } => self.send(from, to, bytes),
                Effect::SendReliable { to, bytes } => self.send_reliably(from, index_of(to), bytes),
                Effect::Event(event) => self.observe(from, event),
            }
        }
        self.plan(from);
    }

    fn send(&mut self, from: usize, to: SocketAddr, bytes: Bytes) {
        assert!(bytes.len() <= 1150, "datagram of {} bytes", bytes.len());
        self.digest(&bytes);
        self.figures.datagrams += 1;
        self.figures.bytes += bytes.len() as u64 + OVERHEAD;
        let SocketAddr::V4(v4) = to else { return };
        let [_, _, high, low] = v4.ip().octets();
        let to = usize::from(high) << 8 | usize::from(low);
        if to >= self.nodes.len() || to == from {
            return;
        }
        let copies = 1 + u32::from(self.rng.random_bool(self.network.duplicates));
        for _ in 0..copies {
            let cut = self.cuts.contains(&(from, to)) || self.lossy_cuts.contains(&(from, to));
            if self.rng.random_bool(self.network.loss) || cut {
                self.figures.lost += 1;
                continue;
            }
            let due = self.now + self.latency();
            let bytes = bytes.clone();
            self.push(due, Happening::Datagram { to, from, bytes });
        }
    }

    /// A reliable message is late where datagrams are lost: it is sent again.
    fn send_reliably(&mut self, from: usize, to: usize, bytes: Bytes) {
        self.digest(&bytes);
        self.figures.reliable += 1;
        let cut = self.cuts.contains(&(from, to)) || self.cuts.contains(&(to, from));
        if cut || !self.network.reliable {
            return;
        }
        let mut due = self.now + self.latency();
        let mut wait = 40;
        while self.rng.random_bool(self.network.loss) && wait < 1_000 {
            due += wait;
            wait *= 2;
        }
        self.push(due, Happening::Reliable { to, from, bytes });
    }

    fn latency(&mut self) -> u64 {
        let (least, most) = self.network.latency;
        self.rng.random_range(least..=most)
    }

    fn observe(&mut self, observer: usize, event: MemberEvent) {
        self.digest(format!("{observer}{event:?}").as_bytes());
        self.log.push((self.now, observer, event));
        let (member, down) = match event {
            MemberEvent::Suspect(member) => (member, false),
            MemberEvent::Down(member) => (member, true),
            MemberEvent::Alive(_) | MemberEvent::Left(_) => return,
        };
        let index = index_of(member.node);
        let node = &self.nodes[index];
        let cut = self.cuts.contains(&(observer, index)) || self.cuts.contains(&(index, observer));
        if !node.up || node.boot != member.boot || cut {
            return;
        }
        if !down {
            self.figures.false_suspect += 1;
            return;
        }
        self.figures.false_down += 1;
        if node.frozen_until > self.now + CHECK_WAIT {
            let due = self.now + CHECK_WAIT;
            let down_at = self.now;
            let member = index;
            self.push(
                due,
                Happening::Check {
                    observer,
                    member,
                    down_at,
                },
            );
        }
    }

    /// The core's own probe was not answered: does its other condition hold too?
    fn check(&mut self, observer: usize, member: usize, down_at: u64) {
        let machine = &self.nodes[observer].machine;
        let heard = machine.last_heard(node_id(member)).unwrap_or(0);
        let down = machine.state_of(node_id(member)) == Some(MemberState::Down);
        if down && heard < down_at && self.now - heard >= CHECK_SILENCE {
            self.figures.false_moves += 1;
        }
    }

    fn plan(&mut self, index: usize) {
        let node = &self.nodes[index];
        let Some(due) = node.machine.poll_timeout() else {
            return;
        };
        let due = due.max(self.now);
        if node
            .timer
            .is_none_or(|planned| planned > due || planned < self.now)
        {
            self.nodes[index].timer = Some(due);
            self.push(due, Happening::Timer { node: index });
        }
    }

    fn push(&mut self, due: u64, happening: Happening) {
        self.order += 1;
        self.happenings.insert((due, self.order), happening);
    }

    fn digest(&mut self, bytes: &[u8]) {
        for byte in self.now.to_be_bytes().iter().chain(bytes) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
