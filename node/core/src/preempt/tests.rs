use std::sync::Arc;

use dunlin_state::desired::Service;
use dunlin_state::model::{NodeId, NodeReport};
use proptest::prelude::*;

use super::*;
use crate::liveness::Standing;

fn key(name: &str) -> ServiceKey {
    name.parse().unwrap()
}

fn spec(cpu_millis: u64, priority: i32) -> ServiceSpec {
    ServiceSpec {
        command: vec!["serve".to_owned()],
        reservation: Resources {
            cpu_millis,
            ..Resources::ZERO
        },
        policy: Policy {
            priority,
            ..Policy::default()
        },
        ..ServiceSpec::default()
    }
}

/// A node of four cores with a replica of each of these services, by CPU and priority: `s0`, `s1`, …
struct Node {
    desired: Desired,
    claims: Vec<Claim>,
    bare: NodeView,
}

impl Node {
    fn with(replicas: &[(u64, i32)]) -> Self {
        let mut desired = Desired::default();
        let mut claims = Vec::new();
        for (index, (cpu, priority)) in replicas.iter().enumerate() {
            let spec = spec(*cpu, *priority);
            let service = key(&format!("s{index}"));
            let slot = Slot::Replica(0);
            let slot = SlotId { service, slot };
            claims.push(Claim::won(slot.clone(), 1, "r", &spec, 0));
            let service = Service {
                spec: Arc::new(spec),
                revision: "r".to_owned(),
                replicas: 1,
                running: true,
                rollout: Default::default(),
                jobs: Default::default(),
            };
            desired.services.insert(slot.service, service);
        }
        let report = NodeReport {
            capacity: Resources {
                cpu_millis: 4_000,
                ..Resources::ZERO
            },
            runtimes: vec!["process".to_owned()],
            disk_ok: true,
            ..NodeReport::default()
        };
        let me = NodeId::from_bytes([1; 32]);
        let bare = NodeView::conditions(me, &report, Standing::Alive, &desired);
        Self {
            desired,
            claims,
            bare,
        }
    }

    fn evict(&self, cpu: u64, priority: i32, slots: u32) -> Result<Vec<Eviction>, Vec<Reason>> {
        let claims: Vec<&Claim> = self.claims.iter().collect();
        let room = Room {
            desired: &self.desired,
            bare: &self.bare,
            claims: &claims,
            going: &BTreeSet::new(),
        };
        let spec = spec(cpu, priority);
        evictions(&key("new"), &spec, &spec.policy, room, slots)
    }

    /// The services that go for one replica.
    fn victims(&self, cpu: u64, priority: i32) -> Option<Vec<String>> {
        let found = self.evict(cpu, priority, 1).ok()?.remove(0).victims;
        let names = found.iter().map(|slot| slot.service.name().to_owned());
        Some(names.collect())
    }
}

/// What runs there, what the newcomer needs, and who goes for it.
type Case<'a> = (&'a [(u64, i32)], u64, Option<&'a [&'a str]>);

#[test]
fn the_lowest_priority_goes_and_then_the_fewest_and_smallest() {
    let table: &[Case<'_>] = &[
        // The lower priority, although the other is smaller.
        (&[(2_000, 1), (1_500, 2)], 1_000, Some(&["s0"])),
        // The smallest single one that is enough.
        (&[(1_000, 0), (3_000, 0)], 1_000, Some(&["s0"])),
        (&[(1_000, 0), (3_000, 0)], 2_000, Some(&["s1"])),
        // Two of the lowest priority before one of a higher.
        (
            &[(1_000, 0), (1_000, 0), (2_000, 1)],
            2_000,
            Some(&["s0", "s1"]),
        ),
        // No more than needed.
        (
            &[(1_000, 0), (1_000, 0), (1_000, 0), (1_000, 0)],
            3_000,
            Some(&["s0", "s1", "s2"]),
        ),
        // One of a higher priority only when it must be, and then alone if that is enough.
        (&[(1_000, 0), (3_000, 4)], 2_500, Some(&["s1"])),
        // Never one of the same or a higher priority.
        (&[(2_000, 5), (2_000, 6)], 1_000, None),
        // Not when all of them together are not enough.
        (&[(1_000, 0), (3_000, 9)], 2_000, None),
    ];
    for (replicas, cpu, expected) in table {
        let victims = Node::with(replicas).victims(*cpu, 5);
        let expected = expected.map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(victims, expected, "{replicas:?} {cpu}");
    }
}

#[test]
fn where_there_is_room_nobody_goes() {
    let node = Node::with(&[(1_000, 0)]);
    assert_eq!(node.evict(1_000, 5, 1), Err(vec![Reason::Busy]));
}

#[test]
fn several_replicas_take_turns_and_the_cheaper_node_scores_better() {
    let node = Node::with(&[(2_000, 0), (2_000, 1)]);
    let found = node.evict(2_000, 5, 3).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found[0].score > found[1].score);
    let dearer = Node::with(&[(2_000, 1), (2_000, 1)]);
    assert!(found[0].score > dearer.evict(2_000, 5, 1).unwrap()[0].score);
}

#[test]
fn what_goes_anyway_or_belongs_to_the_node_is_no_victim() {
    let mut node = Node::with(&[(4_000, 0)]);
    node.claims[0].leaving = true;
    assert!(node.evict(1_000, 5, 1).is_err());
    let mut node = Node::with(&[(4_000, 0)]);
    node.claims[0].slot.slot = Slot::Node(node.bare.id);
    assert!(node.evict(1_000, 5, 1).is_err());
}

proptest! {
    /// Victims have a lower priority, without them it fits, and none of them could stay.
    #[test]
    fn no_victim_could_be_spared(
        replicas in proptest::collection::vec((1..1_500_u64, 0..6), 1..12),
        cpu in 1..4_000_u64,
        priority in 0..7,
    ) {
        let mut left = 4_000;
        let fitting = replicas.into_iter().filter(|(cpu, _)| {
            let fits = *cpu <= left;
            left -= if fits { *cpu } else { 0 };
            fits
        });
        let node = Node::with(&fitting.collect::<Vec<_>>());
        let Ok(found) = node.evict(cpu, priority, 1) else {
            let lower = node.claims.iter().filter(|c| {
                node.desired.services[&c.slot.service].spec.policy.priority < priority
            });
            let most = left + lower.map(|c| c.resources.cpu_millis).sum::<u64>();
            prop_assert!(cpu <= left || most < cpu);
            return Ok(());
        };
        let victims = &found[0].victims;
        let mut freed = left;
        for claim in node.claims.iter().filter(|c| victims.contains(&c.slot)) {
            let other = node.desired.services[&claim.slot.service].spec.policy.priority;
            prop_assert!(other < priority);
            freed += claim.resources.cpu_millis;
        }
        prop_assert!(cpu <= freed);
        for claim in node.claims.iter().filter(|c| victims.contains(&c.slot)) {
            prop_assert!(freed - claim.resources.cpu_millis < cpu);
        }
    }
}
