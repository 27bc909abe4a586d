//! Replicas that may not run although their slot is held: their node is cut off, or they lack the votes
//! that what must never run twice needs.
//!
//! The claim stays. What runs is stopped, and what does not run waits, until it may; should somebody
//! else have taken the slot meanwhile, the order of claims decides as always.

use dunlin_state::Now;
use dunlin_state::model::SlotId;

use super::held::{Held, Stage, Then};
use super::{Effect, Reconciler, World};
use crate::io::RuntimeCommand;
use crate::lease::FENCE_GRACE_MS;

/// Milliseconds until what waits is looked at again; what changes is told at once.
const LOOK_AGAIN_MS: u64 = 500;

/// Why a replica may not run, and whether it has to end quickly.
pub(super) struct Bar {
    pub(super) why: String,
    pub(super) urgent: bool,
}

/// What stands against a replica, if anything does.
pub(super) fn bar(held: &Held, world: &World<'_>, now: Now) -> Option<Bar> {
    let slot = &held.claim.slot;
    let service = world.desired.services.get(&slot.service)?;
    let (policy, runs) = (&service.spec.policy, held.may_run());
    if policy.is_strict()
        && let Some(why) = world.leases.bars(slot, runs, now.mono)
    {
        return Some(Bar { why, urgent: true });
    }
    let why = world.isolation.bars(policy, runs, now.mono)?;
    Some(Bar { why, urgent: false })
}

impl Held {
    /// Whether it may not be started now; then it waits and says why.
    pub(super) fn is_barred(&mut self, world: &World<'_>, now: Now) -> bool {
        let Some(Bar { why, urgent }) = bar(self, world, now) else {
            return false;
        };
        self.waits_for_votes = urgent;
        self.say(&why);
        self.stage = Stage::Waiting {
            at: now.mono.saturating_add(LOOK_AGAIN_MS),
        };
        true
    }
}

impl Reconciler {
    /// Stops a replica that may not run any more; its claim waits until it may.
    pub(super) fn halt(&mut self, slot: &SlotId, why: &str, urgent: bool, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        match &mut held.stage {
            Stage::Starting { .. } | Stage::Running { .. } => {
                held.say(why);
                let text = format!("stopping {slot}: {why}");
                let mut effects = vec![self.event(slot, true, text)];
                effects.extend(if urgent {
                    self.fence(slot, now)
                } else {
                    self.drain(slot, Then::Restart, now)
                });
                effects
            }
            Stage::Draining { then, .. } if urgent => {
                let keeps = *then != Then::Release;
                let effects = self.fence(slot, now);
                if !keeps {
                    self.give_up_fenced(slot);
                }
                effects
            }
            Stage::Draining { then, .. } | Stage::Stopping { then, .. } => {
                if *then == Then::Recover {
                    *then = Then::Restart;
                }
                Vec::new()
            }
            Stage::Recovering | Stage::Parked | Stage::Waiting { .. } | Stage::Ended => Vec::new(),
        }
    }

    /// Stops a replica whose lease is about to end: it has less time than it asked for.
    fn fence(&mut self, slot: &SlotId, now: Now) -> Vec<Effect> {
        let mut effects = self.stop(slot, Then::Restart, now);
        for effect in &mut effects {
            if let Effect::Runtime(RuntimeCommand::Stop { grace_ms, .. }) = effect {
                *grace_ms = FENCE_GRACE_MS.min(*grace_ms);
            }
        }
        effects
    }

    /// What was to be given up anyway is not started again.
    fn give_up_fenced(&mut self, slot: &SlotId) {
        if let Some(held) = self.claims.get_mut(slot)
            && let Stage::Stopping { then, .. } = &mut held.stage
        {
            *then = Then::Release;
        }
    }

    /// Tells the runtime for how long a replica may run.
    pub(crate) fn extend(&mut self, slot: &SlotId, until: u64, now: Now) -> Option<Effect> {
        let held = self.claims.get(slot).filter(|held| held.may_run())?;
        let lease_ms = until.saturating_sub(now.mono);
        let id = held.id();
        Some(Effect::Runtime(RuntimeCommand::Extend { id, lease_ms }))
    }

    /// What waits for votes may have them now.
    pub(crate) fn lease_changed(
        &mut self,
        slot: &SlotId,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        if let Some(held) = self.claims.get_mut(slot)
            && held.waits_for_votes
            && matches!(held.stage, Stage::Waiting { .. })
        {
            held.waits_for_votes = false;
            held.stage = Stage::Waiting { at: now.mono };
            return self.run_due(slot, world, now);
        }
        Vec::new()
    }
}
