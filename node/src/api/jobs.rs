//! Jobs: their runs, asked for, cancelled and listed.

use std::collections::BTreeSet;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use dunlin_api::{ChangeResponse, JobList, JobQuery, JobRun, JobSummary, RunResponse};
use dunlin_core::engine::Engine;
use dunlin_state::desired::{Command, Outcome, RunState, Service};
use dunlin_state::model::{Mode, Outputs, Phase, RunId, ServiceKey};
use dunlin_state::timetable::Timetable;

use super::failure::{Answer, Failure, Query};
use super::services::{ServicePath, change, key};
use super::{Caller, Context};
use crate::daemon::clock::wall_millis;

/// Runs asked for within the same millisecond that get a name each.
const MAX_TWINS: u64 = 32;

pub(super) async fn ask(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: ServicePath,
) -> Answer<RunResponse> {
    let service = key(path)?;
    let now = wall_millis();
    for twin in 0..MAX_TWINS {
        let run = RunId::Asked(now.saturating_add(twin));
        let command = Command::AskRun {
            service: service.clone(),
            run: run.clone(),
        };
        // Nothing changes when somebody else has just asked for the same.
        if change(&context, caller.clone(), command).await?.changed {
            let run = run.to_string();
            return Ok(Json(RunResponse { run }));
        }
    }
    Err(Failure::new(
        dunlin_api::ErrorCode::Busy,
        format!("{service} was asked to run too often at once; try again"),
    ))
}

pub(super) async fn cancel(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(String, String, String)>, PathRejection>,
) -> Answer<ChangeResponse> {
    let Path((namespace, name, run)) = path?;
    let service = ServiceKey::new(&namespace, &name)?;
    let run: RunId = run
        .parse()
        .map_err(|error: dunlin_state::model::BadRunId| {
            Failure::new(dunlin_api::ErrorCode::BadRequest, error.to_string())
        })?;
    change(&context, caller, Command::CancelRun { service, run }).await
}

pub(super) async fn list(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<JobQuery>,
) -> Answer<JobList> {
    let named = query.service.as_ref().map(ServiceKey::namespace);
    for namespace in query.namespace.as_deref().into_iter().chain(named) {
        caller.may_read(namespace)?;
    }
    let asked = query.service.clone();
    let jobs = context
        .engine
        .ask(move |engine| jobs(engine, &query, |namespace| caller.sees(namespace)))
        .await?;
    match asked {
        Some(service) if jobs.is_empty() => Err(Failure::new(
            dunlin_api::ErrorCode::NoSuchService,
            format!("no job is named '{service}'; see 'dunlin job ls' for those that exist"),
        )),
        Some(_) | None => Ok(Json(JobList { jobs })),
    }
}

fn jobs(engine: &Engine, query: &JobQuery, sees: impl Fn(&str) -> bool) -> Vec<JobSummary> {
    let wanted = |key: &ServiceKey| {
        let namespace = query.namespace.as_deref();
        namespace.is_none_or(|n| n == key.namespace())
            && query.service.as_ref().is_none_or(|s| s == key)
            && sees(key.namespace())
    };
    let services = engine.desired().services.iter();
    services
        .filter(|(key, service)| service.has_runs() && wanted(key))
        .map(|(key, service)| summary(engine, key, service))
        .collect()
}

fn summary(engine: &Engine, key: &ServiceKey, service: &Service) -> JobSummary {
    let job = service.spec.job.as_deref();
    let schedule = job.and_then(|job| job.schedule.as_ref());
    let next = schedule.filter(|_| service.running).and_then(|schedule| {
        let table = Timetable::of(schedule).ok()?;
        table.next_after(wall_millis())
    });
    let derived = engine.desired().services.values();
    let derived = derived.filter_map(|s| s.jobs.run.as_ref().filter(|run| run.job == *key));
    let known = service.jobs.runs.keys().chain(service.jobs.asks.keys());
    let ids: BTreeSet<&RunId> = derived.map(|run| &run.id).chain(known).collect();
    let mut runs: Vec<JobRun> = ids
        .into_iter()
        .map(|id| run(engine, key, service, id))
        .collect();
    runs.sort_by_key(|run| (run.since.unwrap_or(u64::MAX), run.scheduled_at));
    JobSummary {
        service: key.clone(),
        running: service.running,
        schedule: schedule.map(|s| format!("{} {}", s.cron, s.timezone)),
        next,
        runs,
    }
}

