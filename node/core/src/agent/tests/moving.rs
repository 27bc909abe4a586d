//! Replicas that run are moved so that nodes are evenly used, slowly, and without a gap.

use std::collections::BTreeMap;

use dunlin_state::model::{
    Availability, NodeId, Policy, Rebalancing, Resources, ServiceSpec, Slot, SpreadRule,
    VolumeMount,
};
use proptest::prelude::*;

use super::flock::{Flock, key, node_id, process_spec};
use crate::rebalance::{Gain, Stays};

const MINUTE: u64 = 60_000;

fn spec(cpu_millis: u64) -> ServiceSpec {
    ServiceSpec {
        reservation: Resources {
            cpu_millis,
            ..Resources::ZERO
        },
        ..process_spec()
    }
}

/// Some nodes of which the last joins when everything else runs.
fn joined_late(nodes: usize, services: &[(&str, ServiceSpec, u32)]) -> Flock {
    let mut flock = Flock::new(nodes);
    let late = node_id(nodes - 1);
    flock.kill(late);
    flock.run(15_000);
    for (name, spec, replicas) in services {
        flock.deploy(name, spec.clone(), *replicas);
        assert!(flock.run_until(10_000, |f| f.is_exact(name)).is_some());
    }
    flock.run(10_000);
    flock.boot(late);
    flock.run(3_000);
    flock.lowest = usize::MAX;
    flock
}

fn per_node(flock: &Flock) -> BTreeMap<NodeId, usize> {
    let mut counts = BTreeMap::new();
    for (node, _) in flock.running() {
        *counts.entry(node).or_default() += 1;
    }
    counts
}

fn ask(flock: &mut Flock) {
    let asked = Some(flock.now().wall);
    flock.edit(|d| {
        d.rebalancing = Rebalancing {
            asked,
            ..d.rebalancing
        }
    });
}

/// Nothing happens for a while; then replicas come over one by one, nobody misses them, and it ends.
#[test]
fn a_node_that_joins_gets_its_share_slowly() {
    let services = [("web", spec(500), 4), ("api", spec(1_000), 4)];
    let mut flock = joined_late(3, &services);
    let started = flock.started.len();
    flock.run(4 * MINUTE);
    assert_eq!(flock.started.len(), started, "nothing moves yet");
    flock.run(30 * MINUTE);
    let moved = flock.started.len() - started;
    assert_eq!(per_node(&flock)[&node_id(2)], moved);
    assert!((2..=3).contains(&moved), "{moved} replicas moved");
    assert!(flock.lowest >= 8, "{} of 8 were served", flock.lowest);
    assert_eq!(flock.wrong_stops, Vec::<String>::new());
    let settled = flock.started.len();
    flock.run(120 * MINUTE);
    assert_eq!(flock.started.len(), settled, "it rests");
    assert!(flock.is_exact("web") && flock.is_exact("api"));
}

#[test]
fn who_asks_does_not_wait_and_each_replica_moves_once() {
    let services = [("web", spec(500), 4), ("api", spec(1_000), 4)];
    let mut flock = joined_late(3, &services);
    let forecast = flock.agent(0).rebalance_forecast();
    assert!(forecast.moves.iter().all(|m| m.to == node_id(2)));
    let spread = |full: fn(&(u64, u64)) -> u64| {
        let nodes = forecast.nodes.iter().map(|n| full(&n.full_ppm));
        nodes.clone().max().unwrap() - nodes.min().unwrap()
    };
    assert!(spread(|full| full.1) < spread(|full| full.0) / 2);
    let started = flock.started.len();
    ask(&mut flock);
    flock.run(2 * MINUTE);
    let moved = flock.started.len() - started;
    // Which of several equal moves goes first makes a difference of one.
    let foretold = forecast.moves.len();
    assert!(
        moved.abs_diff(foretold) <= 1,
        "{moved}: {:?}",
        forecast.moves
    );
    assert!(flock.lowest >= 8);
    assert_eq!(flock.agent(1).rebalance_forecast().moves, Vec::new());
    flock.run(90 * MINUTE);
    assert_eq!(flock.started.len(), started + moved);
}

