use dunlin_state::model::{RestartCondition, RestartPolicy};
use proptest::prelude::*;

use super::restart::{Sequel, delay, sequel};

fn policy(condition: RestartCondition, max_attempts: Option<u32>) -> RestartPolicy {
    RestartPolicy {
        condition,
        max_attempts,
        ..RestartPolicy::default()
    }
}

#[test]
fn the_restart_policy_decides_by_how_it_ended() {
    use RestartCondition::{Any, Never, OnFailure};
    let table = [
        (Never, None, true, 1, "complete"),
        (Never, None, false, 1, "fail"),
        (OnFailure, None, true, 1, "complete"),
        (OnFailure, None, false, 1, "restart"),
        (Any, None, true, 1, "restart"),
        (Any, None, false, 100, "restart"),
        (OnFailure, Some(2), false, 2, "restart"),
        (OnFailure, Some(2), false, 3, "fail"),
        (Any, Some(0), true, 1, "complete"),
        (Any, Some(0), false, 1, "fail"),
    ];
    for (condition, max, clean, failures, expected) in table {
        let found = match sequel(&policy(condition, max), clean, failures, 0) {
            Sequel::Restart { .. } => "restart",
            Sequel::Complete => "complete",
            Sequel::Fail => "fail",
        };
        assert_eq!(
            found, expected,
            "{condition:?} {max:?} clean {clean} {failures}"
        );
    }
}

proptest! {
    /// Delays double up to five minutes, a twentieth more or less, and never overflow.
    #[test]
    fn delays_double_and_are_bounded(
        first in 1..10_000u64,
        failures in 1..u32::MAX,
        random in any::<u64>(),
    ) {
        let exact = first.saturating_mul(1 << (failures - 1).min(32)).min(300_000);
        let found = delay(first, failures, random);
        prop_assert!(found >= exact - exact / 20 && found <= exact + exact / 20 + 1);
    }
}
