use std::collections::BTreeMap;

use dunlin_state::model::{
    Availability, Constraint, ConstraintOp, Mode, Resources, ServiceSpec, Slot,
};

use super::flock::{Flock, key, node_id, process_spec, service};
use crate::placement::{Reason, Verdict};

fn reserving(cpu_millis: u64) -> ServiceSpec {
    ServiceSpec {
        reservation: Resources {
            cpu_millis,
            ..Resources::ZERO
        },
        ..process_spec()
    }
}

pub(super) fn per_node(flock: &Flock) -> BTreeMap<dunlin_state::model::NodeId, usize> {
    let mut counts = BTreeMap::new();
    for (node, _) in flock.claims() {
        *counts.entry(node).or_default() += 1;
    }
    counts
}

#[test]
fn thirty_replicas_on_three_nodes_take_one_round() {
    let mut flock = Flock::new(3);
    flock.deploy("web", process_spec(), 30);
    let took = flock.run_until(1_000, |f| f.is_exact("web")).unwrap();
    assert!(took < 50, "took {took} ms");
    // The auctioneer asks itself without the network.
    assert_eq!(flock.calls, 2);
    assert_eq!(
        per_node(&flock).into_values().collect::<Vec<_>>(),
        [10, 10, 10]
    );
    flock.run(10_000);
    assert!(flock.is_exact("web"));
    assert_eq!(flock.calls, 2);
    assert_eq!(flock.running().len(), 30);
}

#[test]
fn a_lone_node_takes_everything() {
    let mut flock = Flock::new(1);
    flock.deploy("web", process_spec(), 5);
    assert!(flock.run_until(1_000, |f| f.is_exact("web")).is_some());
}

#[test]
fn capacity_is_never_exceeded_and_explained() {
    let mut flock = Flock::new(3);
    // Four cores each: two replicas of 1.5 cores per node.
    flock.deploy("big", reserving(1_500), 8);
    flock.run(3_000);
    assert_eq!(flock.served().len(), 6);
    let explanation = flock.agent(1).explain(&key("big"), flock.now).unwrap();
    assert_eq!((explanation.wanted, explanation.ready), (8, 6));
    assert_eq!(explanation.nodes.len(), 3);
    for node in &explanation.nodes {
        let Verdict::Refused(reasons) = &node.verdict else {
            panic!("{node:?} fits")
        };
        assert_eq!(
            reasons,
            &[Reason::Cpu {
                need: 1_500,
                free: 1_000,
                total: 4_000
            }]
        );
        assert_eq!(reasons[0].to_string(), "needs 1.5 CPUs, 1.0 of 4.0 free");
        assert_eq!(
            reasons[0].fix(),
            "free 0.5 CPUs or lower deploy.resources.reservations.cpus"
        );
    }
    assert!(
        explanation
            .summary
            .starts_with("6 of 8 replicas are ready; 2 have no node, and no node would take one"),
        "{}",
        explanation.summary
    );
    // Smaller replicas fit.
    flock.deploy("big", reserving(1_000), 8);
    assert!(flock.run_until(40_000, |f| f.is_exact("big")).is_some());
}

#[test]
fn capacity_that_becomes_free_is_used_soon() {
    let mut flock = Flock::new(2);
    flock.deploy("first", reserving(4_000), 2);
    flock.run(500);
    flock.deploy("second", reserving(4_000), 2);
    flock.run(20_000);
    assert!(flock.is_exact("first") && !flock.is_exact("second"));
    flock.edit(|d| {
        d.services.remove(&key("first"));
    });
    let took = flock.run_until(5_000, |f| f.is_exact("second")).unwrap();
    assert!(took < 600, "took {took} ms");
}

#[test]
fn many_services_at_once_fill_the_cluster_exactly() {
    let mut flock = Flock::new(4);
    flock.edit(|d| {
        for index in 0..16 {
            let name = key(&format!("s{index}"));
            d.services.insert(name, service(reserving(500), 2));
        }
    });
    // 16 services x 2 replicas x 0.5 cores = all of 4 x 4 cores.
    let done = flock.run_until(10_000, |f| f.served().len() == 32);
    assert!(done.is_some(), "{} of 32 placed", flock.served().len());
}

