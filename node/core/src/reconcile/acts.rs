//! Carrying out what a claim should become.

use dunlin_state::Now;
use dunlin_state::desired::Service;
use dunlin_state::model::{Phase, SlotId};

use super::halt::{self, Bar};
use super::held::{Stage, Then};
use super::wish::{Wish, wish};
use super::{Effect, REPLACE_SOON_MS, Reconciler, World, stop_command};
use crate::io::RuntimeCommand;

impl Reconciler {
    pub(super) fn review_slot(
        &mut self,
        slot: &SlotId,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        self.follow_round(slot, world, now);
        self.note_recorded(slot, world);
        self.look_at_move(slot, now);
        let Some(held) = self.claims.get(slot) else {
            return Vec::new();
        };
        let view = || {
            let mut view = self.view(world.host, world.desired, Some(slot));
            world.bidder.add_offers(&mut view);
            view
        };
        let evicted = self.evicted(slot, now.mono);
        let wish = match held.gives_up_move(world) {
            Some(why) => Wish::Stop(why),
            None => wish(held, evicted.as_ref(), world, view),
        };
        let wish = match (halt::bar(held, world, now), wish) {
            (
                Some(Bar { why, urgent }),
                Wish::Keep | Wish::Leave(_) | Wish::Replace | Wish::ReplaceSoon,
            ) if held.may_run() => Wish::Halt(why, urgent),
            (_, wish) => wish,
        };
        let service = world.desired.services.get(&slot.service);
        if wish != Wish::Replace
            && let Some(held) = self.claims.get_mut(slot)
        {
            held.turn_since = None;
        }
        match (wish, service) {
            (Wish::Keep, _) => self.keep(slot, now),
            (Wish::Leave(why), _) => self.leave(slot, &why),
            (Wish::Halt(why, urgent), _) => self.halt(slot, &why, urgent, now),
            (Wish::Stop(why), service) => {
                self.note_given_up(slot, &why, world, now);
                // What nobody wants at all has nobody to hand its connections to.
                let drain = service.is_some_and(|s| s.running) && !world.leaving;
                self.end(slot, &why, drain, now)
            }
            (Wish::Replace, Some(service)) => self.replace(slot, service, world, now),
            (Wish::ReplaceSoon, _) => {
                let at = now.mono + REPLACE_SOON_MS;
                self.revisits.set(&slot.service, Some(at));
                Vec::new()
            }
            // Only a service that exists can want a replacement.
            (Wish::Replace, None) => Vec::new(),
        }
    }

    fn keep(&mut self, slot: &SlotId, now: Now) -> Vec<Effect> {
        self.undrain(slot, now);
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        // One that is unwell is left to the restart policy.
        if let Stage::Stopping { then, .. } = &mut held.stage
            && *then == Then::Release
        {
            *then = Then::Restart;
        }
        if held.claim.leaving {
            held.claim.leaving = false;
            self.changes.report = true;
            self.changes.durable = true;
        }
        Vec::new()
    }

