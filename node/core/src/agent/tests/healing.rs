use dunlin_gossip::membership::MemberEvent;

use super::flock::{Flock, key, node_id, process_spec};
use crate::io::WorkloadId;
use crate::liveness::Standing;

fn deployed(nodes: usize, replicas: u32) -> Flock {
    let mut flock = Flock::new(nodes);
    flock.deploy("web", process_spec(), replicas);
    assert!(flock.run_until(1_000, |f| f.is_exact("web")).is_some());
    flock.run(100);
    flock
}

#[test]
fn a_dead_nodes_replicas_are_placed_on_the_others() {
    let mut flock = deployed(3, 30);
    flock.kill(node_id(1));
    let took = flock.run_until(10_000, |f| f.is_exact("web")).unwrap();
    // Suspected after 0.5 s, and silent for 2 s since then.
    assert!((2_500..2_600).contains(&took), "took {took} ms");
    flock.run(5_000);
    assert!(flock.is_exact("web"));
}

#[test]
fn a_partition_is_survived_by_both_sides_and_healed_without_a_gap() {
    let mut flock = deployed(5, 20);
    flock.split(&[node_id(3), node_id(4)]);
    flock.run(6_000);
    // Each side runs all twenty.
    assert_eq!(flock.running().len(), 40);
    flock.lowest = usize::MAX;
    flock.heal();
    let took = flock.run_until(10_000, |f| f.is_exact("web")).unwrap();
    assert!(took < 1_000, "took {took} ms");
    flock.run(5_000);
    assert!(flock.is_exact("web"));
    assert_eq!(flock.running().len(), 20);
    assert_eq!(flock.lowest, 20, "a slot went unserved");
}

#[test]
fn a_suspected_node_keeps_its_replicas_and_gets_no_traffic() {
    let mut flock = deployed(3, 6);
    let member = member(&flock, 1);
    let now = flock.now();
    let suspected = |flock: &mut Flock, event| {
        let node = flock.nodes.get_mut(&node_id(0)).unwrap();
        let _ = node.agent.as_mut().unwrap().member(event, &|_| None, now);
    };
    suspected(&mut flock, MemberEvent::Suspect(member));
    let table = flock.agent(0).route_table(Default::default());
    assert_eq!(table.services[&key("web")].backends.len(), 4);
    assert_eq!(flock.agent(0).standing(node_id(1)), Standing::Suspect);
    flock.run(10_000);
    assert!(flock.is_exact("web"));
    suspected(&mut flock, MemberEvent::Alive(member));
    let table = flock.agent(0).route_table(Default::default());
    assert_eq!(table.services[&key("web")].backends.len(), 6);
}

fn member(flock: &Flock, index: usize) -> dunlin_gossip::membership::MemberId {
    let report = flock.agent(index).report();
    dunlin_gossip::membership::MemberId {
        node: node_id(index),
        boot: 1,
        address: report.address.unwrap(),
    }
}

#[test]
fn a_daemon_that_restarts_adopts_what_runs() {
    let mut flock = deployed(3, 9);
    let before = flock.running();
    flock.run(2_000);
    flock.kill_daemon(node_id(2));
    flock.run(300);
    flock.boot(node_id(2));
    flock.run(10_000);
    assert!(flock.is_exact("web"));
    assert_eq!(flock.running(), before, "nothing was restarted");
}

#[test]
fn a_node_that_reboots_alone_starts_its_own_work_first() {
    let mut flock = deployed(3, 9);
    flock.run(2_000);
    flock.kill(node_id(0));
    flock.kill(node_id(1));
    flock.kill(node_id(2));
    flock.run(1_000);
    flock.boot(node_id(0));
    flock.run(2_500);
    assert_eq!(flock.running().len(), 3);
    // Later it concludes that it is alone, and runs everything.
    flock.run(5_000);
    assert_eq!(flock.served().len(), 9);
}

#[test]
fn after_a_power_loss_everything_comes_back_once() {
    let mut flock = deployed(3, 9);
    flock.run(2_000);
    for index in 0..3 {
        flock.kill(node_id(index));
    }
    flock.run(5_000);
    for index in 0..3 {
        flock.boot(node_id(index));
    }
    let took = flock.run_until(5_000, |f| f.is_exact("web")).unwrap();
    assert!(took < 500, "took {took} ms");
    flock.run(10_000);
    assert!(flock.is_exact("web"));
    assert_eq!(flock.running().len(), 9);
}

#[test]
fn a_replica_that_crashes_is_restarted_and_at_last_called_crash_looping() {
    let mut flock = deployed(1, 1);
    let workload = |flock: &Flock| flock.running().first().map(|(_, w)| w.clone());
    let mut delays = Vec::new();
    for attempt in 0..6 {
        let id: WorkloadId = workload(&flock).unwrap();
        assert_eq!(id.attempt, attempt);
        flock.exit(node_id(0), id, 1);
        flock.run(1);
        let took = flock.run_until(60_000, |f| workload(f).is_some());
        delays.push(took.unwrap());
        flock.run(10);
    }
    for pair in delays.windows(2) {
        let ratio = pair[1] as f64 / pair[0] as f64;
        assert!((1.7..2.3).contains(&ratio), "{delays:?}");
    }
    let id = workload(&flock).unwrap();
    flock.exit(node_id(0), id, 1);
    flock.run(10);
    let (_, claim) = flock.claims().next().unwrap();
    assert_eq!(claim.phase, dunlin_state::model::Phase::CrashLoop);
    assert_eq!(claim.message.as_deref(), Some("exited with code 1"));
}
