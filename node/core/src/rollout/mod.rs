//! How a service moves from one specification to the next, and when it must not.
//!
//! Nobody directs a rollout. What is wanted stands in desired state (the specification, the one
//! before it, whether it is held), how far it is stands in the claims (which revision each replica
//! runs, and its [`Trial`]), and every holder of a slot computes from these alone whether its turn
//! has come. So any node can fail at any time, and both sides of a partition go on.
//!
//! - A slot may change when fewer than `parallelism` slots are on their way: those below it that
//!   still have to change, and those at the new revision that are not proven.
//! - A replica is proven once it was ready for `monitor` without a break. It has failed when it ends,
//!   cannot be started, or is not ready in time before that. A slot that failed stays on its way, so
//!   that a bad specification never replaces more than `parallelism` replicas and those that the
//!   failure ratio allows.
//! - When more have failed than that ratio allows, no slot changes any more. The node that ranks first
//!   for the service then writes the failure action into desired state: paused, or the specification
//!   before. Two nodes that both think they rank first write the same.

use std::collections::BTreeMap;

use dunlin_state::desired::{RolloutChange, Service};
use dunlin_state::model::{
    Claim, FailureAction, Mode, NodeId, Phase, ServiceKey, Slot, Trial, UpdatePolicy,
};

use crate::cluster::Cluster;

#[cfg(test)]
mod tests;

/// Slots at the new revision that are not proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    /// On trial.
    pub(crate) pending: usize,
    /// Failed in this round.
    pub(crate) failed: usize,
}

/// A rollout as one node sees it.
#[derive(Clone, Copy)]
pub(crate) struct Rollout<'a> {
    key: &'a ServiceKey,
    service: &'a Service,
    cluster: &'a Cluster,
}

impl<'a> Rollout<'a> {
    /// The rollout of a watched service.
    pub(crate) fn of(key: &'a ServiceKey, service: &'a Service, cluster: &'a Cluster) -> Self {
        Self {
            key,
            service,
            cluster,
        }
    }

