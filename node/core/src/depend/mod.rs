//! Whether what a service depends on is there.
//!
//! The gate stands before the first replica of a revision, and nowhere else: an auctioneer does not
//! give a slot away, a node does not claim its slot of a daemon service, and a holder does not
//! replace what it runs, until the conditions hold. It stands before the auction and not before the
//! start, so that whoever waits reserves nothing: else a service could take the room that the one
//! which it waits for needs. Once a slot has been given away at that revision the gate stays open:
//! it orders the start of an application and not its life. So nothing that runs is stopped because
//! a dependency fails later, a replica whose node has died is not held back by that, and a rolling
//! update either waits with all its old replicas or goes through.
//!
//! Nobody polls: the claims of dependencies are indexed where they matter, and when a condition has
//! changed the services that wait for it are looked at again.

use dunlin_state::desired::{Desired, Outcome, RunState, Service};
use dunlin_state::model::{
    Claim, Condition, Dependency, Mode, NodeId, Phase, RunId, ServiceKey, Slot, Trial,
};

use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;

#[cfg(test)]
mod tests;

/// How a service stands regarding one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It holds.
    Met,
    /// It may come to hold; why it does not yet.
    Waiting(String),
    /// It will not hold unless a person changes something.
    Failed(String),
}

/// What a service waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// In words, as they follow the name of the service.
    pub text: String,
    /// Whether it waits in vain until a person changes something.
    pub in_vain: bool,
}

/// All conditions of a service that others may wait for, to see when one changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Conditions {
    started: bool,
    healthy: bool,
    completed: bool,
    rolled_out: bool,
    /// One that does not hold never will.
    failed: bool,
}

/// What the cluster knows of dependencies.
#[derive(Clone, Copy)]
pub(crate) struct Gate<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) desired: &'a Desired,
}

impl<'a> Gate<'a> {
    /// What the slot has to wait for before it is filled with its specification, if anything.
    pub(crate) fn bars(&self, key: &ServiceKey, service: &Service, slot: Slot) -> Option<Wait> {
        let (revision, _) = service.target(slot);
        if revision != service.revision {
            // What was there before is not held back by what the new one needs.
            return None;
        }
        self.wait(key, service)
    }

    /// What the present revision of the service waits for.
    pub(crate) fn wait(&self, key: &ServiceKey, service: &Service) -> Option<Wait> {
        let mut dependencies = service.spec.depends_on.iter();
        let wait = dependencies.find_map(|dependency| self.unmet(dependency));
        let wait = wait.or_else(|| before_deploy(service))?;
        let claims = self.cluster.all_claims(key);
        let mut past = claims
            .iter()
            .filter(|(_, c)| c.revision == service.revision);
        past.next().is_none().then_some(wait)
    }

    fn unmet(&self, dependency: &Dependency) -> Option<Wait> {
        let Dependency {
            service,
            condition,
            required,
        } = dependency;
        let (why, in_vain) = match self.state(service, *condition) {
            State::Met => return None,
            State::Failed(_) if !required => return None,
            State::Waiting(why) => (why, false),
            State::Failed(why) => (why, true),
        };
        Some(Wait {
            text: format!("waits for {service} {condition}: {why}"),
            in_vain,
        })
    }

    /// All conditions at once.
    pub(crate) fn conditions(&self, key: &ServiceKey) -> Conditions {
        let started = self.state(key, Condition::ServiceStarted);
        let healthy = self.state(key, Condition::ServiceHealthy);
        let completed = self.state(key, Condition::ServiceCompletedSuccessfully);
        let failed = |state: &State| matches!(state, State::Failed(_));
        Conditions {
            started: started == State::Met,
            healthy: healthy == State::Met,
            completed: completed == State::Met,
            rolled_out: self.state(key, Condition::ServiceRolledOut) == State::Met,
            failed: failed(&healthy) || failed(&completed),
        }
    }

    /// How a service stands regarding a condition.
    pub(crate) fn state(&self, key: &ServiceKey, condition: Condition) -> State {
        let Some(service) = self.desired.services.get(key) else {
            return State::Failed("there is no such service".to_owned());
        };
        if !service.running {
            return State::Waiting("it is stopped".to_owned());
        }
        if service.is_job() {
            return of_job(service, condition);
        }
        if service.spec.mode == Mode::Replicated && service.wanted_replicas() == 0 {
            return State::Waiting("it has no replicas".to_owned());
        }
        let claims = self.cluster.all_claims(key);
        let claims: Vec<&Claim> = claims
            .into_iter()
            .filter(|(node, _)| self.counts(*node))
            .map(|(_, claim)| claim)
            .collect();
        let lives = |claim: &&&Claim| claim.phase == Phase::Running;
        let ended = |claim: &&&Claim| claim.phase == Phase::Completed;
        let met = match condition {
            Condition::ServiceStarted => claims.iter().any(|c| lives(&c) || ended(&c)),
            Condition::ServiceHealthy => claims.iter().any(|c| lives(&c) && c.ready),
            Condition::ServiceCompletedSuccessfully => return completed(service, &claims),
            Condition::ServiceRolledOut => return rolled_out(service, &claims),
        };
        if met {
            return State::Met;
        }
        let telling = claims.iter().find_map(|claim| claim.message.clone());
        let text = telling.unwrap_or_else(|| {
            let text = match claims.first() {
                None => "no node has taken it yet",
                Some(_) if condition == Condition::ServiceHealthy => "no replica is ready",
                Some(_) => "no replica runs",
            };
            text.to_owned()
        });
        if !claims.is_empty() && claims.iter().all(|c| c.phase == Phase::Failed) {
            return State::Failed(text);
        }
        State::Waiting(text)
    }

