//! Affinity and spreading over labels, between agents.

use std::collections::BTreeMap;

use dunlin_state::model::{Slot, SpreadRule};

use super::flock::{Flock, key, node_id, process_spec};
use super::placing::per_node;

/// Six nodes: three in zone a, two in b, one in c.
fn zones() -> Flock {
    Flock::with(6, |config| {
        let zone = ["a", "a", "a", "b", "b", "c"][config.seed as usize % 6];
        config.labels.insert("zone".to_owned(), zone.to_owned());
    })
}

fn per_zone(flock: &Flock) -> BTreeMap<&'static str, usize> {
    let mut zones = BTreeMap::new();
    for (node, count) in per_node(flock) {
        let index = (0..6_usize).find(|i| node_id(*i) == node).unwrap();
        let zone = ["a", "a", "a", "b", "b", "c"][index];
        *zones.entry(zone).or_insert(0) += count;
    }
    zones
}

#[test]
fn replicas_are_dealt_out_over_the_values_of_a_label() {
    let mut flock = zones();
    let mut spec = process_spec();
    spec.placement.spread = vec![SpreadRule::over("node.labels.zone")];
    flock.deploy("web", spec, 6);
    assert!(flock.run_until(5_000, |f| f.is_exact("web")).is_some());
    assert_eq!(
        per_zone(&flock),
        BTreeMap::from([("a", 2), ("b", 2), ("c", 2)])
    );
    // What is there counts when more come.
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 9);
    assert!(flock.run_until(5_000, |f| f.is_exact("web")).is_some());
    assert_eq!(
        per_zone(&flock),
        BTreeMap::from([("a", 3), ("b", 3), ("c", 3)])
    );
}

#[test]
fn too_uneven_waits_and_is_explained() {
    let mut flock = zones();
    let mut spec = process_spec();
    spec.placement.max_per_node = Some(1);
    spec.placement.spread = vec![SpreadRule {
        max_skew: Some(1),
        ..SpreadRule::over("node.labels.zone")
    }];
    flock.deploy("web", spec, 6);
    flock.run(10_000);
    // One node is in c: with one replica there, a and b may have two.
    assert_eq!(
        per_zone(&flock),
        BTreeMap::from([("a", 2), ("b", 2), ("c", 1)])
    );
    let explanation = flock.agent(0).explain(&key("web"), flock.now).unwrap();
    let cause = explanation.cause.unwrap();
    assert!(
        cause.starts_with("1 have no node, and no node would take one"),
        "{cause}"
    );
    let told = explanation
        .nodes
        .iter()
        .any(|node| format!("{:?}", node.verdict).contains("Skew"));
    assert!(told, "{:#?}", explanation.nodes);
}

#[test]
fn a_follower_goes_where_the_other_is_and_waits_for_it() {
    let mut flock = Flock::new(5);
    let mut spec = process_spec();
    spec.placement.affinity = vec![key("db")];
    flock.deploy("web", spec, 2);
    flock.run(3_000);
    assert!(flock.served().is_empty());
    flock.deploy("db", process_spec(), 1);
    assert!(
        flock
            .run_until(20_000, |f| f.is_exact("web") && f.is_exact("db"))
            .is_some()
    );
    let of = |name: &str| {
        let claims = flock.claims().filter(|(_, c)| c.slot.service == key(name));
        claims
            .map(|(node, c)| (c.slot.slot, node))
            .collect::<BTreeMap<_, _>>()
    };
    let db = of("db")[&Slot::Replica(0)];
    assert!(of("web").values().all(|node| *node == db));
}
