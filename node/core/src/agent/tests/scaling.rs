//! Services that follow their load, on several nodes.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{
    Aim, Autoscale, Load, Metric, NodeId, PortSpec, ScaleStamp, ServiceSpec,
};

use super::flock::{Flock, key, node_id, process_spec};

/// Milliseconds between two measurements.
const EVERY: u64 = 3_000;

fn spec() -> ServiceSpec {
    let autoscale = Autoscale {
        min: 1,
        max: 10,
        targets: BTreeMap::from([(Metric::Connections, Aim::Each(100))]),
        down_window_ms: Some(30_000),
        ..Autoscale::default()
    };
    ServiceSpec {
        ports: vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }],
        autoscale: Some(Box::new(autoscale)),
        ..process_spec()
    }
}

fn load(connections: u64) -> Load {
    let amounts = BTreeMap::from([(Metric::Connections, connections)]);
    Load {
        amounts,
        ..Load::default()
    }
}

/// So many connections on each node, for so long.
fn under_load(flock: &mut Flock, seconds: u64, each: &dyn Fn(usize) -> Load) {
    for _ in 0..seconds * 1_000 / EVERY {
        for index in 0..flock.nodes.len() {
            let samples = BTreeMap::from([(key("web"), each(index))]);
            flock.measure(node_id(index), samples);
        }
        flock.run(EVERY);
    }
}

/// How many replicas the living nodes want, each number once.
fn wanted(flock: &Flock) -> BTreeSet<u32> {
    let agents = flock.nodes.values().filter_map(|node| node.agent.as_ref());
    agents
        .filter_map(|agent| Some(agent.desired().services.get(&key("web"))?.replicas))
        .collect()
}

fn stamps(flock: &Flock) -> BTreeSet<Option<ScaleStamp>> {
    let agents = flock.nodes.values().filter_map(|node| node.agent.as_ref());
    agents
        .map(|agent| Some(agent.scale_decision(&key("web"))?.stamp))
        .collect()
}

fn running(flock: &Flock) -> usize {
    let all = flock.nodes.values().flat_map(|node| &node.running);
    let slots: BTreeSet<_> = all.map(|workload| workload.slot.clone()).collect();
    slots.len()
}

fn author(flock: &Flock) -> NodeId {
    let agents = flock.nodes.values().filter_map(|node| node.agent.as_ref());
    let mut decisions = agents.filter_map(|agent| agent.scale_decision(&key("web")));
    decisions.next().expect("a decision").stamp.author
}

fn deployed(nodes: usize) -> Flock {
    let mut flock = Flock::new(nodes);
    flock.deploy("web", spec(), 1);
    flock.run(3_000);
    assert_eq!(running(&flock), 1);
    flock
}

#[test]
fn all_nodes_follow_one_decision() {
    let mut flock = deployed(5);
    under_load(&mut flock, 30, &|_| load(80));
    assert_eq!(wanted(&flock), [4].into());
    assert_eq!(stamps(&flock).len(), 1);
    assert_eq!(running(&flock), 4);
    under_load(&mut flock, 90, &|index| {
        load(if index == 0 { 150 } else { 0 })
    });
    assert_eq!(wanted(&flock), [2].into());
    assert_eq!(running(&flock), 2);
    under_load(&mut flock, 30, &|_| load(5_000));
    assert_eq!(wanted(&flock), [10].into(), "the maximum");
}

#[test]
fn a_steady_load_is_silent() {
    let mut flock = deployed(5);
    under_load(&mut flock, 60, &|_| load(80));
    let versions = |flock: &Flock| -> Vec<u64> {
        let registers = flock.agent(0).registers();
        registers.map(|register| register.version.seq).collect()
    };
    let before = versions(&flock);
    under_load(&mut flock, 600, &|_| load(82));
    assert_eq!(versions(&flock), before);
}

#[test]
fn services_that_do_not_follow_their_load_tell_nothing() {
    let mut flock = Flock::new(3);
    flock.deploy("web", process_spec(), 2);
    flock.run(3_000);
    under_load(&mut flock, 60, &|_| load(80));
    assert_eq!(wanted(&flock), [2].into());
    let mut registers = flock.agent(0).registers();
    assert!(registers.all(|r| r.report.loads.is_empty() && r.report.scales.is_empty()));
}