#[test]
fn daemon_services_run_on_every_matching_node() {
    let mut flock = Flock::with(4, |config| {
        let zone = if config.seed % 2 == 0 { "a" } else { "b" };
        config.labels.insert("zone".to_owned(), zone.to_owned());
    });
    let mut spec = process_spec();
    spec.mode = Mode::Global;
    flock.deploy("agent", spec.clone(), 1);
    flock.run(200);
    assert_eq!(flock.served().len(), 4);
    spec.placement.constraints = vec![Constraint::new(
        "node.labels.zone",
        ConstraintOp::Equal,
        "a",
    )];
    flock.deploy("agent", spec, 1);
    flock.run(20_000);
    let slots: Vec<Slot> = flock.served().into_iter().map(|(_, slot)| slot).collect();
    assert_eq!(slots, [Slot::Node(node_id(0)), Slot::Node(node_id(2))]);
    assert_eq!(flock.running().len(), 2);
    flock.edit(|d| {
        let intent = d.nodes.entry(node_id(1)).or_default();
        intent.labels.insert("zone".to_owned(), "a".to_owned());
    });
    flock.run(200);
    assert_eq!(flock.served().len(), 3);
}

#[test]
fn constraints_that_exclude_each_other_are_named() {
    let mut flock = Flock::new(2);
    let mut spec = process_spec();
    let constraints = [
        "node.cpus >= 2",
        "node.hostname == n0",
        "node.hostname != n0",
    ];
    spec.placement.constraints = constraints.map(|c| c.parse().unwrap()).into();
    flock.deploy("web", spec, 1);
    flock.run(5_000);
    let explanation = flock.agent(0).explain(&key("web"), flock.now).unwrap();
    let expected = "no node can ever take one: its constraints 'node.hostname == n0' and \
                    'node.hostname != n0' exclude each other";
    assert_eq!(explanation.cause.as_deref(), Some(expected));
    assert!(explanation.summary.ends_with(expected), "{explanation:?}");
}

#[test]
fn a_cordoned_node_keeps_what_it_has_and_takes_nothing() {
    let mut flock = Flock::new(2);
    flock.deploy("web", process_spec(), 4);
    flock.run(200);
    flock.edit(|d| {
        d.nodes.entry(node_id(0)).or_default().availability = Availability::Cordoned;
        d.services.get_mut(&key("web")).unwrap().replicas = 8;
    });
    flock.run(500);
    assert!(flock.is_exact("web"));
    assert_eq!(per_node(&flock)[&node_id(0)], 2);
}

#[test]
fn what_cannot_start_on_a_node_goes_to_another() {
    let mut flock = Flock::new(3);
    flock.broken_nodes.insert(node_id(1));
    flock.deploy("web", process_spec(), 6);
    assert!(flock.run_until(10_000, |f| f.is_exact("web")).is_some());
    assert!(!per_node(&flock).contains_key(&node_id(1)));
}

#[test]
fn an_image_that_nobody_can_start_is_explained() {
    let mut flock = Flock::new(3);
    let mut spec = process_spec();
    spec.image = "nonsense".to_owned();
    flock.broken.insert(spec.image.clone());
    flock.deploy("web", spec, 2);
    flock.run(10_000);
    assert!(flock.served().is_empty());
    let asked: Vec<_> = (0..3)
        .map(|i| flock.agent(i).explain(&key("web"), flock.now).unwrap())
        .collect();
    // Whoever auctions the service knows what all the others answered.
    let complete = asked.iter().any(|explanation| {
        explanation.nodes.iter().all(|n| match &n.verdict {
            Verdict::Refused(reasons) => reasons
                .iter()
                .any(|r| r.to_string().contains("no such program")),
            Verdict::Fit { .. } => false,
        })
    });
    assert!(complete, "{asked:#?}");
}

#[test]
fn scaling_down_stops_the_highest_slots_and_removing_stops_all() {
    let mut flock = Flock::new(3);
    flock.deploy("web", process_spec(), 9);
    flock.run(200);
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().replicas = 4);
    assert!(flock.run_until(500, |f| f.is_exact("web")).is_some());
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().running = false);
    flock.run(500);
    assert!(flock.running().is_empty() && flock.claims().next().is_none());
    flock.edit(|d| d.services.get_mut(&key("web")).unwrap().running = true);
    assert!(flock.run_until(2_000, |f| f.is_exact("web")).is_some());
    // Epochs never go back while the service exists, so storage can tell the newest holder.
    assert!(flock.claims().all(|(_, c)| c.epoch == 2));
    flock.edit(|d| {
        d.services.remove(&key("web"));
    });
    flock.run(500);
    assert!(flock.running().is_empty() && flock.claims().next().is_none());
}