    fn policy(&self) -> &'a UpdatePolicy {
        self.service.update()
    }

    /// The claims to a slot that say how things are.
    fn claims(&self, slot: Slot) -> impl Iterator<Item = (NodeId, &'a Claim)> + '_ {
        let claims = self.cluster.claims_of(self.key, slot);
        claims.filter(|(node, _)| {
            self.cluster.standing(*node).holds_claims() && self.cluster.is_trusted(*node)
        })
    }

    fn is_wanted(&self, slot: Slot) -> bool {
        match (slot, self.service.spec.mode) {
            (Slot::Replica(index), Mode::Replicated) => index < self.service.wanted_replicas(),
            (Slot::Node(_), Mode::Global) => true,
            (Slot::Replica(_), Mode::Global) | (Slot::Node(_), Mode::Replicated) => false,
        }
    }

    /// Counts the slots on trial.
    pub(crate) fn tally(&self) -> Tally {
        let Some(watch) = self.cluster.watch(self.key) else {
            return Tally::default();
        };
        let mut slots: BTreeMap<Slot, bool> = BTreeMap::new();
        for slot in watch.unproven().filter(|slot| self.is_wanted(*slot)) {
            let newest = |claim: &&Claim| claim.revision == self.service.revision;
            let mut claims = self.claims(slot).map(|(_, claim)| claim).filter(newest);
            let round = self.service.rollout.round;
            let first = claims.next();
            let rest: Vec<&Claim> = claims.collect();
            let all = || first.into_iter().chain(rest.iter().copied());
            if first.is_some() && !all().any(is_proven) {
                slots.insert(slot, all().any(|c| c.trial == Trial::Failed(round)));
            }
        }
        let failed = slots.values().filter(|failed| **failed).count();
        Tally {
            pending: slots.len() - failed,
            failed,
        }
    }

    /// How many slots the failure ratio counts against.
    fn size(&self) -> usize {
        match self.service.spec.mode {
            Mode::Replicated => self.service.wanted_replicas() as usize,
            Mode::Global => self.cluster.alive().len(),
        }
    }

    fn has_failed(&self, tally: Tally) -> bool {
        let allowed = self.policy().max_failure_permille as usize;
        tally.failed.saturating_mul(1_000) > allowed.saturating_mul(self.size())
    }

    /// Whether no slot may change any more.
    pub(crate) fn is_halted(&self) -> bool {
        self.service.rollout.paused
            || (self.policy().failure_action != FailureAction::Continue
                && self.has_failed(self.tally()))
    }

    /// Whether some slot still has to change.
    pub(crate) fn is_underway(&self) -> bool {
        let watch = self.cluster.watch(self.key).into_iter();
        let mut slots = watch.flat_map(|w| w.slots()).map(|(slot, _)| slot);
        slots.any(|slot| {
            let mut claims = self.claims(slot);
            claims.any(|(_, claim)| !self.service.allows(slot, &claim.revision))
        })
    }

    /// Whether it is a slot's turn.
    pub(crate) fn may_change(&self, slot: Slot) -> bool {
        let tally = self.tally();
        let goes_on = self.policy().failure_action == FailureAction::Continue;
        if self.service.rollout.paused || (!goes_on && self.has_failed(tally)) {
            return false;
        }
        let underway = tally.pending + if goes_on { 0 } else { tally.failed };
        let limit = usize::try_from(self.policy().parallelism.max(1)).unwrap_or(usize::MAX);
        let Some(room) = limit.checked_sub(underway).filter(|room| *room > 0) else {
            return false;
        };
        let Some(watch) = self.cluster.watch(self.key) else {
            return false;
        };
        // A slot that nobody holds is filled with the new specification anyway, and not waited for.
        let outdated = |lower: &Slot| {
            let mut claims = self.claims(*lower).peekable();
            claims.peek().is_some()
                && claims.all(|(_, claim)| !self.service.allows(*lower, &claim.revision))
        };
        let mut before = None;
        let lower = watch
            .slots()
            .map(|(lower, _)| lower)
            .take_while(|lower| *lower < slot)
            .filter(|lower| before.replace(*lower) != Some(*lower))
            .filter(|lower| self.is_wanted(*lower));
        lower.filter(outdated).take(room).count() < room
    }

    /// Whether a new claim to the slot goes on with what has proven itself: the replica moves, and
    /// its specification is not new.
    pub(crate) fn is_proven_revision(&self, slot: Slot, revision: &str) -> bool {
        let mut earlier = self.cluster.claims_of(self.key, slot);
        let same = |claim: &Claim| claim.revision == revision && is_proven(claim);
        if earlier.any(|(_, claim)| same(claim)) {
            return true;
        }
        let Some(watch) = self.cluster.watch(self.key) else {
            return false;
        };
        let mut others = watch.slots().map(|(slot, _)| slot).peekable();
        others.peek().is_some()
            && others.all(|other| self.claims(other).all(|(_, claim)| same(claim)))
    }

    /// What the failure of the rollout asks for, if it has failed and nobody has acted on it.
    pub(crate) fn failure_action(&self) -> Option<RolloutChange> {
        let rollout = &self.service.rollout;
        if rollout.paused || rollout.previous.is_none() {
            return None;
        }
        let tally = self.tally();
        if !self.has_failed(tally) {
            return None;
        }
        let reason = Some(format!("{} of {} slots failed", tally.failed, self.size()));
        match self.policy().failure_action {
            FailureAction::Continue => None,
            // What is being undone has failed too: there is nowhere to go back to.
            FailureAction::Rollback if !rollout.is_rollback => {
                Some(RolloutChange::Rollback { reason })
            }
            FailureAction::Rollback | FailureAction::Pause => Some(RolloutChange::Pause { reason }),
        }
    }
}

fn is_proven(claim: &Claim) -> bool {
    claim.trial == Trial::Proven || claim.phase == Phase::Completed
}
