//! Runs of jobs: each part of them is done once, and what is recorded as done was done.

use dunlin_core::io::{RuntimeEvent, Workload, WorkloadId};
use dunlin_state::desired::{Outcome, Service};
use dunlin_state::model::{RunId, ServiceKey, Slot, SlotId, output_variable};

use super::hooks::hooks_have_ended;

use crate::sim::world::{SECOND, World};

/// A scheduled job has begun its latest run after so many microseconds.
const BEGUN: u64 = 30 * SECOND;

/// A part of a run has ended by itself.
pub(in crate::sim) fn ended(world: &mut World, id: &WorkloadId, event: &RuntimeEvent) {
    let RuntimeEvent::Exited {
        code: 0,
        outputs: Ok(outputs),
        ..
    } = event
    else {
        return;
    };
    *world.watch.succeeded.entry(id.slot.clone()).or_default() += 1;
    world.outcome.succeeded += 1;
    let words = outputs.iter().map(|(_, value)| value.to_owned());
    world.watch.told.extend(words);
}

/// What waited for jobs starts with all that one of their runs has told, and with nothing that no
/// part of it wrote.
pub(in crate::sim) fn start_has_its_outputs(world: &mut World, host: usize, workload: &Workload) {
    let mut wrong = Vec::new();
    for dependency in &workload.spec.depends_on {
        let engine = world.hosts[host].engine.as_ref();
        let job = engine.and_then(|engine| engine.desired().services.get(&dependency.service));
        let Some(job) = job.and_then(|service| service.spec.job.as_deref()) else {
            continue;
        };
        let parts = (0..job.completions).map(|index| format!("PART_{index}"));
        for name in parts.chain(["LAST".to_owned()]) {
            let variable = output_variable(dependency.service.name(), &name);
            let given = workload.given.get(&variable);
            if given.is_none_or(|value| !world.watch.told.contains(value)) {
                wrong.push(format!(
                    "n{host} starts {} with {variable} = {given:?}, which nobody wrote",
                    workload.id.slot
                ));
            }
        }
        world.outcome.given += 1;
    }
    wrong.into_iter().for_each(|w| world.violation(w));
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
            if !service.has_runs() {
                continue;
            }
            wrong.extend(untrue_records(world, host.index, key, service));
            wrong.extend(hooks_have_ended(world, key, service));
            let Some(spec) = service.spec.job.as_deref() else {
                continue;
            };
            let own = RunId::Revision(service.revision.clone());
            if spec.schedule.is_none() && !has_ended(service, &own) {
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

fn has_ended(service: &Service, run: &RunId) -> bool {
    let state = service.jobs.runs.get(run);
    state.is_some_and(|run| run.result.is_some())
}

/// What a node has recorded of a job or of hooks, and did not happen.
fn untrue_records(world: &World, host: usize, key: &ServiceKey, service: &Service) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, run) in &service.jobs.runs {
        let (Some(name), Some(job)) = (id.service(key), service.job_of(id)) else {
            continue;
        };
        let truly = |index: &u32| {
            let service = name.clone();
            let slot = Slot::Replica(*index);
            let slot = SlotId { service, slot };
            world.watch.succeeded.contains_key(&slot)
        };
        if !run.done.iter().all(truly) {
            wrong.push(format!("n{host} records parts of {name} that failed"));
        }
        let result = run.result.as_ref().map(|r| r.outcome);
        let whole = run.done.len() == job.completions as usize;
        if result == Some(Outcome::Succeeded) && !whole {
            wrong.push(format!("n{host} records {name} before its end"));
        }
    }
    let told = service
        .jobs
        .told
        .iter()
        .flat_map(|told| told.outputs.iter());
    let invented = told.filter(|(_, value)| !world.watch.told.contains(*value));
    wrong.extend(invented.map(|(name, value)| {
        format!("n{host} records {name}={value} of {key}, which nobody wrote")
    }));
    wrong
}
