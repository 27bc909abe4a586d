//! Taking up the work of an earlier life.
//!
//! Claims come from the disk, running replicas from the runtimes, and the two are matched by
//! attempt. What runs goes on running. What does not is started again, but only after the others
//! had a chance to say that they have taken it over ([`Reconciler::open_gate`]).

use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::model::{Claim, ExitReport, Mode, Phase, RunId, Slot, SlotId};

use super::events::{End, remove, stop_stray};
use super::held::{Held, Stage};
use super::{ADOPT_AGAIN_MS, Effect, Reconciler, World};
use crate::io::{Adopted, RuntimeCommand};

impl Reconciler {
    /// Takes over the claims of an earlier life and asks what still runs.
    pub(crate) fn recover(
        &mut self,
        claims: Vec<Claim>,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        for claim in claims {
            let slot = claim.slot.clone();
            let service = world.desired.services.get(&slot.service);
            let spec = service
                .and_then(|s| s.spec_of(&claim.revision))
                .map(Arc::clone);
            self.changes.held.insert(slot.service.clone());
            self.claims.insert(slot, Held::recovered(claim, spec));
        }
        self.changes.report = true;
        self.ask_adopted = Some(now.mono.saturating_add(ADOPT_AGAIN_MS));
        vec![Effect::Runtime(RuntimeCommand::Adopt)]
    }

    /// Whether the runtimes have said what runs.
    pub(crate) fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// The others were heard, or are not there: claims that do not run are started.
    pub(crate) fn open_gate(&mut self, world: &World<'_>, now: Now) -> Vec<Effect> {
        self.gate_open = true;
        let parked: Vec<SlotId> = self
            .claims
            .iter()
            .filter(|(_, held)| held.stage == Stage::Parked)
            .map(|(slot, _)| slot.clone())
            .collect();
        let mut effects = Vec::new();
        for slot in parked {
            // What others have taken over meanwhile is given up here.
            effects.extend(self.review_slot(&slot, world, now));
            self.unpark(&slot, now);
            effects.extend(self.run_due(&slot, world, now));
        }
        effects
    }

    fn unpark(&mut self, slot: &SlotId, now: Now) {
        if let Some(held) = self.claims.get_mut(slot)
            && held.stage == Stage::Parked
            && held.spec.is_some()
        {
            held.stage = Stage::Waiting { at: now.mono };
        }
    }

    /// The runtimes say what runs from an earlier life.
    pub(super) fn on_adopted(
        &mut self,
        mut found: Vec<Adopted>,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        // Of several attempts at one slot the newest is taken up and the others are cleared away.
        found.sort_by(|a, b| b.running.id.cmp(&a.running.id));
        let mut effects = Vec::new();
        for workload in found {
            effects.extend(self.adopt(workload, world, now));
        }
        if !self.adopted {
            self.adopted = true;
            self.ask_adopted = None;
            effects.extend(self.park_missing(world, now));
        }
        self.changes.report = true;
        effects
    }

    fn adopt(&mut self, workload: Adopted, world: &World<'_>, now: Now) -> Vec<Effect> {
        let Adopted {
            running,
            revision,
            exited,
            outputs,
        } = workload;
        let slot = running.id.slot.clone();
        if exited.is_none() && !self.claims.contains_key(&slot) {
            self.recover_claim(&running.id.slot, running.id.epoch, &revision, world, now);
        }
        let Some(held) = self.claims.get_mut(&slot) else {
            return vec![clear_away(running.id, exited.is_some())];
        };
        let id = running.id.clone();
        let newer = id.epoch > held.claim.epoch;
        let same = id.epoch == held.claim.epoch && id.attempt >= held.attempt;
        if held.stage != Stage::Recovering || !(newer || same) {
            let mine = held.id() == id;
            return if mine {
                Vec::new()
            } else {
                vec![clear_away(id, exited.is_some())]
            };
        }
        held.claim.epoch = id.epoch;
        held.attempt = id.attempt;
        held.claim.restarts = id.attempt;
        if held.claim.revision != revision {
            held.claim.revision = revision;
            let service = world.desired.services.get(&slot.service);
            let known = service.and_then(|s| s.spec_of(&held.claim.revision));
            held.spec = known.map(Arc::clone);
        }
        match exited {
            None => {
                let started_at = held.claim.started_at;
                held.set_running(running, now.wall, now.mono);
                held.claim.started_at = started_at.or(held.claim.started_at);
                // They may have changed while nobody looked.
                let mut effects: Vec<Effect> = held.refresh().into_iter().collect();
                self.use_volumes(&slot, world, now);
                effects.extend(self.run_due(&slot, world, now));
                effects.extend(self.review_slot(&slot, world, now));
                effects
            }
            Some((code, oom)) => {
                held.stage = Stage::Starting { asked: now.mono };
                let exit = ExitReport {
                    code,
                    oom,
                    at: now.wall,
                    last_words: Vec::new(),
                };
                self.exited_unseen(&slot, End { exit, outputs }, now)
            }
        }
    }