#[test]
fn another_node_goes_on_when_the_one_that_decided_is_gone() {
    let mut flock = deployed(5);
    under_load(&mut flock, 30, &|_| load(80));
    for _ in 0..3 {
        let decider = author(&flock);
        flock.kill(decider);
        flock.lowest = usize::MAX;
        under_load(&mut flock, 15, &|_| load(100));
        assert!(
            flock.lowest >= 3,
            "{}: its own replicas alone may be missing",
            flock.lowest
        );
        under_load(&mut flock, 30, &|_| load(300));
        assert_eq!(wanted(&flock).len(), 1);
        assert_ne!(author(&flock), decider, "another one has decided meanwhile");
        under_load(&mut flock, 90, &|_| load(150));
    }
    assert_eq!(wanted(&flock), [3].into());
}

#[test]
fn a_decision_outlives_the_node_that_made_it() {
    let mut flock = deployed(4);
    under_load(&mut flock, 30, &|_| load(150));
    assert_eq!(wanted(&flock), [6].into());
    let (decider, stamp) = (author(&flock), stamps(&flock));
    flock.kill(decider);
    flock.run(20_000);
    assert_eq!(stamps(&flock), stamp, "carried on word for word");
    let carried = |flock: &Flock| {
        let mut registers = flock.nodes.values().filter_map(|n| n.agent.as_ref());
        registers.any(|agent| agent.report().scales.contains_key(&key("web")))
    };
    assert!(carried(&flock));
}

#[test]
fn both_sides_of_a_partition_decide_and_one_number_remains() {
    let mut flock = deployed(6);
    under_load(&mut flock, 30, &|_| load(100));
    assert_eq!(wanted(&flock), [6].into());
    flock.split(&[node_id(4), node_id(5)]);
    under_load(&mut flock, 120, &|index| {
        load(if index < 4 { 200 } else { 50 })
    });
    assert_eq!(wanted(&flock), [1, 8].into());
    flock.heal();
    flock.run(5_000);
    assert_eq!(stamps(&flock).len(), 1);
    assert_eq!(wanted(&flock).len(), 1);
    under_load(&mut flock, 120, &|_| load(100));
    assert_eq!(wanted(&flock), [6].into());
    assert_eq!(running(&flock), 6);
}

#[test]
fn a_suspected_node_takes_nothing_away() {
    let mut flock = deployed(4);
    under_load(&mut flock, 30, &|_| load(100));
    assert_eq!(wanted(&flock), [4].into());
    let quiet = node_id(3);
    assert_ne!(
        author(&flock),
        quiet,
        "for this test somebody else has to decide"
    );
    flock.suspect(quiet);
    under_load(&mut flock, 300, &|_| load(0));
    assert_eq!(wanted(&flock), [4].into());
}

#[test]
fn a_cluster_that_starts_again_keeps_what_runs() {
    let mut flock = deployed(3);
    under_load(&mut flock, 30, &|_| load(200));
    assert_eq!(running(&flock), 6);
    for index in 0..3 {
        flock.kill_daemon(node_id(index));
    }
    for index in 0..3 {
        flock.boot(node_id(index));
    }
    flock.lowest = usize::MAX;
    under_load(&mut flock, 20, &|_| load(200));
    assert_eq!(running(&flock), 6);
    assert_eq!(wanted(&flock), [6].into());
}

#[test]
fn goes_to_zero_and_wakes_for_the_first_connection() {
    let mut flock = Flock::new(4);
    let mut spec = spec();
    let autoscale = spec.autoscale.as_mut().expect("it is there");
    (autoscale.min, autoscale.zero_after_ms) = (0, Some(60_000));
    flock.deploy("web", spec, 1);
    under_load(&mut flock, 30, &|_| load(10));
    assert_eq!(running(&flock), 1);
    under_load(&mut flock, 120, &|_| load(0));
    assert_eq!((wanted(&flock), running(&flock)), ([0].into(), 0));
    let waits = Load {
        waits: true,
        ..Load::default()
    };
    let samples = BTreeMap::from([(key("web"), waits)]);
    flock.measure(node_id(2), samples);
    let took = flock.run_until(2_000, |flock| running(flock) == 1);
    assert!(
        took.is_some(),
        "it is woken at once and not at the next look"
    );
}

#[test]
fn a_stopped_service_stays_stopped() {
    let mut flock = deployed(3);
    under_load(&mut flock, 30, &|_| load(100));
    flock.edit(|d| {
        let web = d.services.get_mut(&key("web")).expect("it is there");
        web.running = false;
    });
    under_load(&mut flock, 60, &|_| load(0));
    assert_eq!(running(&flock), 0);
    flock.edit(|d| {
        let web = d.services.get_mut(&key("web")).expect("it is there");
        web.running = true;
    });
    under_load(&mut flock, 10, &|_| load(100));
    assert_eq!(running(&flock), 3, "as many as before");
}
