use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::Now;
use dunlin_state::model::NodeId;
use proptest::prelude::*;

use super::*;

fn node(number: usize) -> NodeId {
    NodeId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn at(mono: u64) -> Now {
    Now { mono, wall: 0 }
}

/// Overlays on one perfect network with instant connections, but for blocked pairs.
struct World {
    now: u64,
    overlays: BTreeMap<NodeId, Overlay>,
    edges: BTreeSet<(NodeId, NodeId)>,
    blocked: BTreeSet<(NodeId, NodeId)>,
    dials: u64,
    double_dials: u64,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    if a < b { (a, b) } else { (b, a) }
}

impl World {
    fn new(size: usize) -> Self {
        let ids: Vec<NodeId> = (0..size).map(node).collect();
        let mut world = Self {
            now: 0,
            overlays: BTreeMap::new(),
            edges: BTreeSet::new(),
            blocked: BTreeSet::new(),
            dials: 0,
            double_dials: 0,
        };
        for (seed, id) in ids.iter().enumerate() {
            world.overlays.insert(*id, Overlay::new(*id, seed as u64));
        }
        for id in &ids {
            for other in &ids {
                world.tell(*id, Input::Alive(*other));
            }
        }
        world
    }

    fn tell(&mut self, to: NodeId, input: Input) {
        let effects = self
            .overlays
            .get_mut(&to)
            .unwrap()
            .handle(input, at(self.now));
        self.perform(to, effects);
    }

    fn perform(&mut self, by: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect(other) => {
                    self.dials += 1;
                    let edge = pair(by, other);
                    if self.blocked.contains(&edge) || !self.overlays.contains_key(&other) {
                        continue;
                    }
                    if !self.edges.insert(edge) {
                        self.double_dials += 1;
                        continue;
                    }
                    self.tell(by, Input::Connected(other));
                    self.tell(other, Input::Connected(by));
                }
                Effect::Disconnect(other) => self.cut(by, other),
            }
        }
    }

    fn cut(&mut self, a: NodeId, b: NodeId) {
        if self.edges.remove(&pair(a, b)) {
            for (one, other) in [(a, b), (b, a)] {
                if self.overlays.contains_key(&one) {
                    self.tell(one, Input::Disconnected(other));
                }
            }
        }
    }

    fn crash(&mut self, id: NodeId) {
        self.overlays.remove(&id);
        let edges: Vec<_> = self
            .edges
            .iter()
            .copied()
            .filter(|e| e.0 == id || e.1 == id)
            .collect();
        for (a, b) in edges {
            self.cut(a, b);
        }
        let others: Vec<NodeId> = self.overlays.keys().copied().collect();
        for other in others {
            self.tell(other, Input::Gone(id));
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let next = self
                .overlays
                .iter()
                .filter_map(|(id, o)| Some((o.poll_timeout()?, *id)))
                .min();
            let Some((due, id)) = next.filter(|(due, _)| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            let effects = self
                .overlays
                .get_mut(&id)
                .unwrap()
                .handle_timeout(at(self.now));
            self.perform(id, effects);
        }
        self.now = end;
    }

    fn degrees(&self) -> BTreeMap<NodeId, usize> {
        let mut degrees: BTreeMap<NodeId, usize> =
            self.overlays.keys().map(|id| (*id, 0)).collect();
        for (a, b) in &self.edges {
            *degrees.get_mut(a).unwrap() += 1;
            *degrees.get_mut(b).unwrap() += 1;
        }
        degrees
    }

    fn components(&self) -> usize {
        components(self.overlays.keys().copied(), self.edges.iter().copied())
    }
}

/// Counts connected components with a union-find.
fn components(
    nodes: impl Iterator<Item = NodeId>,
    edges: impl Iterator<Item = (NodeId, NodeId)>,
) -> usize {
    let mut parent: BTreeMap<NodeId, NodeId> = nodes.map(|id| (id, id)).collect();
    let root = |parent: &BTreeMap<NodeId, NodeId>, mut id: NodeId| {
        while parent[&id] != id {
            id = parent[&id];
        }
        id
    };
    let mut count = parent.len();
    for (a, b) in edges {
        let (a, b) = (root(&parent, a), root(&parent, b));
        if a != b {
            parent.insert(a, b);
            count -= 1;
        }
    }
    count
}

#[test]
fn small_clusters_are_a_full_mesh_without_double_dials() {
    for size in [1, 2, 3, 9, 17] {
        let mut world = World::new(size);
        world.run(30_000);
        assert_eq!(world.edges.len(), size * (size - 1) / 2, "{size} nodes");
        assert_eq!(world.double_dials, 0, "{size} nodes");
    }
}

#[test]
fn larger_clusters_are_connected_within_the_degree_bounds() {
    for size in [18, 19, 20, 24, 32, 50, 100] {
        let mut world = World::new(size);
        world.run(60_000);
        let degrees = world.degrees();
        assert_eq!(world.components(), 1, "{size} nodes");
        for (id, degree) in &degrees {
            assert!(
                (MIN..=MAX).contains(degree),
                "{size} nodes: {id:?} has {degree}"
            );
        }
        let dials = world.dials;
        world.run(600_000);
        assert_eq!(
            world.dials, dials,
            "{size} nodes: a settled overlay keeps still"
        );
    }
}