fn run(engine: &Engine, key: &ServiceKey, service: &Service, id: &RunId) -> JobRun {
    let state = service.jobs.runs.get(id);
    let result = state.and_then(|state| state.result.as_ref());
    let name = id.service(key);
    let claims = engine
        .observed()
        .filter(|register| engine.standing(register.node).holds_claims())
        .flat_map(|register| &register.report.claims)
        .filter(|claim| Some(&claim.slot.service) == name.as_ref());
    let claims: Vec<_> = claims.collect();
    let with = |phase| claims.iter().filter(|c| c.phase == phase).count();
    let wait = name.as_ref().and_then(|name| engine.waits_for(name));
    let telling = claims.iter().find_map(|claim| claim.message.clone());
    let everywhere = service.is_job() && service.spec.mode == Mode::Global;
    let (completions, done) = match everywhere {
        true => (count(claims.len()), count(with(Phase::Completed))),
        false => (
            service.job_of(id).map_or(1, |job| job.completions),
            state.map_or(0, |state| count(state.done.len())),
        ),
    };
    JobRun {
        run: id.to_string(),
        scheduled_at: match id {
            RunId::Instant(seconds) => Some(seconds.saturating_mul(1_000)),
            RunId::Revision(_) | RunId::Asked(_) | RunId::Pre(..) | RunId::Post(_) => None,
        },
        since: state.map(|state| state.since),
        outcome: result.map(|result| result.outcome),
        ended_at: result.map(|result| result.at),
        reason: match result {
            Some(result) => result.reason.clone(),
            None => wait.map(|wait| wait.text).or(telling),
        },
        active: count(with(Phase::Running)),
        done,
        completions,
        outputs: outputs(service, id),
    }
}

/// What a run has told, as far as that is kept.
fn outputs(service: &Service, id: &RunId) -> Outputs {
    let told = service.jobs.told.as_ref().filter(|told| told.run == *id);
    let so_far = service.jobs.runs.get(id).map(|run| run.outputs.outputs());
    let told = told.map(|told| &told.outputs);
    told.or(so_far).cloned().unwrap_or_default()
}

/// How far a job is that runs once for each revision: what has to end, what has, and why it will
/// not. `None` for others.
pub(super) fn progress(service: &Service) -> Option<(u32, u32, Option<String>)> {
    let job = service.spec.job.as_deref().filter(|_| service.is_job())?;
    let at_once = job.schedule.is_none() && !job.manual && service.spec.mode == Mode::Replicated;
    if !at_once || !service.running {
        return Some((0, 0, None));
    }
    let id = RunId::Revision(service.revision.clone());
    let nothing = RunState::default();
    let state = service.jobs.runs.get(&id).unwrap_or(&nothing);
    let failed = state
        .result
        .as_ref()
        .filter(|r| r.outcome != Outcome::Succeeded);
    let why = failed.map(|result| {
        let reason = result.reason.as_deref().unwrap_or("no reason was recorded");
        format!("its run has not ended well: {reason}")
    });
    Some((job.completions, count(state.done.len()), why))
}

/// What a deploy still waits for when all replicas are as wanted: its hook afterwards. The error
/// says that it failed.
pub(super) fn after_deploy(service: &Service) -> Option<Result<String, String>> {
    let hook = service.post_hook()?;
    let state = service.jobs.runs.get(&hook);
    match state.and_then(|state| state.result.as_ref()) {
        None => Some(Ok("its post-deploy hook has not ended".to_owned())),
        Some(result) if result.outcome == Outcome::Succeeded => None,
        Some(result) => {
            let why = result.reason.as_deref().unwrap_or("no reason was recorded");
            Some(Err(format!("its post-deploy hook has failed: {why}")))
        }
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
