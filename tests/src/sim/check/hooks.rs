//! Hooks: nothing gets a revision before the hook that comes first has succeeded, and the one that
//! comes last waits for all of it.

use std::collections::BTreeSet;

use dunlin_core::io::Workload;
use dunlin_state::desired::{Outcome, Service};
use dunlin_state::model::{NodeReport, RunId, ServiceKey, Slot, SlotId, Trial};

use crate::sim::world::World;

/// Remembers which slots have proven which revision.
pub(super) fn note_proven(proven: &mut BTreeSet<(SlotId, String)>, report: &NodeReport) {
    let claims = report.claims.iter().filter(|c| c.trial == Trial::Proven);
    for claim in claims {
        let known = (claim.slot.clone(), claim.revision.clone());
        proven.insert(known);
    }
}

/// A replica starts, or a hook does.
pub(in crate::sim) fn start_is_in_turn(world: &mut World, host: usize, workload: &Workload) {
    let slot = &workload.id.slot;
    let broken = match RunId::of_service(&slot.service) {
        None => {
            let hooks = workload.spec.hooks.as_deref();
            let waits = hooks.is_some_and(|hooks| hooks.pre_deploy.is_some());
            let early = waits && !has_passed(world, &slot.service, &workload.revision);
            early.then(|| format!("n{host} starts {slot} before its hook has succeeded"))
        }
        Some((service, RunId::Post(revision))) => {
            world.outcome.hooks += 1;
            let mut wanted = (0..least_scale(world, &service)).map(Slot::Replica);
            let unproven = wanted.find(|slot| {
                let service = service.clone();
                let slot = SlotId {
                    service,
                    slot: *slot,
                };
                !world.watch.proven.contains(&(slot, revision.clone()))
            });
            // Whoever takes over from a node that has died need not prove again what others have.
            let unproven = unproven.filter(|_| world.watch.gentle);
            unproven.map(|index| format!("n{host} starts {slot} before slot {index} is proven"))
        }
        Some((_, RunId::Pre(..))) => {
            world.outcome.hooks += 1;
            None
        }
        Some((_, RunId::Revision(_) | RunId::Instant(_) | RunId::Asked(_))) => None,
    };
    broken.into_iter().for_each(|b| world.violation(b));
}

/// Whether the hook before this revision has truly ended well, in the only round there is.
fn has_passed(world: &World, service: &ServiceKey, revision: &str) -> bool {
    let run = RunId::Pre(revision.to_owned(), 0);
    run.service(service).is_some_and(|service| {
        let slot = Slot::Replica(0);
        world
            .watch
            .succeeded
            .contains_key(&SlotId { service, slot })
    })
}

/// The least that anybody has asked for: whoever lets the last hook start may not know of more.
fn least_scale(world: &World, service: &ServiceKey) -> u32 {
    let scales = world.ops.scales.get(service);
    scales.map_or(1, |writes| writes.least())
}

/// Whether a deploy is held, as its hook has failed: nothing has to run then.
pub(super) fn is_held(service: &Service) -> bool {
    let result = service.pre_hook().and_then(|hook| {
        let run = service.jobs.runs.get(&hook)?;
        run.result.as_ref().map(|result| result.outcome)
    });
    result.is_some_and(|outcome| outcome != Outcome::Succeeded)
}

/// At rest the hooks of what runs have ended, and where nothing went wrong, no deploy is held
/// although its hook has succeeded.
pub(super) fn hooks_have_ended(world: &World, key: &ServiceKey, service: &Service) -> Vec<String> {
    let mut wrong = Vec::new();
    let ended = |hook: &RunId| {
        let run = service.jobs.runs.get(hook);
        run.is_some_and(|run| run.result.is_some())
    };
    if let Some(hook) = service.pre_hook()
        && !ended(&hook)
    {
        wrong.push(format!("{key} has not had its hook before the deploy"));
    }
    if is_held(service) {
        if world.watch.gentle && has_passed(world, key, &service.revision) {
            wrong.push(format!("{key} is held, and its hook has succeeded"));
        }
        return wrong;
    }
    if let Some(hook) = service.post_hook()
        && service.wanted_replicas() > 0
        && !ended(&hook)
    {
        wrong.push(format!("{key} has not had its hook after the deploy"));
    }
    wrong
}
