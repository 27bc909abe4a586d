//! What has to be recorded of runs.

use std::collections::BTreeSet;

use dunlin_state::desired::{Outcome, RunRecord, RunResult, RunState, Service};
use dunlin_state::model::{Claim, Job, Mode, Phase, RunId, ServiceKey, Slot};

use super::MAX_ENDED;
use super::derive::{Runs, runs};
use crate::cluster::Cluster;

/// What this node has done about recording the runs of one job.
#[derive(Debug)]
pub(crate) struct Recording {
    /// When it is this node's turn, in milliseconds of the monotonic clock.
    pub(crate) turn: u64,
    /// What it has proposed.
    pub(crate) proposed: Option<RunRecord>,
    /// When to propose it again.
    pub(crate) again: u64,
}

/// What should be recorded of the runs of a job and is not; `None` when nothing is missing.
pub(crate) fn due(
    key: &ServiceKey,
    service: &Service,
    cluster: &Cluster,
    wall: u64,
    held: impl Fn(&ServiceKey) -> bool,
) -> Option<RunRecord> {
    let begun = |run: &RunId| run.service(key).is_some_and(|key| held(&key));
    let Runs {
        active, replaced, ..
    } = runs(service, wall, begun);
    let known = &service.jobs;
    let mut record = RunRecord {
        until: known.until,
        ..RunRecord::default()
    };
    for id in &active {
        if let RunId::Instant(seconds) = id {
            record.until = record.until.max(seconds.saturating_mul(1_000));
        }
        let (Some(name), Some(job)) = (id.service(key), service.job_of(id)) else {
            continue;
        };
        let claims = cluster.all_claims(&name);
        let claims: Vec<&Claim> = claims.into_iter().map(|(_, claim)| claim).collect();
        let state = state_of(id, &job, service, &claims, wall);
        if known.runs.get(id) != Some(&state) {
            record.runs.insert(id.clone(), state);
        }
    }
    for id in replaced {
        let state = known.runs.get(&id).cloned().unwrap_or_default();
        let result = ended(Outcome::Cancelled, wall, "the next run has replaced it");
        let result = Some(result);
        record.runs.insert(id, RunState { result, ..state });
    }
    stale(service, &active, wall, &mut record);
    record.forget = forgotten(service, wall);
    let nothing = record.runs.is_empty() && record.forget.is_empty();
    (!nothing || record.until > known.until).then_some(record)
}

fn ended(outcome: Outcome, at: u64, reason: &str) -> RunResult {
    RunResult {
        outcome,
        at,
        reason: Some(reason.to_owned()),
    }
}

/// What is known of a run, recorded or seen.
fn state_of(id: &RunId, job: &Job, service: &Service, claims: &[&Claim], wall: u64) -> RunState {
    let known = service.jobs.runs.get(id);
    let mut state = known.cloned().unwrap_or_else(|| RunState {
        since: wall,
        ..RunState::default()
    });
    let cancelled = service.jobs.asks.get(id).is_some_and(|ask| ask.cancelled);
    if cancelled {
        state.result = Some(ended(Outcome::Cancelled, wall, "a person cancelled it"));
        return state;
    }
    if service.spec.mode == Mode::Global && service.is_job() {
        // Each node remembers for itself, and there may always be another one.
        return state;
    }
    // That it ended well is a fact, also when its node is gone by now.
    let mut excess = None;
    for claim in claims.iter().filter(|c| c.phase == Phase::Completed) {
        match claim.slot.slot {
            // Of a slot that was run twice, the word that was recorded counts.
            Slot::Replica(slot) if slot < job.completions && state.done.insert(slot) => {
                let added = state.outputs.add(slot, &claim.outputs);
                excess = excess.or(added.err());
            }
            Slot::Replica(_) | Slot::Node(_) => {}
        }
    }
    let late = job
        .deadline_ms
        .is_some_and(|ms| state.since.saturating_add(ms) <= wall);
    let failed = claims.iter().find(|claim| claim.phase == Phase::Failed);
    if let Some(error) = excess {
        state.result = Some(RunResult::too_much(wall, &error));
    } else if state.done.len() >= job.completions as usize {
        let mut result = ended(Outcome::Succeeded, wall, "");
        result.reason = None;
        state.result = Some(result);
    } else if let Some(failed) = failed {
        let how = failed.message.as_deref().unwrap_or("failed");
        let text = format!("slot {} {how}", failed.slot.slot);
        state.result = Some(ended(Outcome::Failed, wall, &text));
    } else if late {
        state.result = Some(ended(
            Outcome::Failed,
            wall,
            "it took longer than its deadline",
        ));
    }
    state
}

/// Runs of an earlier revision, or of a job that is stopped, that will not end by themselves.
fn stale(service: &Service, active: &BTreeSet<RunId>, wall: u64, record: &mut RunRecord) {
    let open = service
        .jobs
        .runs
        .iter()
        .filter(|(_, run)| run.result.is_none());
    for (id, state) in open.filter(|(id, _)| !active.contains(id)) {
        let of_revision = revision_of(id).is_some();
        if record.runs.contains_key(id) || (service.running && !of_revision) {
            continue;
        }
        let why = match service.running {
            true => "another specification was deployed",
            false => "the job was stopped",
        };
        let result = Some(ended(Outcome::Cancelled, wall, why));
        let state = state.clone();
        record.runs.insert(id.clone(), RunState { result, ..state });
    }
}

/// The revision that a run belongs to, if it does.
fn revision_of(id: &RunId) -> Option<&str> {
    match id {
        RunId::Revision(revision) | RunId::Pre(revision, _) | RunId::Post(revision) => {
            Some(revision)
        }
        RunId::Instant(_) | RunId::Asked(_) => None,
    }
}

/// Ended runs that nobody needs to remember. Those of the present revision stay, or they would run
/// again; those of others go, so that they do when that revision is deployed again.
fn forgotten(service: &Service, wall: u64) -> BTreeSet<RunId> {
    let ended = service.jobs.runs.iter();
    let ended = ended.filter_map(|(id, run)| Some((run.result.as_ref()?.at, id)));
    let (of_revisions, others): (Vec<_>, Vec<_>) =
        ended.partition(|(_, id)| revision_of(id).is_some());
    let by_end: BTreeSet<(u64, &RunId)> = others.into_iter().collect();
    let excess = by_end.len().saturating_sub(MAX_ENDED);
    let oldest = by_end.into_iter().take(excess);
    let lapsed = oldest.filter(|(at, id)| {
        let ttl = service.job_of(id).map_or(0, |job| job.ttl_ms);
        at.saturating_add(ttl) <= wall
    });
    let gone = of_revisions.into_iter();
    let gone = gone.filter(|(_, id)| revision_of(id) != Some(&service.revision));
    lapsed.chain(gone).map(|(_, id)| id.clone()).collect()
}
