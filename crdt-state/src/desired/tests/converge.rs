//! Whatever happens in between, documents that have exchanged everything are one, and every
//! aspect holds the value with the greatest stamp that anybody ever wrote.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::Availability;

const NODES: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A node takes a command.
    Write(usize, u8, u8),
    /// Two nodes push what they have written so far, in an order that the seed shuffles, some of
    /// it twice and some of it not at all.
    Push(usize, usize, u64),
    /// Two nodes meet and run anti-entropy.
    Sync(usize, usize),
    /// A node compacts.
    Compact(usize),
    /// A node crashes and comes back from its disk.
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        8 => (node.clone(), any::<u8>(), any::<u8>()).prop_map(|(n, a, b)| Step::Write(n, a, b)),
        4 => (node.clone(), node.clone(), any::<u64>()).prop_map(|(a, b, s)| Step::Push(a, b, s)),
        2 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Sync(a, b)),
        1 => node.clone().prop_map(Step::Compact),
        1 => node.prop_map(Step::Restart),
    ]
}

fn command(kind: u8, detail: u8) -> Command {
    let name = format!("s{}", detail % 3);
    let n = u32::from(detail / 3);
    match kind % 7 {
        0 | 1 => deploy(&name, spec(&format!("image:{n}"))),
        2 => deploy(
            &name,
            ServiceSpec {
                command: vec![n.to_string()],
                ..spec("image:0")
            },
        ),
        3 => scale(&name, n),
        4 => Command::SetRunning {
            service: key(&name),
            running: detail.is_multiple_of(2),
        },
        5 => remove(&name),
        _ => Command::SetAvailability {
            node: node(detail % 2),
            availability: if detail < 128 {
                Availability::Drained
            } else {
                Availability::Active
            },
        },
    }
}

struct Peer {
    document: Document,
    saved: Bytes,
    log: Vec<Bytes>,
    /// Own changes of the current document.
    written: Vec<Bytes>,
}

struct World {
    peers: Vec<Peer>,
    boots: u8,
    /// The greatest stamp ever written of each aspect, with its value.
    oracle: BTreeMap<(ServiceKey, Aspect), (Stamp, Option<serde_json::Value>)>,
}

impl World {
    fn new() -> Self {
        let peers = (0..NODES).map(|n| {
            let document = Document::new(actor(u8::try_from(n).unwrap()));
            Peer {
                saved: document.save(),
                document,
                log: Vec::new(),
                written: Vec::new(),
            }
        });
        Self {
            peers: peers.collect(),
            boots: 100,
            oracle: BTreeMap::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Write(n, kind, detail) => self.write(n, &command(kind, detail)),
            Step::Push(a, b, seed) => self.push(a, b, seed),
            Step::Sync(a, b) => self.meet(a, b),
            Step::Compact(n) => {
                let peer = &mut self.peers[n];
                let before = peer.document.snapshot();
                peer.saved = peer.document.compact().unwrap();
                peer.log.clear();
                peer.written.clear();
                assert_eq!(peer.document.snapshot(), before);
            }
            Step::Restart(n) => {
                self.boots += 1;
                let actor = actor(self.boots);
                let peer = &mut self.peers[n];
                let loaded = Document::load(&peer.saved, &peer.log, actor).unwrap();
                assert_eq!(loaded.snapshot(), peer.document.snapshot());
                assert_eq!(loaded.fingerprint(), peer.document.fingerprint());
                peer.document = loaded;
            }
        }
    }

    fn write(&mut self, n: usize, command: &Command) {
        let peer = &mut self.peers[n];
        let commands = [command.clone()];
        if let Ok(Some(change)) = peer.document.propose(&commands, "ada", at(1)) {
            peer.log.push(change.clone());
            peer.written.push(change);
            self.observe(n);
        }
    }

    /// Notes what is current after a write.
    fn observe(&mut self, n: usize) {
        let document = &self.peers[n].document;
        for service in document.table.service_keys() {
            let history = document.history(service);
            for entry in history.into_iter().filter(|entry| entry.current) {
                let cells = document.table.service(service).unwrap();
                let stamp = cells.stamp(entry.aspect).unwrap();
                let newest = self
                    .oracle
                    .entry((service.clone(), entry.aspect))
                    .or_default();
                if stamp >= newest.0 {
                    *newest = (stamp, entry.value);
                }
            }
        }
    }

