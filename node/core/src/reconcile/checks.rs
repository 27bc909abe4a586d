//! Health checks of running replicas: probes that are due, and what their answers change.

use dunlin_state::Now;
use dunlin_state::model::{Endpoint, Protocol, SlotId};

use super::held::{Stage, Then};
use super::{Effect, Reconciler};
use crate::health::{Ask, Test, Verdict};
use crate::io::{Probe, ProbeId, ProbeOrder, RuntimeCommand, WorkloadId};

impl Reconciler {
    /// Asks for the probes that are due.
    pub(super) fn run_checks(&mut self, slot: &SlotId, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        let id = held.id();
        let Stage::Running { health, .. } = &mut held.stage else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        let mut impossible = Vec::new();
        for ask in health.handle_timeout(now.mono) {
            match order(&id, &ask, &held.claim.endpoints) {
                Some(order) => effects.push(Effect::Runtime(RuntimeCommand::Probe(order))),
                None => impossible.push(ask),
            }
        }
        for ask in impossible {
            let reason = "the service declares no such TCP port".to_owned();
            effects.extend(self.on_probed(&probe_id(&id, &ask), &Err(reason), now));
        }
        self.set_timer(slot);
        effects
    }

    /// A probe was answered.
    pub(super) fn on_probed(
        &mut self,
        id: &ProbeId,
        result: &Result<(), String>,
        now: Now,
    ) -> Vec<Effect> {
        let random = self.random();
        let Some(held) = self.current(&id.workload) else {
            return Vec::new();
        };
        let Stage::Running { health, .. } = &mut held.stage else {
            return Vec::new();
        };
        let verdict = health.handle_probed(id.check, id.seq, result, now.mono, random);
        let slot = &id.workload.slot;
        let effects = match verdict {
            Verdict::Same => Vec::new(),
            Verdict::Ready => {
                held.claim.ready = true;
                held.ready_since = Some(now.mono);
                held.claim.message = None;
                self.changes.report = true;
                Vec::new()
            }
            Verdict::NotReady(why) => self.withdraw(slot, &why),
            Verdict::Dead(why) => self.condemn(slot, why, now),
        };
        self.set_timer(slot);
        effects
    }

    /// Takes a replica out of the routes.
    fn withdraw(&mut self, slot: &SlotId, why: &str) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        let was_ready = std::mem::replace(&mut held.claim.ready, false);
        held.ready_since = None;
        let before = held.claim.message.clone();
        held.say(why);
        self.changes.report |= was_ready || before != held.claim.message;
        if was_ready {
            let text = format!("{slot} gets no traffic: {why}");
            vec![self.event(slot, true, text)]
        } else {
            Vec::new()
        }
    }

    /// Ends an attempt that is unwell; the restart policy decides what follows.
    fn condemn(&mut self, slot: &SlotId, why: String, now: Now) -> Vec<Effect> {
        let text = format!("{slot} is stopped: {why}");
        if let Some(held) = self.claims.get_mut(slot) {
            held.forgive(now.mono);
            held.say(&why);
            held.condemned = Some(why);
        }
        let mut effects = vec![self.event(slot, true, text)];
        effects.extend(self.stop(slot, Then::Recover, now));
        effects
    }
}

fn probe_id(workload: &WorkloadId, ask: &Ask) -> ProbeId {
    ProbeId {
        workload: workload.clone(),
        check: ask.check,
        seq: ask.seq,
    }
}

/// The probe in terms of the replica's own addresses; `None` when it has no such port.
fn order(id: &WorkloadId, ask: &Ask, endpoints: &[Endpoint]) -> Option<Box<ProbeOrder>> {
    let address = |port: Option<u16>| {
        let mut tcp = endpoints.iter().filter(|e| e.protocol == Protocol::Tcp);
        tcp.find(|e| port.is_none_or(|port| e.target == port))
            .map(|e| e.address)
    };
    let probe = match &ask.test {
        Test::Tcp(port) => Probe::Tcp(address(*port)?),
        Test::Http(test) => Probe::Http {
            address: address(test.port)?,
            test: test.clone(),
        },
        Test::Exec(words) => Probe::Exec(words.clone()),
    };
    Some(Box::new(ProbeOrder {
        id: probe_id(id, ask),
        probe,
        timeout_ms: ask.timeout_ms,
    }))
}