    fn leave(&mut self, slot: &SlotId, why: &str) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        if held.claim.leaving {
            return Vec::new();
        }
        held.claim.leaving = true;
        held.say(why);
        let text = format!("{slot} looks for another node: {why}");
        let event = self.event(slot, false, text);
        self.changes.report = true;
        self.changes.durable = true;
        vec![event]
    }

    /// Ends a claim: at once when nothing runs, else after its replica has stopped.
    fn end(&mut self, slot: &SlotId, why: &str, drain: bool, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        match &mut held.stage {
            // What runs has to be known before it can be stopped.
            Stage::Recovering => Vec::new(),
            Stage::Parked | Stage::Waiting { .. } | Stage::Ended => self.release(slot),
            Stage::Draining { .. } if !drain => self.stop(slot, Then::Release, now),
            Stage::Stopping { then, .. } | Stage::Draining { then, .. } => {
                *then = Then::Release;
                if !held.claim.leaving {
                    held.claim.leaving = true;
                    self.changes.report = true;
                }
                Vec::new()
            }
            Stage::Starting { .. } | Stage::Running { .. } => {
                held.claim.leaving = true;
                held.say(why);
                let text = format!("stopping {slot}: {why}");
                let mut effects = vec![self.event(slot, false, text)];
                effects.extend(if drain {
                    self.drain(slot, Then::Release, now)
                } else {
                    self.stop(slot, Then::Release, now)
                });
                effects
            }
        }
    }

    fn replace(
        &mut self,
        slot: &SlotId,
        service: &Service,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        if self.is_too_early(slot, service, now) {
            return Vec::new();
        }
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        let (revision, spec) = service.target(slot.slot);
        held.claim.leaving = false;
        self.changes.report = true;
        self.changes.durable = true;
        match &mut held.stage {
            Stage::Recovering => Vec::new(),
            Stage::Parked if !self.gate_open => {
                held.adopt_spec(service);
                Vec::new()
            }
            Stage::Parked | Stage::Waiting { .. } | Stage::Ended => {
                held.adopt_spec(service);
                held.stage = Stage::Waiting { at: now.mono };
                self.run_due(slot, world, now)
            }
            Stage::Stopping { then, .. } | Stage::Draining { then, .. } => {
                *then = Then::Restart;
                held.reserve_also(spec);
                Vec::new()
            }
            Stage::Starting { .. } | Stage::Running { .. } => {
                held.reserve_also(spec);
                let text = format!("updating {slot} to {revision}");
                let mut effects = vec![self.event(slot, false, text)];
                effects.extend(self.drain(slot, Then::Restart, now));
                effects
            }
        }
    }

    /// Whether the pause before a change has not passed yet.
    fn is_too_early(&mut self, slot: &SlotId, service: &Service, now: Now) -> bool {
        let delay = service.update().delay_ms;
        let Some(held) = self.claims.get_mut(slot).filter(|held| held.is_up()) else {
            return false;
        };
        let since = *held.turn_since.get_or_insert(now.mono);
        let at = since.saturating_add(delay);
        if at <= now.mono {
            held.turn_since = None;
            return false;
        }
        self.revisits.set(&slot.service, Some(at));
        true
    }

    /// Takes a replica out of the routes, and stops it when its connections had time to end.
    pub(super) fn drain(&mut self, slot: &SlotId, then: Then, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        let wait = held.spec.as_ref().map_or(0, |spec| spec.drain_ms());
        let Stage::Running { since, health } = &held.stage else {
            return self.stop(slot, then, now);
        };
        if wait == 0 || !held.claim.ready {
            return self.stop(slot, then, now);
        }
        held.stage = Stage::Draining {
            since: *since,
            health: health.clone(),
            then,
            until: now.mono.saturating_add(wait),
        };
        held.claim.phase = Phase::Stopping;
        held.claim.ready = false;
        held.say("its connections end");
        self.changes.report = true;
        self.set_timer(slot);
        Vec::new()
    }

    /// It is wanted after all, and has not been told to stop.
    fn undrain(&mut self, slot: &SlotId, now: Now) {
        let Some(held) = self.claims.get_mut(slot) else {
            return;
        };
        if let Stage::Draining { since, health, .. } = &mut held.stage {
            health.listen_again(now.mono);
            held.claim.phase = Phase::Running;
            held.claim.ready = health.is_ready();
            held.claim.message = None;
            held.stage = Stage::Running {
                since: *since,
                health: health.clone(),
            };
            self.changes.report = true;
            self.set_timer(slot);
        }
    }

    pub(super) fn stop(&mut self, slot: &SlotId, then: Then, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        held.stage = Stage::Stopping {
            then,
            asked: now.mono,
        };
        held.claim.phase = Phase::Stopping;
        held.claim.ready = false;
        held.ready_since = None;
        let command = stop_command(held);
        self.changes.report = true;
        self.set_timer(slot);
        vec![Effect::Runtime(command)]
    }

    /// Gives a slot up; nothing of it runs.
    pub(super) fn release(&mut self, slot: &SlotId) -> Vec<Effect> {
        let Some(held) = self.claims.remove(slot) else {
            return Vec::new();
        };
        self.timers.set(slot, None);
        self.changes.report = true;
        self.changes.durable = true;
        self.changes.held.insert(slot.service.clone());
        self.unreserve_volumes(&held);
        let residue = held.residue.into_iter();
        residue
            .map(|id| Effect::Runtime(RuntimeCommand::Remove { id }))
            .collect()
    }
}
