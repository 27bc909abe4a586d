//! Whether a replica proves its revision.

use dunlin_state::Now;
use dunlin_state::model::{Phase, SlotId, Trial, UpdatePolicy};

use super::held::{Held, Stage};
use super::{Effect, Reconciler, World};
use crate::rollout::Rollout;

/// Milliseconds from the first start within which a replica has to become ready, beyond the start
/// period of its health check: long enough to fetch an image, and short enough for a person who
/// follows a deploy.
const DEADLINE_MS: u64 = 120_000;

/// Failed starts in a row, each of which may be a hiccup of a registry or an engine, that are a
/// failure of the revision.
const START_TRIES: u32 = 3;

impl Reconciler {
    /// Looks whether a trial is over.
    pub(super) fn judge_trial(&mut self, slot: &SlotId, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        if held.trial_since.is_none() && held.may_run() {
            held.trial_since = Some(now.mono);
        }
        if held.trial_due().is_none_or(|at| at > now.mono) {
            return Vec::new();
        }
        if held.ready_since.is_some() || held.stage == Stage::Ended {
            held.claim.trial = Trial::Proven;
            self.changes.report = true;
            self.changes.durable = true;
            return Vec::new();
        }
        self.fail_trial(slot, "is not ready in time")
    }

    /// A replica on trial has failed.
    pub(super) fn fail_trial(&mut self, slot: &SlotId, how: &str) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        if held.claim.trial != Trial::Pending {
            return Vec::new();
        }
        held.claim.trial = Trial::Failed(held.round);
        self.changes.report = true;
        self.changes.durable = true;
        if !held.in_place {
            return Vec::new();
        }
        let revision = held.claim.revision.clone();
        let text = format!("{slot} {how} with its new specification {revision}");
        vec![self.event(slot, true, text)]
    }

    /// A start has failed: after a few that is a failure of the revision.
    pub(super) fn note_failed_start(&mut self, slot: &SlotId, hopeless: bool) -> Vec<Effect> {
        let held = self.claims.get(slot);
        let tries = held.map_or(0, |held| held.failures);
        if hopeless || tries >= START_TRIES {
            self.fail_trial(slot, "cannot be started")
        } else {
            Vec::new()
        }
    }

    /// A rollout that was resumed forgives what has failed.
    pub(super) fn follow_round(&mut self, slot: &SlotId, world: &World<'_>, now: Now) {
        let service = world.desired.services.get(&slot.service);
        let (Some(held), Some(service)) = (self.claims.get_mut(slot), service) else {
            return;
        };
        let round = service.rollout.round;
        if held.round == round || held.claim.revision != service.revision {
            return;
        }
        held.round = round;
        if matches!(held.claim.trial, Trial::Failed(_)) {
            held.claim.trial = Trial::Pending;
            held.trial_since = Some(now.mono);
            self.changes.report = true;
            self.changes.durable = true;
            self.set_timer(slot);
        }
    }

    /// Whether a slot that cannot be started here stays all the same: while a rollout is under way,
    /// its failure has to be seen, and another node would fail alike.
    pub(super) fn stays_for_rollout(&self, slot: &SlotId, world: &World<'_>) -> bool {
        let service = world.desired.services.get(&slot.service);
        let (Some(held), Some(service)) = (self.claims.get(slot), service) else {
            return false;
        };
        let rollout = Rollout::of(&slot.service, service, world.cluster);
        held.claim.revision == service.revision && (held.in_place || rollout.is_underway())
    }
}

impl Held {
    /// When its trial is over, one way or the other.
    pub(super) fn trial_due(&self) -> Option<u64> {
        let default = UpdatePolicy::default();
        let policy = self.spec.as_ref().map_or(&default, |spec| &spec.update);
        let proven = self
            .ready_since
            .map(|at| at.saturating_add(policy.monitor_ms));
        match (self.claim.trial, &self.stage) {
            (Trial::Proven, _) => None,
            (Trial::Pending | Trial::Failed(_), Stage::Running { .. }) if proven.is_some() => {
                proven
            }
            (Trial::Pending, Stage::Ended) if self.claim.phase == Phase::Completed => Some(0),
            (Trial::Pending, Stage::Draining { .. } | Stage::Stopping { .. } | Stage::Ended) => {
                None
            }
            (Trial::Pending, _) => {
                let checks = self.spec.iter().flat_map(|s| [&s.health, &s.readiness]);
                let period = checks.flatten().map(|c| c.start_period_ms).max();
                let patience = DEADLINE_MS.saturating_add(period.unwrap_or(0));
                self.trial_since.map(|at| at.saturating_add(patience))
            }
            (Trial::Failed(_), _) => None,
        }
    }
}