#[test]
fn nothing_moves_by_itself_where_people_want_to_be_asked() {
    let mut flock = joined_late(3, &[("web", spec(500), 4)]);
    flock.edit(|d| d.rebalancing.manual = true);
    let started = flock.started.len();
    flock.run(60 * MINUTE);
    assert_eq!(flock.started.len(), started);
    ask(&mut flock);
    flock.run(MINUTE);
    assert_eq!(flock.started.len(), started + 1);
}

#[test]
fn what_must_stay_stays_and_says_why() {
    let policy = |policy| ServiceSpec {
        policy,
        ..spec(500)
    };
    let opted_out = policy(Policy {
        rebalance: Some(false),
        ..Policy::default()
    });
    let strict = policy(Policy {
        voters: vec![node_id(0)],
        ..Policy::default()
    });
    let volumes = |source: &str, allow_empty| ServiceSpec {
        volumes: vec![VolumeMount {
            source: source.to_owned(),
            allow_empty,
            ..VolumeMount::default()
        }],
        ..spec(500)
    };
    // It would be moved if it could go on without its data.
    let mut bound = volumes("data", false);
    bound.policy.rebalance = Some(true);
    let volumes = volumes("cache", true);
    let services = [
        ("bound", bound, 1),
        ("opted-out", opted_out, 4),
        ("strict", strict, 2),
        ("volumes", volumes, 4),
    ];
    let mut flock = joined_late(3, &services);
    let started = flock.started.len();
    ask(&mut flock);
    flock.run(30 * MINUTE);
    assert_eq!(flock.started[started..], []);
    let stays = flock.agent(0).rebalance_forecast().stays;
    assert_eq!(
        stays,
        [
            (key("bound"), Stays::Data),
            (key("opted-out"), Stays::OptedOut),
            (key("strict"), Stays::Strict),
            (key("volumes"), Stays::Volumes),
        ]
    );
    // Who says that its volumes may be left is moved.
    flock.edit(|d| {
        let service = d.services.get_mut(&key("volumes")).unwrap();
        let mut spec = ServiceSpec::clone(&service.spec);
        spec.policy.rebalance = Some(true);
        service.spec = spec.into();
    });
    flock.run(MINUTE);
    assert!(flock.started.len() > started);
    let moved = &flock.started[started..];
    assert!(moved.iter().all(|w| w.slot.service == key("volumes")));
}

/// What does not come up on the new node goes on where it was.
#[test]
fn a_move_that_fails_costs_nothing() {
    let mut flock = joined_late(3, &[("web", spec(500), 4)]);
    flock.broken_nodes.insert(node_id(2));
    let started = flock.started.len();
    ask(&mut flock);
    flock.run(5 * MINUTE);
    assert_eq!(flock.started.len(), started);
    assert_eq!(flock.lowest, 4);
    assert!(flock.is_exact("web"), "nothing of it is left there");
    flock.broken_nodes.clear();
    flock.run(20 * MINUTE);
    assert_eq!(flock.started.len(), started + 1, "it is tried again later");
}

/// The node goes away while a replica comes over, and comes back: nothing is lost or doubled.
#[test]
fn the_death_of_the_new_node_is_survived() {
    let mut flock = joined_late(3, &[("web", spec(500), 4)]);
    ask(&mut flock);
    let late = node_id(2);
    let arrives = |f: &Flock| f.claims().any(|(_, c)| c.moved_from.is_some() && !c.ready);
    assert!(flock.run_until(MINUTE, arrives).is_some());
    flock.kill(late);
    flock.run(30_000);
    assert!(flock.is_exact("web"));
    assert_eq!(flock.lowest, 4);
    flock.boot(late);
    flock.run(5 * MINUTE);
    assert!(flock.is_exact("web"));
    assert_eq!(flock.lowest, 4);
}

