use proptest::prelude::*;

use super::*;

fn id(index: u8) -> NodeId {
    NodeId::from_bytes([index; 32])
}

fn slot() -> SlotId {
    SlotId {
        service: "db".parse().unwrap(),
        slot: dunlin_state::model::Slot::Replica(0),
    }
}

/// Five nodes, of which the first three vote; each has a clock of its own speed.
struct World {
    nodes: Vec<Leases>,
    now: u64,
    /// What runs, and until when its runtime lets it.
    runs: BTreeMap<u8, u64>,
    queue: BTreeMap<(u64, u64), (u8, u8, Message)>,
    seq: u64,
    cut: Vec<(u8, u8)>,
    /// Percent by which each clock is faster.
    drift: [u64; 5],
}

impl World {
    fn new(drift: [u64; 5]) -> Self {
        Self {
            nodes: (0..5)
                .map(|n| Leases::new(id(n), u64::from(n), 0))
                .collect(),
            now: 0,
            runs: BTreeMap::new(),
            queue: BTreeMap::new(),
            seq: 0,
            cut: Vec::new(),
            drift,
        }
    }

    /// What a node's clock shows.
    fn clock(&self, node: u8) -> u64 {
        self.now * (100 + self.drift[usize::from(node)]) / 100
    }

    fn want(&mut self, node: u8, wants: bool) {
        let wanted = wants.then(|| (slot(), vec![id(0), id(1), id(2)]));
        let now = self.clock(node);
        let effects = self.nodes[usize::from(node)].want(wanted.into_iter().collect(), now);
        if !wants {
            self.runs.remove(&node);
        }
        self.perform(node, effects);
    }

    fn perform(&mut self, node: u8, effects: Vec<Effect>) {
        for effect in effects {
            let Effect::Send { to, message } = effect else {
                continue;
            };
            let to = to.as_bytes()[0];
            if !self.cut.contains(&(node, to)) {
                self.seq += 1;
                self.queue
                    .insert((self.now + 20, self.seq), (node, to, message));
            }
        }
    }

    /// Lets time pass, and has everyone run what it may.
    fn run(&mut self, duration: u64) {
        let end = self.now + duration;
        while self.now < end {
            self.now += 10;
            while let Some((&key, _)) = self
                .queue
                .first_key_value()
                .filter(|(k, _)| k.0 <= self.now)
            {
                let (from, to, message) = self.queue.remove(&key).unwrap();
                let now = self.clock(to);
                let effects = self.nodes[usize::from(to)].handle(id(from), message, now);
                self.perform(to, effects);
            }
            for node in 0..5 {
                let now = self.clock(node);
                let leases = &mut self.nodes[usize::from(node)];
                if leases.poll_timeout().is_some_and(|at| at <= now) {
                    let effects = leases.handle_timeout(now);
                    self.perform(node, effects);
                }
                let leases = &self.nodes[usize::from(node)];
                let holds = leases.held.contains_key(&slot());
                if holds
                    && leases
                        .bars(&slot(), self.runs.contains_key(&node), now)
                        .is_none()
                {
                    self.runs.insert(node, leases.until(&slot()));
                }
                // The runtime kills at the last moment, and nobody stops before.
                if self.runs.get(&node).is_some_and(|until| *until <= now) {
                    self.runs.remove(&node);
                }
            }
            assert!(self.runs.len() <= 1, "{:?} run at {}", self.runs, self.now);
        }
    }
}

#[test]
fn one_of_two_gets_it_and_the_other_when_it_is_released() {
    let mut world = World::new([0; 5]);
    world.run(VOTE_MS);
    world.want(3, true);
    world.want(4, true);
    world.run(30_000);
    let first = *world.runs.keys().next().unwrap();
    world.run(30_000);
    assert!(world.runs.contains_key(&first), "it keeps what it has");
    world.want(first, false);
    world.run(10_000);
    assert!(world.runs.contains_key(&(7 - first)));
}

#[test]
fn who_cannot_reach_a_majority_stops_and_another_takes_over() {
    let mut world = World::new([0; 5]);
    world.run(VOTE_MS);
    world.want(3, true);
    world.run(5_000);
    assert!(world.runs.contains_key(&3));
    world.cut = vec![(3, 0), (0, 3), (3, 1), (1, 3)];
    world.want(4, true);
    world.run(VOTE_MS + 8_000);
    assert!(world.runs.contains_key(&4) && !world.runs.contains_key(&3));
}

#[test]
fn a_voter_that_has_just_started_gives_no_votes() {
    let mut world = World::new([0; 5]);
    world.run(VOTE_MS);
    world.want(3, true);
    world.run(5_000);
    // Two voters lose their memory, and cannot be reached by the holder any more.
    for voter in [0, 1] {
        world.nodes[usize::from(voter)] = Leases::new(id(voter), 9, world.now);
        world.cut.extend([(3, voter), (voter, 3)]);
    }
    world.want(4, true);
    world.run(30_000);
    assert!(world.runs.contains_key(&4));
}

#[test]
fn a_forged_answer_lengthens_nothing() {
    let mut leases = Leases::new(id(3), 1, 0);
    let _ = leases.want([(slot(), vec![id(0), id(1), id(2)])].into(), 100);
    for voter in 0..2 {
        let forged = Message::Granted {
            slot: slot(),
            sent: u64::MAX,
        };
        let _ = leases.handle(id(voter), forged, 100);
    }
    assert_eq!(leases.until(&slot()), 100 + HOLD_MS);
    let stranger = Message::Granted {
        slot: slot(),
        sent: 0,
    };
    let _ = leases.handle(id(4), stranger, 100);
    assert_eq!(leases.held[&slot()].granted.len(), 2);
}

/// Each case is minutes of five nodes.
fn fewer_cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases / 8,
        ..usual
    }
}

proptest! {
    #![proptest_config(fewer_cases())]
    /// Whatever is cut and whoever wants it, and with clocks that differ by a tenth, never two run.
    #[test]
    fn never_two_run(
        drift in proptest::array::uniform5(0..10_u64),
        steps in proptest::collection::vec((0..5_u8, any::<bool>(), 0..25_u32, 200..9_000_u64), 1..14),
    ) {
        let mut world = World::new(drift);
        world.run(2_000);
        for (node, wants, cut, pause) in steps {
            world.want(node, wants);
            let pair = ((cut / 5) as u8, (cut % 5) as u8);
            if world.cut.len() > 8 {
                world.cut.clear();
            } else {
                world.cut.push(pair);
            }
            if cut == 7 {
                let now = world.clock(node);
                world.nodes[usize::from(node)] = Leases::new(id(node), 3, now);
                world.runs.remove(&node);
            }
            world.run(pause);
        }
    }
}
