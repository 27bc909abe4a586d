//! Slots go where their data is, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::NodeIntent;
use dunlin_state::model::{
    Availability, NodeId, ServiceSpec, Slot, VolumeId, VolumeMount, VolumeScope,
};

use super::flock::{Flock, key, node_id, process_spec};
use crate::placement::{Keeper, Reason, Verdict};

fn spec(scope: VolumeScope, allow_empty: bool) -> ServiceSpec {
    ServiceSpec {
        volumes: vec![VolumeMount {
            source: "data".to_owned(),
            target: "/data".to_owned(),
            scope,
            allow_empty,
            ..VolumeMount::default()
        }],
        ..process_spec()
    }
}

fn homes(flock: &Flock, name: &str) -> BTreeMap<Slot, NodeId> {
    let claims = flock.claims().filter(|(_, c)| c.slot.service == key(name));
    claims
        .map(|(node, claim)| (claim.slot.slot, node))
        .collect()
}

fn index(node: NodeId) -> usize {
    (0..9).find(|index| node_id(*index) == node).unwrap()
}

#[test]
fn replicas_that_share_a_volume_share_a_node() {
    let mut flock = Flock::new(3);
    flock.deploy("db", spec(VolumeScope::Node, false), 3);
    assert!(flock.run_until(20_000, |f| f.is_exact("db")).is_some());
    let nodes: BTreeSet<NodeId> = homes(&flock, "db").into_values().collect();
    assert_eq!(nodes.len(), 1);
    // Another service that names it follows.
    flock.deploy("backup", spec(VolumeScope::Node, false), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("backup")).is_some());
    assert_eq!(nodes, homes(&flock, "backup").into_values().collect());
}

#[test]
fn each_slot_goes_back_to_its_own_data() {
    let mut flock = Flock::new(3);
    flock.deploy("db", spec(VolumeScope::Replica, false), 3);
    assert!(flock.run_until(20_000, |f| f.is_exact("db")).is_some());
    let before = homes(&flock, "db");
    let nodes: BTreeSet<NodeId> = before.values().copied().collect();
    assert_eq!(nodes.len(), 3, "they spread as always");
    flock.edit(|d| d.services.get_mut(&key("db")).unwrap().running = false);
    flock.run(10_000);
    assert_eq!(flock.claims().count(), 0);
    flock.edit(|d| d.services.get_mut(&key("db")).unwrap().running = true);
    assert!(flock.run_until(20_000, |f| f.is_exact("db")).is_some());
    assert_eq!(homes(&flock, "db"), before);
}

#[test]
fn nobody_begins_anew_where_the_data_is_not() {
    let mut flock = Flock::new(3);
    flock.deploy("db", spec(VolumeScope::Node, false), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("db")).is_some());
    let home = homes(&flock, "db")[&Slot::Replica(0)];
    flock.kill(home);
    flock.run(60_000);
    assert_eq!(flock.running().len(), 0);
    let asked = (index(home) + 1) % 3;
    let explanation = flock.agent(asked).explain(&key("db"), flock.now).unwrap();
    let name = format!("n{}", index(home));
    for node in explanation.nodes.iter().filter(|n| n.node != home) {
        let Verdict::Refused(reasons) = &node.verdict else {
            panic!("{node:?} would take it");
        };
        let told = reasons.iter().any(|reason| {
            matches!(reason, Reason::DataElsewhere(at) if at.name == name && matches!(at.keeper, Keeper::Silent { since: Some(_) }))
        });
        assert!(told, "{reasons:?}");
    }
    let cause = explanation.cause.unwrap();
    assert!(
        cause.contains("the data of volume default/data is on"),
        "{cause}"
    );
    // It comes back, and goes on with what it has.
    flock.boot(home);
    assert!(flock.run_until(30_000, |f| f.is_exact("db")).is_some());
    assert_eq!(homes(&flock, "db")[&Slot::Replica(0)], home);
}

#[test]
fn whoever_allows_an_empty_one_gets_it() {
    let mut flock = Flock::new(3);
    flock.deploy("cache", spec(VolumeScope::Node, true), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("cache")).is_some());
    let home = homes(&flock, "cache")[&Slot::Replica(0)];
    flock.kill(home);
    assert!(flock.run_until(20_000, |f| f.is_exact("cache")).is_some());
    let other = homes(&flock, "cache")[&Slot::Replica(0)];
    assert_ne!(other, home);
    flock.boot(home);
    flock.run(10_000);
    // Both are shown, and the later one counts.
    let copies = flock.agent(index(other)).volumes();
    let counts: Vec<(NodeId, bool)> = copies.iter().map(|c| (c.node, c.counts)).collect();
    assert_eq!(counts.len(), 2);
    assert!(counts.contains(&(other, true)) && counts.contains(&(home, false)));
}

/// Two services that name one volume are auctioned by different nodes at the same moment.
#[test]
fn of_two_that_make_one_volume_at_once_one_gives_way() {
    for seed in 0..20 {
        let mut flock = Flock::new(5);
        flock.run(seed);
        for name in ["a", "b", "c", "d"] {
            flock.deploy(name, spec(VolumeScope::Node, false), 1);
        }
        let all = |f: &Flock| ["a", "b", "c", "d"].iter().all(|name| f.is_exact(name));
        assert!(flock.run_until(40_000, all).is_some());
        flock.run(2_000);
        let nodes: BTreeSet<NodeId> = flock.claims().map(|(node, _)| node).collect();
        assert_eq!(nodes.len(), 1, "seed {seed}");
        assert_eq!(
            flock.agent(0).volumes().len(),
            1,
            "nothing else was written to"
        );
    }
}

#[test]
fn a_drain_says_why_data_keeps_a_replica() {
    let mut flock = Flock::new(3);
    flock.deploy("db", spec(VolumeScope::Node, false), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("db")).is_some());
    let home = homes(&flock, "db")[&Slot::Replica(0)];
    flock.edit(|d| {
        let intent = NodeIntent {
            availability: Availability::Drained,
            ..NodeIntent::default()
        };
        d.nodes.insert(home, intent);
    });
    flock.run(20_000);
    let claim = flock.claims().next().unwrap().1;
    assert!(claim.ready && claim.leaving, "it goes on meanwhile");
    let message = claim.message.unwrap();
    assert!(message.contains("data of volume default/data"), "{message}");
    // Somebody brings the data to another node: now it can go.
    let other = node_id((index(home) + 1) % 3);
    let volume: VolumeId = "data".parse().unwrap();
    flock.put_volume(other, volume);
    let moved = |f: &Flock| f.is_exact("db") && homes(f, "db")[&Slot::Replica(0)] == other;
    assert!(flock.run_until(30_000, moved).is_some());
}

/// An update happens where the data is, although it would start first elsewhere.
#[test]
fn an_update_stays_with_the_data() {
    let mut flock = Flock::new(3);
    flock.deploy("db", spec(VolumeScope::Node, false), 1);
    assert!(flock.run_until(20_000, |f| f.is_exact("db")).is_some());
    let home = homes(&flock, "db");
    let mut next = spec(VolumeScope::Node, false);
    next.update.order = dunlin_state::model::UpdateOrder::StartFirst;
    next.image = "web:2".to_owned();
    flock.deploy("db", next, 1);
    flock.run(1_000);
    assert!(flock.run_until(30_000, |f| f.is_exact("db")).is_some());
    assert_eq!(homes(&flock, "db"), home);
}
