use super::*;

fn policy(patience: Option<u64>) -> Policy {
    Policy {
        stop_isolated_after_ms: patience,
        ..Policy::default()
    }
}

#[test]
fn fewer_than_half_is_cut_off_and_half_is_not() {
    for (alive, known, expected) in [
        (1, 1, false),
        (1, 2, false),
        (1, 3, true),
        (2, 4, false),
        (2, 5, true),
        (3, 5, false),
    ] {
        let mut isolation = Isolation::new(false, 0);
        isolation.observe(alive, known, 1_000);
        let bars = isolation.bars(&policy(Some(0)), true, 1_000);
        assert_eq!(bars.is_some(), expected, "{alive} of {known}");
    }
}

#[test]
fn who_keeps_its_replicas_is_never_barred() {
    let mut isolation = Isolation::new(true, 0);
    isolation.observe(1, 5, 10);
    assert_eq!(isolation.bars(&policy(None), true, 1_000_000), None);
    assert_eq!(isolation.bars(&policy(None), false, 1_000_000), None);
}

#[test]
fn what_runs_goes_on_for_its_patience_and_what_does_not_waits() {
    let mut isolation = Isolation::new(false, 0);
    isolation.observe(3, 3, 0);
    isolation.observe(1, 3, 10_000);
    let patient = policy(Some(5_000));
    assert_eq!(isolation.bars(&patient, true, 14_999), None);
    assert!(isolation.bars(&patient, false, 10_001).is_some());
    assert!(isolation.bars(&patient, true, 15_000).is_some());
    // Back, it first learns what has happened.
    isolation.observe(2, 3, 20_000);
    assert!(isolation.bars(&patient, false, 20_001).is_some());
    assert_eq!(isolation.bars(&patient, true, 20_001), None);
    assert!(
        isolation
            .bars(&patient, false, 20_000 + SETTLE_MS)
            .is_none()
    );
}

#[test]
fn a_node_that_knew_others_is_cut_off_until_it_sees_one() {
    let mut isolation = Isolation::new(true, 0);
    assert!(isolation.bars(&policy(Some(9_000)), false, 1).is_some());
    assert_eq!(isolation.bars(&policy(Some(9_000)), true, 1), None);
    isolation.observe(1, 1, 100);
    assert!(isolation.bars(&policy(Some(9_000)), true, 9_000).is_some());
    isolation.observe(2, 2, 9_100);
    assert_eq!(isolation.bars(&policy(Some(9_000)), true, 9_100), None);
    assert_eq!(Isolation::new(false, 0).poll_timeout(), None);
}

#[test]
fn looks_end_when_all_has_settled() {
    let mut isolation = Isolation::new(false, 0);
    isolation.observe(1, 3, 0);
    isolation.observe(3, 3, 5_000);
    let mut now = 5_000;
    while let Some(at) = isolation.poll_timeout() {
        now = now.max(at);
        assert!(isolation.handle_timeout(now));
        assert!(!isolation.handle_timeout(now));
        assert!(now <= 5_000 + SETTLE_MS + LOOK_MS);
    }
}
