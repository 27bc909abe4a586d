//! What happens after a replica ended: the restart policy.

use dunlin_state::model::{Phase, RestartCondition, RestartPolicy, SlotId};

use super::World;

/// Milliseconds between restarts at most: a person who fixes the cause should not wait longer.
const MAX_DELAY_MS: u64 = 300_000;

/// Failures in a row from which a replica counts as crash-looping.
pub(super) const CRASH_LOOP_FAILURES: u32 = 5;

/// What to do after a replica ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequel {
    /// Start it again after so many milliseconds.
    Restart { delay_ms: u64 },
    /// It has done its work.
    Complete,
    /// Leave it.
    Fail,
}

/// Decides by the policy; `failures` counts ends in a row including this one, and `random` spreads
/// the delay by a tenth, so that replicas which died together do not start together.
pub(super) fn sequel(policy: &RestartPolicy, clean: bool, failures: u32, random: u64) -> Sequel {
    let again = match policy.condition {
        RestartCondition::Never => false,
        RestartCondition::OnFailure => !clean,
        RestartCondition::Any => true,
    };
    if !again {
        return if clean {
            Sequel::Complete
        } else {
            Sequel::Fail
        };
    }
    if policy.max_attempts.is_some_and(|max| failures > max) {
        return if clean {
            Sequel::Complete
        } else {
            Sequel::Fail
        };
    }
    let delay_ms = delay(policy.delay_ms, failures, random);
    Sequel::Restart { delay_ms }
}

/// The delay before the restart that follows the n-th failure in a row.
pub(super) fn delay(first_ms: u64, failures: u32, random: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(32);
    let base = first_ms.saturating_mul(1 << doublings).min(MAX_DELAY_MS);
    base - base / 20 + random % (base / 10).max(1)
}

/// How often a part of a run has failed on other nodes, gone ones too, as their claims say: its
/// retries are those of all of them together.
pub(super) fn failures_elsewhere(slot: &SlotId, world: &World<'_>) -> u32 {
    let claims = world.cluster.all_claims(&slot.service).into_iter();
    let others = claims.filter(|(node, c)| *node != world.cluster.me() && c.slot == *slot);
    let failures = others.map(|(_, claim)| {
        let waits = matches!(claim.phase, Phase::BackOff | Phase::CrashLoop);
        claim.restarts.saturating_add(u32::from(waits))
    });
    failures.fold(0, u32::saturating_add)
}
