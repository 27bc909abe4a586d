//! Nodes that are cut off.

use dunlin_state::model::{Policy, ServiceSpec};

use super::flock::{Flock, key, node_id, process_spec};

fn stopping(after: Option<u64>) -> ServiceSpec {
    ServiceSpec {
        policy: Policy {
            stop_isolated_after_ms: after,
            ..Policy::default()
        },
        ..process_spec()
    }
}

fn running_on(flock: &Flock, node: usize, name: &str) -> usize {
    let node = node_id(node);
    let running = flock.running();
    let mine = |at, service: &_| at == node && *service == key(name);
    let here = running.iter().filter(|(at, w)| mine(*at, &w.slot.service));
    here.count()
}

/// One node of three is cut off: it keeps what should be kept and stops the rest after its time, takes
/// over nothing, and is back at work when it sees the others.
#[test]
fn a_node_that_is_cut_off_stops_what_should_not_run_there() {
    let mut flock = Flock::new(3);
    flock.deploy("kept", stopping(None), 3);
    flock.deploy("ended", stopping(Some(10_000)), 3);
    let exact = |f: &Flock| f.is_exact("kept") && f.is_exact("ended");
    assert!(flock.run_until(5_000, exact).is_some());
    flock.split(&[node_id(2)]);
    flock.run(8_000);
    assert_eq!(running_on(&flock, 2, "ended"), 1);
    flock.run(12_000);
    let left = |name| running_on(&flock, 2, name);
    assert_eq!((left("ended"), left("kept")), (0, 3));
    let served = running_on(&flock, 0, "ended") + running_on(&flock, 1, "ended");
    assert_eq!(served, 3, "the others have taken over");
    flock.heal();
    assert!(flock.run_until(30_000, exact).is_some());
    flock.run(5_000);
    assert_eq!(flock.running().len(), 6);
}

/// Nobody has taken over: it starts again where it was.
#[test]
fn who_comes_back_to_a_vacant_slot_starts_again() {
    let mut flock = Flock::new(5);
    flock.deploy("ended", stopping(Some(2_000)), 1);
    assert!(flock.run_until(5_000, |f| f.is_exact("ended")).is_some());
    // Nobody sees anybody.
    for side in 1..5 {
        flock.split_off(&[node_id(side)], side as u32);
    }
    flock.run(15_000);
    assert_eq!(flock.running(), []);
    flock.heal();
    assert!(flock.run_until(30_000, |f| f.is_exact("ended")).is_some());
}

/// A daemon that starts anew while it is cut off starts nothing of what others may have taken over.
#[test]
fn who_starts_alone_does_not_start_what_may_run_elsewhere() {
    let mut flock = Flock::new(3);
    flock.deploy("kept", stopping(None), 3);
    flock.deploy("ended", stopping(Some(60_000)), 3);
    let exact = |f: &Flock| f.is_exact("kept") && f.is_exact("ended");
    assert!(flock.run_until(5_000, exact).is_some());
    flock.split(&[node_id(2)]);
    flock.run(5_000);
    flock.kill(node_id(2));
    flock.boot(node_id(2));
    flock.run(10_000);
    assert!(running_on(&flock, 2, "kept") > 0);
    assert_eq!(running_on(&flock, 2, "ended"), 0);
    flock.heal();
    assert!(flock.run_until(30_000, exact).is_some());
}