    fn counts(&self, node: NodeId) -> bool {
        self.cluster.standing(node).holds_claims() && self.cluster.is_trusted(node)
    }
}

/// Whether all slots of a service that is no job have ended with success, and are left so.
fn completed(service: &Service, claims: &[&Claim]) -> State {
    let newest = || claims.iter().filter(|c| c.revision == service.revision);
    if let Some(failed) = newest().find(|c| c.phase == Phase::Failed) {
        let why = failed.message.as_deref().unwrap_or("it has failed");
        return State::Failed(format!("slot {} {why}", failed.slot.slot));
    }
    let clean = |claim: &&&Claim| {
        let exit = claim.last_exit.as_ref();
        claim.phase == Phase::Completed && exit.is_some_and(|exit| exit.code == 0)
    };
    let mut done: Vec<Slot> = newest().filter(clean).map(|c| c.slot.slot).collect();
    done.sort_unstable();
    done.dedup();
    let wanted = match service.spec.mode {
        Mode::Replicated => service.wanted_replicas() as usize,
        Mode::Global => newest().count().max(1),
    };
    if done.len() >= wanted {
        return State::Met;
    }
    State::Waiting(format!("{} of {wanted} replicas have ended", done.len()))
}

/// How a job stands: by what is recorded of its runs, which every node sees alike.
fn of_job(service: &Service, condition: Condition) -> State {
    let jobs = &service.jobs;
    let well = |id: &RunId| match id {
        RunId::Revision(revision) => *revision == service.revision,
        // Of any specification: one that failed was put right, or its time came again.
        RunId::Instant(_) | RunId::Asked(_) => true,
        RunId::Pre(..) | RunId::Post(_) => false,
    };
    let own = || {
        jobs.runs
            .iter()
            .filter(|(id, _)| well(id))
            .map(|(_, run)| run)
    };
    let result =
        |run: &RunState, outcome| run.result.as_ref().is_some_and(|r| r.outcome == outcome);
    let met = match condition {
        Condition::ServiceStarted | Condition::ServiceHealthy | Condition::ServiceRolledOut => {
            own().next().is_some()
        }
        Condition::ServiceCompletedSuccessfully => own().any(|run| result(run, Outcome::Succeeded)),
    };
    if met {
        return State::Met;
    }
    if own().any(|run| run.result.is_none()) {
        return State::Waiting("its run has not ended".to_owned());
    }
    let last = own()
        .filter_map(|run| run.result.as_ref())
        .max_by_key(|r| r.at);
    match last {
        Some(result) => {
            let why = result.reason.as_deref().unwrap_or("its run has failed");
            State::Failed(format!("its run has failed: {why}"))
        }
        None => State::Waiting("it has not run yet".to_owned()),
    }
}

/// Whether all slots have proven the present revision.
fn rolled_out(service: &Service, claims: &[&Claim]) -> State {
    let proven = |c: &&&Claim| c.revision == service.revision && c.trial == Trial::Proven;
    let mut slots: Vec<Slot> = claims.iter().filter(proven).map(|c| c.slot.slot).collect();
    // Those that the service was scaled down from may still end.
    let is_wanted = |slot: &Slot| match slot {
        Slot::Replica(index) => *index < service.wanted_replicas(),
        Slot::Node(_) => true,
    };
    slots.retain(is_wanted);
    slots.sort_unstable();
    slots.dedup();
    let old = claims.iter().any(|c| c.revision != service.revision);
    let wanted = match service.spec.mode {
        Mode::Replicated => service.wanted_replicas() as usize,
        Mode::Global => claims.len().max(1),
    };
    if slots.len() >= wanted && !old {
        return State::Met;
    }
    State::Waiting(format!("{} of {wanted} replicas are proven", slots.len()))
}

/// What a service waits for that has a hook before its deploy.
fn before_deploy(service: &Service) -> Option<Wait> {
    let hook = service.pre_hook()?;
    let result = service
        .jobs
        .runs
        .get(&hook)
        .and_then(|run| run.result.as_ref());
    let (text, in_vain) = match result {
        None => ("waits for its pre-deploy hook to end".to_owned(), false),
        Some(result) if result.outcome == Outcome::Succeeded => return None,
        Some(result) => {
            let why = result.reason.as_deref().unwrap_or("it failed");
            (
                format!("is held, as its pre-deploy hook has failed: {why}"),
                true,
            )
        }
    };
    Some(Wait { text, in_vain })
}