    /// It ended while nobody watched. The daemon's absence is no failure of the replica, so the
    /// policy decides only whether it starts again, not when.
    fn exited_unseen(&mut self, slot: &SlotId, end: End, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get(slot) else {
            return Vec::new();
        };
        let id = held.id();
        let effects = self.on_died(&id, Some(end), now);
        if let Some(held) = self.claims.get_mut(slot)
            && matches!(held.stage, Stage::Waiting { .. })
        {
            held.stage = Stage::Parked;
            if RunId::of_service(&slot.service).is_none() {
                held.failures = 0;
            }
            if self.gate_open {
                held.stage = Stage::Waiting { at: now.mono };
            }
        }
        self.set_timer(slot);
        effects
    }

    /// A replica runs and its claim was lost with the disk's last writes: it is claimed again when
    /// the cluster wants the slot, or does not say.
    fn recover_claim(
        &mut self,
        slot: &SlotId,
        epoch: u64,
        revision: &str,
        world: &World<'_>,
        now: Now,
    ) {
        let service = world.desired.services.get(&slot.service);
        let wanted = match service {
            None => !world.desired_known,
            Some(service) => match (slot.slot, service.spec.mode) {
                (Slot::Replica(index), Mode::Replicated) => index < service.wanted_replicas(),
                (Slot::Node(node), Mode::Global) => service.running && node == self.me,
                (Slot::Replica(_), Mode::Global) | (Slot::Node(_), Mode::Replicated) => false,
            },
        };
        if !wanted {
            return;
        }
        let resources = service.map(|s| s.spec.reservation).unwrap_or_default();
        if !self
            .committed()
            .plus(resources)
            .fits_in(world.host.capacity)
        {
            return;
        }
        let claim = Claim {
            slot: slot.clone(),
            epoch,
            revision: revision.to_owned(),
            phase: Phase::Claimed,
            ready: false,
            leaving: false,
            since: now.wall,
            resources,
            host_ports: service
                .map(|s| s.spec.host_ports().collect())
                .unwrap_or_default(),
            endpoints: Vec::new(),
            restarts: 0,
            last_exit: None,
            message: None,
            workload: None,
            started_at: None,
            trial: dunlin_state::model::Trial::default(),
            moved_from: None,
            history: Vec::new(),
            outputs: dunlin_state::model::Outputs::default(),
        };
        let spec = service.and_then(|s| s.spec_of(revision)).map(Arc::clone);
        let mut held = Held::recovered(claim, spec);
        held.stage = Stage::Recovering;
        self.claims.insert(slot.clone(), held);
        self.changes.durable = true;
        self.changes.held.insert(slot.service.clone());
    }

    /// What was held and does not run waits for the gate.
    fn park_missing(&mut self, world: &World<'_>, now: Now) -> Vec<Effect> {
        let missing: Vec<SlotId> = self
            .claims
            .iter()
            .filter(|(_, held)| held.stage == Stage::Recovering)
            .map(|(slot, _)| slot.clone())
            .collect();
        for slot in &missing {
            if let Some(held) = self.claims.get_mut(slot) {
                held.stage = Stage::Parked;
                held.attempt = held.attempt.saturating_add(1);
                held.set_dead();
                held.claim.phase = Phase::Claimed;
            }
        }
        if self.gate_open {
            self.open_gate(world, now)
        } else {
            Vec::new()
        }
    }
}

fn clear_away(id: crate::io::WorkloadId, dead: bool) -> Effect {
    if dead { remove(id) } else { stop_stray(id) }
}
