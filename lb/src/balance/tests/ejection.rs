//! Who is offered no connections, and for how long.

use super::*;

#[test]
fn a_failure_ejects_for_longer_each_time_until_a_trial_succeeds() {
    let (mut balancer, none) = (balancer(Policy::RoundRobin, 2), BTreeSet::new());
    let bad = target(0);
    let mut now = 0;
    for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        while balancer.take(&none, 0, now) != Some(bad) {
            balancer.closed(&target(1));
        }
        fail(&mut balancer, &bad, now);
        let early = now + expected * 3 / 4 - 1;
        for _ in 0..4 {
            assert_eq!(balancer.take(&none, 0, early), Some(target(1)));
            balancer.closed(&target(1));
        }
        now = early + 1;
    }
    assert_eq!(balancer.take(&none, 0, now), Some(bad), "one trial");
    for _ in 0..4 {
        let during = balancer.take(&none, 0, now);
        assert_eq!(during, Some(target(1)), "and only one");
    }
    balancer.connected(&bad, 300, now);
    assert_eq!(balancer.take(&none, 0, now), Some(bad));
    fail(&mut balancer, &bad, now);
    let soon = now + EJECTION * 3 / 4;
    let picked = [0; 2].map(|_| balancer.take(&none, 0, soon).unwrap());
    assert!(picked.contains(&bad), "failures are counted anew");
}

#[test]
fn ejection_never_leaves_a_service_without_targets() {
    for policy in [
        Policy::RoundRobin,
        Policy::LeastConnections,
        Policy::RandomOfTwo,
    ] {
        let (mut balancer, none) = (balancer(policy, 2), BTreeSet::new());
        for _ in 0..2 {
            let picked = balancer.take(&none, 0, 0).unwrap();
            fail(&mut balancer, &picked, 0);
        }
        assert!(balancer.take(&none, 0, 1).is_some());
    }
}

/// Connections that were on their way when their target died all fail: that is one failure.
#[test]
fn a_burst_of_failures_ejects_once() {
    let (mut balancer, none) = (balancer(Policy::RoundRobin, 2), BTreeSet::new());
    for _ in 0..100 {
        balancer.take(&none, 0, 0).unwrap();
    }
    for _ in 0..50 {
        fail(&mut balancer, &target(0), 5);
    }
    assert_eq!(balancer.ejections(), 1);
    let soon = 5 + EJECTION * 5 / 4;
    let picked = [0; 2].map(|_| balancer.take(&none, 0, soon).unwrap());
    assert!(
        picked.contains(&target(0)),
        "it is tried again as after one failure"
    );
}

/// With nobody else left, ejected ones are offered to all who ask, and each time counts once.
#[test]
fn one_that_is_offered_for_want_of_others_does_not_fall_deeper() {
    let (mut balancer, none) = (balancer(Policy::RoundRobin, 1), BTreeSet::new());
    for turn in 0..20 {
        assert_eq!(balancer.take(&none, 0, turn), Some(target(0)));
        fail(&mut balancer, &target(0), turn);
    }
    assert_eq!(balancer.ejections(), 1);
    balancer.list([0, 1].map(target));
    let soon = EJECTION * 5 / 4;
    let picked = [0; 2].map(|_| balancer.take(&none, 0, soon).unwrap());
    assert!(picked.contains(&target(0)));
}

#[test]
fn an_abandoned_trial_lets_the_next_one_try() {
    let (mut balancer, none) = (balancer(Policy::RoundRobin, 1), BTreeSet::new());
    balancer.take(&none, 0, 0).unwrap();
    fail(&mut balancer, &target(0), 0);
    balancer.list([0, 1].map(target));
    let late = MAX_EJECTION * 2;
    for _ in 0..3 {
        while balancer.take(&none, 0, late) != Some(target(0)) {}
        balancer.closed(&target(0));
    }
}