#[test]
fn rings_alone_connect_any_size_and_survive_the_loss_of_a_third() {
    for size in [10, 33, 100, 321, 1_000] {
        let mut rings = Rings::default();
        let ids: Vec<NodeId> = (0..size).map(node).collect();
        for id in &ids {
            rings.insert(*id);
        }
        let near: BTreeMap<NodeId, BTreeSet<NodeId>> =
            ids.iter().map(|id| (*id, rings.neighbours(*id))).collect();
        let mut edges = BTreeSet::new();
        for (id, neighbours) in &near {
            assert!(neighbours.len() <= TARGET && !neighbours.contains(id));
            assert!(neighbours.iter().all(|other| near[other].contains(id)));
            edges.extend(neighbours.iter().map(|other| pair(*id, *other)));
        }
        assert_eq!(components(ids.iter().copied(), edges.iter().copied()), 1);
        // The same edges, before anyone repairs anything.
        let left: BTreeSet<NodeId> = ids.iter().copied().skip(size / 3).collect();
        let edges = edges
            .into_iter()
            .filter(|(a, b)| left.contains(a) && left.contains(b));
        assert_eq!(components(left.iter().copied(), edges), 1, "{size} nodes");
    }
}

#[test]
fn a_newcomer_changes_few_edges() {
    let mut rings = Rings::default();
    let ids: Vec<NodeId> = (0..500).map(node).collect();
    for id in &ids {
        rings.insert(*id);
    }
    let before: Vec<_> = ids.iter().map(|id| rings.neighbours(*id)).collect();
    rings.insert(node(9_999));
    let changed = ids
        .iter()
        .zip(before)
        .filter(|(id, old)| rings.neighbours(**id) != *old);
    assert!(changed.count() <= TARGET);
}

#[test]
fn the_greater_key_dials_when_the_smaller_does_not() {
    let (low, high) = pair(node(1), node(2));
    let mut overlay = Overlay::new(high, 7);
    assert_eq!(overlay.handle(Input::Alive(low), at(0)), []);
    assert_eq!(overlay.handle_timeout(at(GRACE_MS - 1)), []);
    assert_eq!(
        overlay.handle_timeout(at(GRACE_MS + SETTLE_MS)),
        [Effect::Connect(low)]
    );

    let mut overlay = Overlay::new(low, 7);
    overlay.handle(Input::Alive(high), at(0));
    assert_eq!(
        overlay.handle_timeout(at(SETTLE_MS)),
        [Effect::Connect(high)]
    );
}

#[test]
fn attempts_back_off_and_start_afresh_when_the_member_returns() {
    let (low, high) = pair(node(1), node(2));
    let mut overlay = Overlay::new(low, 7);
    overlay.handle(Input::Alive(high), at(0));
    let mut dials = Vec::new();
    let mut now = 0;
    while now < 300_000 {
        now = overlay.poll_timeout().unwrap();
        dials.extend(overlay.handle_timeout(at(now)).iter().map(|_| now));
    }
    let gaps: Vec<u64> = dials.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(gaps[0] <= DIAL_MS + BACKOFF_MIN_MS);
    assert!(gaps.iter().all(|gap| *gap <= DIAL_MS + BACKOFF_MAX_MS));
    assert!(*gaps.last().unwrap() >= DIAL_MS + BACKOFF_MAX_MS / 2);
    overlay.handle(Input::Gone(high), at(now));
    assert_eq!(overlay.poll_timeout(), None);
    overlay.handle(Input::Alive(high), at(now));
    assert!(overlay.poll_timeout().unwrap() <= now + SETTLE_MS);
}

#[test]
fn unreachable_neighbours_are_replaced() {
    let mut world = World::new(60);
    let me = node(0);
    let neighbours = world.overlays[&me].wanted().clone();
    for other in neighbours.iter().take(neighbours.len() - 2) {
        world.blocked.insert(pair(me, *other));
    }
    world.run(120_000);
    assert!(world.degrees()[&me] >= MIN);
    assert_eq!(world.components(), 1);
}

#[test]
fn a_crashed_third_is_repaired() {
    let mut world = World::new(60);
    world.run(60_000);
    for number in 0..20 {
        world.crash(node(number));
    }
    assert_eq!(world.components(), 1, "still connected before any repair");
    world.run(60_000);
    let degrees = world.degrees();
    assert!(
        degrees.values().all(|degree| (MIN..=MAX).contains(degree)),
        "{degrees:?}"
    );
}

#[test]
fn a_stranger_keeps_its_connection_for_a_while() {
    let (low, high) = pair(node(1), node(2));
    let mut overlay = Overlay::new(low, 7);
    overlay.handle(Input::Alive(high), at(0));
    overlay.handle(Input::Connected(high), at(10));
    assert_eq!(overlay.handle(Input::Gone(high), at(100_000)), []);
    assert_eq!(overlay.handle_timeout(at(100_000 + STRANGER_MS - 1)), []);
    let cut = overlay.handle_timeout(at(100_000 + STRANGER_MS));
    assert_eq!(cut, [Effect::Disconnect(high)]);
}

proptest! {
    /// Whatever order news comes in, the machine stays within bounds, never dials itself or a
    /// connected peer, and its next timeout is never stuck in the past.
    #[test]
    fn any_order_of_news_is_survived(steps in prop::collection::vec((0..4u8, 0..40usize, 0..3_000u64), 1..200)) {
        let me = node(0);
        let mut overlay = Overlay::new(me, 3);
        let mut now = 0;
        for (kind, number, wait) in steps {
            now += wait;
            let mut effects = overlay.handle_timeout(at(now));
            let other = node(number);
            let input = match kind {
                0 => Input::Alive(other),
                1 => Input::Gone(other),
                2 => Input::Connected(other),
                _ => Input::Disconnected(other),
            };
            effects.extend(overlay.handle(input, at(now)));
            for effect in effects {
                let (Effect::Connect(target) | Effect::Disconnect(target)) = effect;
                prop_assert_ne!(target, me);
            }
            overlay.handle_timeout(at(now));
            prop_assert!(overlay.poll_timeout().is_none_or(|due| due > now));
            prop_assert!(overlay.wanted().len() <= TARGET + MIN);
        }
    }
}