    fn push(&mut self, from: usize, to: usize, seed: u64) {
        if self.peers[from].document.id() != self.peers[to].document.id() {
            return;
        }
        let mut changes = self.peers[from].written.clone();
        let mut state = seed;
        let mut random = |n: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % n
        };
        for i in (1..changes.len()).rev() {
            changes.swap(i, random(i + 1));
        }
        if changes.len() > 2 {
            changes.push(changes[0].clone());
            changes.remove(1);
        }
        let peer = &mut self.peers[to];
        let applied = peer.document.apply_changes(&changes).unwrap();
        assert_eq!(applied.refused, []);
        peer.log.extend(applied.persist);
    }

    fn meet(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let (low, high) = (a.min(b), a.max(b));
        let (left, right) = self.peers.split_at_mut(high);
        let (x, y) = (&mut left[low], &mut right[0]);
        let (smaller, greater) = if x.document.id() < y.document.id() {
            (x, y)
        } else {
            (y, x)
        };
        if smaller.document.id() != greater.document.id() {
            let saved = greater.document.save();
            let adopted = smaller
                .document
                .adopt(&saved, greater.document.id())
                .unwrap();
            smaller.saved = adopted.saved;
            smaller.log.clear();
            smaller.written = adopted.carried;
        }
        sync_peers(smaller, greater);
    }

    fn heal(&mut self) {
        for _ in 0..2 {
            for a in 0..NODES {
                for b in 0..a {
                    self.meet(a, b);
                }
            }
        }
    }

    fn check(&self) {
        let first = &self.peers[0].document;
        for peer in &self.peers[1..] {
            assert_same(first, &peer.document);
            assert_eq!(first.conflicts(), peer.document.conflicts());
        }
        for peer in &self.peers {
            assert_eq!(peer.document.waiting(), 0);
            let loaded = Document::load(&peer.saved, &peer.log, actor(99)).unwrap();
            assert_eq!(loaded.snapshot(), first.snapshot());
        }
        assert_reads_the_same_from_disk(first);
        for ((service, aspect), (stamp, value)) in &self.oracle {
            let cells = first.table.service(service).unwrap();
            assert_eq!(cells.stamp(*aspect), Some(*stamp), "{service} {aspect}");
            let history = first.history(service);
            let current = history.iter().find(|e| e.current && e.aspect == *aspect);
            assert_eq!(&current.unwrap().value, value, "{service} {aspect}");
        }
    }
}

fn sync_peers(a: &mut Peer, b: &mut Peer) {
    let (mut with_b, mut with_a) = (SyncSession::new(), SyncSession::new());
    for _ in 0..100 {
        let to_b = a.document.generate_step(&mut with_b);
        if let Some(step) = &to_b {
            let applied = b.document.receive_step(&mut with_a, step).unwrap();
            assert_eq!(applied.refused, []);
            b.log.extend(applied.persist);
        }
        let to_a = b.document.generate_step(&mut with_a);
        if let Some(step) = &to_a {
            let applied = a.document.receive_step(&mut with_b, step).unwrap();
            assert_eq!(applied.refused, []);
            a.log.extend(applied.persist);
        }
        if to_a.is_none() && to_b.is_none() {
            return;
        }
    }
    panic!("anti-entropy does not come to an end");
}

/// Two nodes wait for changes of a third, and asked each other for ever for one that both had.
#[test]
fn what_is_here_is_not_asked_for() {
    let mut world = World::new();
    for step in [
        Step::Write(3, 56, 0),
        Step::Write(2, 7, 82),
        Step::Write(2, 112, 0),
        Step::Push(3, 2, 0),
        Step::Write(2, 0, 1),
        Step::Write(2, 0, 2),
        Step::Push(2, 1, 15_886_382_401_771_956_590),
        Step::Write(2, 91, 3),
        Step::Push(2, 0, 2_362_353_382_311_441_702),
    ] {
        world.run(&step);
    }
    world.heal();
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn all_nodes_agree_in_the_end(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        world.heal();
        world.check();
    }

    /// A snapshot kept up to date key by key is the snapshot of the document.
    #[test]
    fn the_incremental_snapshot_is_the_whole_one(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
            for peer in &world.peers {
                let whole = table::Table::read(&peer.document.engine);
                prop_assert_eq!(whole.desired(), &peer.document.snapshot());
            }
        }
    }
}
