//! A replica that is moved to even out nodes: the new one either comes up, or gives up.
//!
//! The new holder has the higher epoch from the start, so the old one goes as soon as the new one is
//! ready, like any replica that is beaten. Until then the old one serves, and nothing is lost if the
//! new one gives up: it must not take a slot that is served well to run badly.

use dunlin_state::Now;
use dunlin_state::model::{NodeId, Phase, SlotId};

use super::held::Held;
use super::{MAX_REFUSALS, REFUSE_MS, Reconciler, Refusal, World};
use crate::liveness::Standing;

/// Milliseconds that a replica has to become ready in the place of another one: images are fetched
/// in that time, and what takes longer is served well where it is.
const PATIENCE_MS: u64 = 120_000;

impl Held {
    /// It takes the place of a replica that serves.
    pub(super) fn set_moving(&mut self, from: NodeId, now: u64) {
        self.claim.moved_from = Some(from);
        self.moving = true;
        self.move_until = Some(now.saturating_add(PATIENCE_MS));
        self.say("takes the place of a replica that serves until this one is ready");
    }

    /// Whether the replica that it is to replace serves, and this one does not.
    fn is_moving(&self, world: &World<'_>) -> bool {
        let waits = self.moving && !self.serves() && !self.claim.leaving;
        let Some(from) = self.claim.moved_from.filter(|_| waits) else {
            return false;
        };
        let cluster = world.cluster;
        let slot = &self.claim.slot;
        let mut others = cluster.claims_of(&slot.service, slot.slot);
        others.any(|(node, claim)| {
            node == from
                && claim.phase == Phase::Running
                && claim.ready
                && !claim.leaving
                && cluster.standing(node) == Standing::Alive
                && cluster.is_trusted(node)
        })
    }

    /// Why it should leave the slot to the replica that it was to replace.
    pub(super) fn gives_up_move(&self, world: &World<'_>) -> Option<String> {
        let slot = &self.claim.slot;
        let service = world.desired.services.get(&slot.service)?;
        let why = if !self.is_moving(world) {
            return None;
        } else if self.has_failed_to_move() {
            "it did not come up here"
        } else if !service.allows(slot.slot, &self.claim.revision) {
            "the service is being updated"
        } else {
            return None;
        };
        Some(format!("it stays where it was: {why}"))
    }

    fn has_failed_to_move(&self) -> bool {
        let ended = match self.claim.phase {
            Phase::BackOff | Phase::CrashLoop | Phase::Failed | Phase::Completed => true,
            Phase::Claimed
            | Phase::Preparing
            | Phase::Starting
            | Phase::Running
            | Phase::Stopping => self.failures > 0,
        };
        ended || self.move_until.is_none()
    }
}

impl Reconciler {
    /// Whether a replica was given to this node to take another one's place, and is not ready yet.
    pub(crate) fn is_moving(&self) -> bool {
        let mut held = self.claims.values();
        held.any(|held| held.moving && !held.serves())
    }

    /// Its time to become ready may be up.
    pub(super) fn look_at_move(&mut self, slot: &SlotId, now: Now) {
        let Some(held) = self.claims.get_mut(slot) else {
            return;
        };
        if held.serves() {
            held.moving = false;
            held.move_until = None;
        } else if held.move_until.is_some_and(|until| until <= now.mono) {
            held.move_until = None;
            self.revisits.set(&slot.service, Some(now.mono));
        }
    }

    /// What did not come up in another one's place is not tried again here at once.
    pub(super) fn note_given_up(&mut self, slot: &SlotId, why: &str, world: &World<'_>, now: Now) {
        let Some(held) = self.claims.get(slot) else {
            return;
        };
        let failed = held.is_moving(world) && held.has_failed_to_move();
        if !failed || self.refusals.len() >= MAX_REFUSALS {
            return;
        }
        let key = (slot.service.clone(), held.claim.revision.clone());
        let until = now.mono.saturating_add(REFUSE_MS);
        let reason = why.to_owned();
        self.refusals.insert(key, Refusal { until, reason });
        self.revisits.set(&slot.service, Some(until));
    }
}
