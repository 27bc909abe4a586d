//! What jobs have told: kept by whoever ran them until it is recorded, and given to what waited for
//! them.

use std::collections::BTreeMap;

use dunlin_state::Now;
use dunlin_state::model::{
    BadOutputs, Condition, Dependency, Mode, Outputs, RunId, ServiceSpec, SlotId, output_variable,
};

use super::held::{Held, Stage};
use super::{Reconciler, World};
use crate::depend::State;

/// Bytes of outputs that the claims of a node may hold: every node keeps its register, and as much
/// again of desired state would be as much as a person writes.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// Milliseconds until a replica looks again whether the record has come that others have acted on;
/// usually it takes less.
const LOOK_AGAIN_MS: u64 = 200;

/// Milliseconds that a replica waits for such a record when it may start without: what its job said
/// earlier is known, or that it has failed. Desired state is compared several times in this time.
const PATIENCE_MS: u64 = 5_000;

impl Reconciler {
    /// Whether there is room for what a part of a run has told. What is recorded by now is given up
    /// for it.
    pub(super) fn make_room(&mut self, new: &Outputs) -> Result<(), BadOutputs> {
        let kept = |claims: &BTreeMap<SlotId, Held>| -> usize {
            claims.values().map(|held| held.claim.outputs.bytes()).sum()
        };
        let fits = |kept: usize| kept + new.bytes() <= MAX_KEPT_BYTES;
        if fits(kept(&self.claims)) {
            return Ok(());
        }
        for held in self.claims.values_mut().filter(|held| held.is_recorded) {
            held.claim.outputs = Outputs::default();
        }
        if fits(kept(&self.claims)) {
            return Ok(());
        }
        let text = "this node holds so many that are not recorded that there is no room";
        Err(BadOutputs::Unreadable(text.to_owned()))
    }

    /// Notes whether what a part of a run has told is recorded.
    pub(super) fn note_recorded(&mut self, slot: &SlotId, world: &World<'_>) {
        let service = world.desired.services.get(&slot.service);
        let run = service.and_then(|service| service.jobs.run.as_ref());
        if let Some(held) = self.claims.get_mut(slot) {
            held.is_recorded = run.is_some_and(|run| run.result.is_some());
        }
    }
}

/// The variables that a replica finds its jobs' outputs in.
pub(super) fn given(spec: &ServiceSpec, world: &World<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for job in jobs(spec) {
        let service = world.desired.services.get(&job.service);
        let Some(told) = service.and_then(|service| service.jobs.told.as_ref()) else {
            continue;
        };
        for (name, value) in told.outputs.iter() {
            variables.insert(output_variable(job.service.name(), name), value.to_owned());
        }
    }
    variables
}

/// Whether what a replica writes to its file of outputs counts: parts of runs, but not hooks, and not
/// those of jobs on every node, of which each may say something else.
pub(super) fn tells(slot: &SlotId, spec: &ServiceSpec) -> bool {
    if spec.job.is_none() || spec.mode == Mode::Global {
        return false;
    }
    match RunId::of_service(&slot.service) {
        Some((_, RunId::Revision(_) | RunId::Instant(_) | RunId::Asked(_))) => true,
        Some((_, RunId::Pre(..) | RunId::Post(_))) | None => false,
    }
}

/// The dependencies that are waited for until they have ended.
fn jobs(spec: &ServiceSpec) -> impl Iterator<Item = &Dependency> {
    let all = spec.depends_on.iter();
    all.filter(|d| d.condition == Condition::ServiceCompletedSuccessfully)
}

impl Held {
    /// Whether its first start with this revision waits for the end of a job that others know to be
    /// recorded: who gave the slot away did. Later starts never wait.
    pub(super) fn lacks_outputs(&mut self, world: &World<'_>, now: Now) -> bool {
        if self.given_to.as_ref() == Some(&self.claim.revision) {
            return false;
        }
        let until = *self
            .outputs_until
            .get_or_insert(now.mono.saturating_add(PATIENCE_MS));
        let spec = self.spec.clone();
        let lack = spec.as_deref().and_then(|spec| {
            let gate = world.gate();
            jobs(spec).find_map(|job| {
                let known = world.desired.services.get(&job.service)?;
                let told = known.jobs.told.is_some() || !known.is_job();
                match gate.state(&job.service, job.condition) {
                    State::Met => None,
                    State::Waiting(why) => (!told || now.mono < until).then_some((job, why)),
                    State::Failed(_) if !job.required => None,
                    State::Failed(why) => (now.mono < until).then_some((job, why)),
                }
            })
        });
        match lack {
            None => {
                self.given_to = Some(self.claim.revision.clone());
                self.outputs_until = None;
                false
            }
            Some((job, why)) => {
                let text = format!("waits for {} {}: {why}", job.service, job.condition);
                self.say(&text);
                self.stage = Stage::Waiting {
                    at: now.mono.saturating_add(LOOK_AGAIN_MS),
                };
                true
            }
        }
    }
}
