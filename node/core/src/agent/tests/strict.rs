//! Services of which there must never be two.

use dunlin_state::model::{Policy, ServiceSpec};

use super::flock::{Flock, key, node_id, process_spec};

fn strict() -> ServiceSpec {
    ServiceSpec {
        policy: Policy {
            voters: (0..3).map(node_id).collect(),
            ..Policy::default()
        },
        ..process_spec()
    }
}

/// Runs for a while; more than one replica at any moment is a failure.
fn run_single(flock: &mut Flock, duration: u64) {
    for _ in 0..duration / 50 {
        flock.run(50);
        assert!(
            flock.running().len() <= 1,
            "{:?} at {}",
            flock.running(),
            flock.now
        );
    }
}

fn flock() -> Flock {
    let mut flock = Flock::new(5);
    // Voters that have just started give no votes.
    flock.run(13_000);
    flock.deploy("db", strict(), 1);
    run_single(&mut flock, 3_000);
    assert!(flock.is_exact("db"));
    flock
}

fn holder(flock: &Flock) -> usize {
    let running = flock.running();
    let (node, _) = running.first().expect("it runs");
    (0..5).find(|n| node_id(*n) == *node).unwrap()
}

#[test]
fn a_holder_that_is_cut_off_stops_before_another_starts() {
    let mut flock = flock();
    let first = holder(&flock);
    flock.split(&[node_id(first)]);
    run_single(&mut flock, 40_000);
    assert_ne!(holder(&flock), first);
    flock.heal();
    run_single(&mut flock, 40_000);
    assert!(flock.is_exact("db"));
}

/// The daemon dies and its replica lives on, until the supervisor's time is up.
#[test]
fn without_a_daemon_the_runtime_keeps_the_lease() {
    let mut flock = flock();
    let first = holder(&flock);
    flock.kill_daemon(node_id(first));
    flock.split(&[node_id(first)]);
    run_single(&mut flock, 40_000);
    assert_ne!(holder(&flock), first);
}

#[test]
fn without_a_majority_of_voters_nothing_runs() {
    let mut flock = flock();
    flock.split(&[node_id(0), node_id(1)]);
    run_single(&mut flock, 40_000);
    // Those two voters are a majority: it runs with them, if anywhere.
    assert!(
        flock
            .running()
            .iter()
            .all(|(n, _)| *n == node_id(0) || *n == node_id(1))
    );
    flock.heal();
    run_single(&mut flock, 30_000);
    flock.split_off(&[node_id(0)], 1);
    flock.split_off(&[node_id(1)], 2);
    flock.split_off(&[node_id(2)], 3);
    run_single(&mut flock, 30_000);
    assert_eq!(flock.running(), []);
    flock.heal();
    run_single(&mut flock, 40_000);
    assert!(flock.is_exact("db"));
}

#[test]
fn a_drained_node_hands_over_without_waiting_for_the_lease() {
    let mut flock = flock();
    let first = holder(&flock);
    flock.edit(|d| {
        let intent = d.nodes.entry(node_id(first)).or_default();
        intent.availability = dunlin_state::model::Availability::Drained;
    });
    run_single(&mut flock, 5_000);
    assert_ne!(holder(&flock), first);
}

#[test]
fn an_update_replaces_it_in_its_place() {
    let mut flock = flock();
    let spec = ServiceSpec {
        image: "next".to_owned(),
        ..strict()
    };
    flock.deploy("db", spec, 1);
    run_single(&mut flock, 10_000);
    assert!(flock.is_exact("db"));
    let explanation = flock.agent(3).explain(&key("db"), flock.now).unwrap();
    assert_eq!(explanation.ready, 1);
}