/// What has moved is a replica like any other: its node can be drained and take work again.
#[test]
fn who_has_moved_may_go_and_come_again() {
    let mut flock = joined_late(3, &[("web", spec(500), 4)]);
    ask(&mut flock);
    flock.run(MINUTE);
    let late = node_id(2);
    assert_eq!(per_node(&flock)[&late], 1);
    flock.edit(|d| {
        let intent = d.nodes.entry(late).or_default();
        intent.availability = Availability::Drained;
    });
    flock.run(MINUTE);
    assert_eq!(per_node(&flock).get(&late), None);
    flock.edit(|d| d.nodes.clear());
    flock.run(100);
    flock.deploy("more", spec(100), 3);
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 6);
    assert!(flock.run_until(5_000, |f| f.is_exact("web")).is_some());
    assert!(per_node(&flock)[&late] >= 2, "{:?}", per_node(&flock));
    assert_eq!(flock.lowest, 4);
}

#[test]
fn labels_are_evened_out_first_and_drained_nodes_get_nothing() {
    let mut flock = Flock::with(4, |config| {
        let zone = if config.name == "n3" { "b" } else { "a" };
        config.labels.insert("zone".to_owned(), zone.to_owned());
    });
    let drained = node_id(3);
    flock.edit(|d| {
        let intent = d.nodes.entry(drained).or_default();
        intent.availability = Availability::Drained;
    });
    let mut web = spec(300);
    web.placement.spread = vec![SpreadRule::over("node.labels.zone")];
    flock.deploy("web", web, 6);
    assert!(flock.run_until(10_000, |f| f.is_exact("web")).is_some());
    flock.run(10_000);
    ask(&mut flock);
    flock.run(MINUTE);
    assert_eq!(per_node(&flock).get(&drained), None);
    flock.edit(|d| d.nodes.clear());
    flock.run(100);
    let forecast = flock.agent(0).rebalance_forecast();
    let to_b = |gain: &Gain| matches!(gain, Gain::Evenness(_));
    assert_eq!(forecast.moves.iter().filter(|m| to_b(&m.gain)).count(), 3);
    flock.run(2 * MINUTE);
    assert_eq!(per_node(&flock)[&drained], 3);
    assert!(flock.is_exact("web"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Whatever runs where, carrying out what is foretold leaves nothing to do, no replica comes back
    /// to where it was, and the fullest node does not get fuller.
    #[test]
    fn moves_end(sizes in prop::collection::vec((50_u64..1_200, 1_u32..6), 1..5)) {
        let mut flock = Flock::new(4);
        flock.kill(node_id(3));
        flock.run(15_000);
        for (number, (cpu, replicas)) in sizes.iter().enumerate() {
            flock.deploy(&format!("s{number}"), spec(*cpu), *replicas);
        }
        flock.run(15_000);
        flock.boot(node_id(3));
        flock.run(10_000);
        let fullest = |f: &Flock| f.agent(0).rebalance_forecast().nodes.iter().map(|n| n.full_ppm.0).max();
        let before = fullest(&flock);
        let mut homes: BTreeMap<_, Vec<NodeId>> = BTreeMap::new();
        for _ in 0..3 {
            ask(&mut flock);
            flock.run(3 * MINUTE);
            for (node, claim) in flock.claims() {
                let slot: (_, Slot) = (claim.slot.service.clone(), claim.slot.slot);
                let seen = homes.entry(slot).or_default();
                if seen.last() != Some(&node) {
                    prop_assert!(!seen.contains(&node), "{:?} came back", claim.slot);
                    seen.push(node);
                }
            }
        }
        prop_assert!(fullest(&flock) <= before);
        let left = flock.agent(0).rebalance_forecast().moves;
        prop_assert!(left.is_empty(), "{left:?}");
        prop_assert!(flock.wrong_stops.is_empty(), "{:?}", flock.wrong_stops);
    }
}
