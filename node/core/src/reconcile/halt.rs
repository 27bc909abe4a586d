//! Replicas that may not run although their slot is held: their node is cut off.
//!
//! The claim stays. What runs is stopped, and what does not run waits, until it may; should somebody
//! else have taken the slot meanwhile, the order of claims decides as always.

use dunlin_state::Now;
use dunlin_state::model::SlotId;

use super::held::{Held, Stage, Then};
use super::{Effect, Reconciler, World};

/// Milliseconds until what waits is looked at again; what changes is told at once.
const LOOK_AGAIN_MS: u64 = 500;

/// Why a replica may not run.
pub(super) fn bar(held: &Held, world: &World<'_>, now: Now) -> Option<String> {
    let service = world.desired.services.get(&held.claim.slot.service)?;
    let policy = &service.spec.policy;
    world.isolation.bars(policy, held.may_run(), now.mono)
}

impl Held {
    /// Whether it may not be started now; then it waits and says why.
    pub(super) fn is_barred(&mut self, world: &World<'_>, now: Now) -> bool {
        let Some(why) = bar(self, world, now) else {
            return false;
        };
        self.say(&why);
        self.stage = Stage::Waiting {
            at: now.mono.saturating_add(LOOK_AGAIN_MS),
        };
        true
    }
}

impl Reconciler {
    /// Stops a replica that may not run any more; its claim waits until it may.
    pub(super) fn halt(&mut self, slot: &SlotId, why: &str, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        match &mut held.stage {
            Stage::Starting { .. } | Stage::Running { .. } => {
                held.say(why);
                let text = format!("stopping {slot}: {why}");
                let mut effects = vec![self.event(slot, true, text)];
                effects.extend(self.drain(slot, Then::Restart, now));
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
}
