//! Runs of jobs: each part of them is done once, and what is recorded as done was done.

use dunlin_core::io::WorkloadId;
use dunlin_state::desired::Outcome;
use dunlin_state::model::{RunId, Slot, SlotId};

use crate::sim::world::{SECOND, World};

/// A scheduled job has begun its latest run after so many microseconds.
const BEGUN: u64 = 30 * SECOND;

/// A part of a run has ended by itself.
pub(in crate::sim) fn ended(world: &mut World, slot: &SlotId, code: i32) {
    if code == 0 {
        *world.watch.succeeded.entry(slot.clone()).or_default() += 1;
        world.outcome.succeeded += 1;
    }
}

/// A part of a run starts: not when it is done, as far as this node has heard; and where nothing
/// goes wrong, not when it is truly done.
pub(in crate::sim) fn start_is_no_repetition(world: &mut World, host: usize, id: &WorkloadId) {
    let Some((job, run)) = RunId::of_service(&id.slot.service) else {
        return;
    };
    let engine = world.hosts[host].engine.as_ref();
    let known = engine.and_then(|engine| {
        let job = engine.desired().services.get(&job)?;
        job.jobs.runs.get(&run)
    });
    let Slot::Replica(index) = id.slot.slot else {
        return;
    };
    let recorded = known.is_some_and(|run| run.done.contains(&index) || run.result.is_some());
    let repeated = world.watch.gentle && world.watch.succeeded.contains_key(&id.slot);
    if recorded || repeated {
        let slot = &id.slot;
        world.violation(format!("n{host} starts {slot}, which has done its work"));
    }
}

/// At rest every job has had its run, and nothing is recorded that did not happen.
pub(super) fn runs_have_ended(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    for host in &world.hosts {
        let Some(engine) = &host.engine else { continue };
        for (key, service) in &engine.desired().services {
            let Some(spec) = service.spec.job.as_deref().filter(|_| service.is_job()) else {
                continue;
            };
            for (id, run) in &service.jobs.runs {
                let Some(name) = id.service(key) else {
                    continue;
                };
                let truly = |index: &u32| {
                    let service = name.clone();
                    let slot = Slot::Replica(*index);
                    world
                        .watch
                        .succeeded
                        .contains_key(&SlotId { service, slot })
                };
                if !run.done.iter().all(truly) {
                    wrong.push(format!(
                        "n{} records parts of {name} that failed",
                        host.index
                    ));
                }
                let result = run.result.as_ref().map(|r| r.outcome);
                let whole = run.done.len() == spec.completions as usize;
                if result == Some(Outcome::Succeeded) && !whole {
                    wrong.push(format!("n{} records {name} before its end", host.index));
                }
            }
            let own = RunId::Revision(service.revision.clone());
            let ended = service
                .jobs
                .runs
                .get(&own)
                .is_some_and(|run| run.result.is_some());
            if spec.schedule.is_none() && !ended {
                wrong.push(format!("{key} has not had its run"));
            }
            let late = (host.now(world.now).wall).saturating_sub(BEGUN / 1_000);
            if spec.schedule.is_some() && service.jobs.until < late && service.jobs.since < late {
                wrong.push(format!("{key} has missed its time"));
            }
        }
    }
    wrong
}
