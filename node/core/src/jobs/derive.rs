//! From a job to the services that stand for its runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::desired::{Desired, Jobs, Run, Service};
use dunlin_state::model::{
    CatchUp, Condition, Dependency, Hook, Hooks, Job, Mode, Overlap, RestartCondition,
    RestartPolicy, RunId, Schedule, ServiceKey, ServiceSpec,
};
use dunlin_state::timetable::Timetable;

use super::{BEGIN_WITHIN_MS, LOOK_AGAIN_MS, MAX_ACTIVE};

/// Desired state with its runs.
pub(crate) struct Expanded {
    pub(crate) desired: Arc<Desired>,
    /// The jobs in it.
    pub(crate) jobs: BTreeSet<ServiceKey>,
    /// When to look again, in milliseconds since the Unix epoch; never when there are no jobs.
    pub(crate) again: Option<u64>,
}

/// The runs that a job has now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Those that have not ended.
    pub(crate) active: BTreeSet<RunId>,
    /// Those that have given way to a newer one.
    pub(crate) replaced: BTreeSet<RunId>,
    /// When something may be different, in milliseconds since the Unix epoch.
    pub(crate) again: Option<u64>,
}

/// Adds the runs of all jobs. `held` says whether this node holds a slot of a run: what has begun
/// here goes on, whether or not it could be recorded.
pub(crate) fn expand(
    desired: &Arc<Desired>,
    wall: u64,
    held: impl Fn(&ServiceKey) -> bool,
) -> Expanded {
    let jobs = desired.services.iter().filter(|(_, s)| s.has_runs());
    let jobs: BTreeSet<ServiceKey> = jobs.map(|(key, _)| key.clone()).collect();
    let mut expanded = Expanded {
        desired: Arc::clone(desired),
        jobs,
        again: None,
    };
    if expanded.jobs.is_empty() {
        return expanded;
    }
    let mut services = BTreeMap::new();
    let mut again = wall.saturating_add(LOOK_AGAIN_MS);
    for key in &expanded.jobs {
        let Some(service) = desired.services.get(key) else {
            continue;
        };
        let begun = |run: &RunId| run.service(key).is_some_and(|key| held(&key));
        let runs = runs(service, wall, begun);
        let ended = kept(service, wall);
        let ends = ended.values().copied().chain(runs.again);
        again = ends.filter(|at| *at > wall).fold(again, u64::min);
        for run in runs.active.iter().chain(ended.keys().copied()) {
            if let Some(name) = run.service(key) {
                services.insert(name, stand_in(key, service, run));
            }
        }
    }
    let all = Arc::make_mut(&mut expanded.desired);
    all.services.extend(services);
    expanded.again = Some(again);
    expanded
}

/// Runs that have ended and whose replicas are kept, with the time until when.
fn kept(service: &Service, wall: u64) -> BTreeMap<&RunId, u64> {
    let runs = service.jobs.runs.iter();
    let ended = runs.filter_map(|(id, run)| {
        let ttl = service.job_of(id)?.ttl_ms;
        let until = run.result.as_ref()?.at.saturating_add(ttl);
        (until > wall && service.running).then_some((id, until))
    });
    ended.collect()
}

/// The runs that a job has at this moment.
pub(crate) fn runs(service: &Service, wall: u64, held: impl Fn(&RunId) -> bool) -> Runs {
    let mut found = Runs::default();
    if !service.running {
        return found;
    }
    let jobs = &service.jobs;
    let open = |id: &RunId| jobs.runs.get(id).is_none_or(|run| run.result.is_none());
    let asked = jobs
        .asks
        .iter()
        .filter(|(id, _)| matches!(id, RunId::Asked(_)));
    found.active.extend(asked.map(|(id, _)| id.clone()));
    // What has begun goes on, also when its schedule or its revision is another one now.
    found.active.extend(jobs.runs.keys().cloned());
    let own = RunId::Revision(service.revision.clone());
    let (pre, post) = (service.pre_hook(), service.post_hook());
    found.active.retain(|id| match id {
        _ if !open(id) => false,
        // A run of a specification that is wanted no more.
        RunId::Revision(_) => *id == own,
        RunId::Pre(..) => Some(id) == pre.as_ref(),
        RunId::Post(_) => Some(id) == post.as_ref(),
        RunId::Instant(_) | RunId::Asked(_) => true,
    });
    let due = service.spec.job.as_deref().map(|job| (job, &job.schedule));
    match due {
        Some((job, None)) if !job.manual && open(&own) => drop(found.active.insert(own)),
        Some((_, None)) => {}
        Some((_, Some(schedule))) => follow(schedule, jobs, wall, held, &mut found),
        None => found
            .active
            .extend(pre.into_iter().chain(post).filter(open)),
    }
    deadlines(service, wall, &mut found);
    let excess = found.active.len().saturating_sub(MAX_ACTIVE);
    for _ in 0..excess {
        // The oldest go on.
        found.active.pop_last();
    }
    found
}

/// Adds the runs whose instant has come.
fn follow(
    schedule: &Schedule,
    jobs: &Jobs,
    wall: u64,
    held: impl Fn(&RunId) -> bool,
    found: &mut Runs,
) {
    // A specification in desired state has been checked; nothing runs by one that cannot be read.
    let Ok(table) = Timetable::of(schedule) else {
        return;
    };
    let next = table.next_after(wall);
    found.again = next;
    let settled = jobs.since.max(jobs.until);
    let due = match schedule.catch_up {
        CatchUp::All => table.next_after(settled).filter(|at| *at <= wall),
        CatchUp::None | CatchUp::Last => table.last_until(wall).filter(|at| *at > settled),
    };
    let Some(at) = due else {
        return thin_out(schedule.overlap, found);
    };
    let id = instant(at);
    let missed = schedule.catch_up == CatchUp::None && wall - at >= BEGIN_WITHIN_MS;
    if missed && !held(&id) {
        return thin_out(schedule.overlap, found);
    }
    if schedule.catch_up == CatchUp::None {
        let lapses = Some(at.saturating_add(BEGIN_WITHIN_MS)).filter(|at| *at > wall);
        found.again = found.again.into_iter().chain(lapses).min();
    }
    let busy = found.active.iter().any(is_instant);
    if !(schedule.overlap == Overlap::Forbid && busy) {
        found.active.insert(id);
    }
    thin_out(schedule.overlap, found);
}

/// Of runs that replace each other only the newest goes on.
fn thin_out(overlap: Overlap, found: &mut Runs) {
    if overlap != Overlap::Replace {
        return;
    }
    let newest = found.active.iter().rfind(|id| is_instant(id)).cloned();
    let (replaced, active) = std::mem::take(&mut found.active)
        .into_iter()
        .partition(|id| is_instant(id) && Some(id) != newest.as_ref());
    (found.replaced, found.active) = (replaced, active);
}

/// Notes when the first of the runs has taken too long.
fn deadlines(service: &Service, wall: u64, found: &mut Runs) {
    let ends = found.active.iter().filter_map(|id| {
        let begun = service.jobs.runs.get(id)?.since;
        Some(begun.saturating_add(service.job_of(id)?.deadline_ms?))
    });
    let first = ends.filter(|at| *at > wall).min();
    found.again = found.again.into_iter().chain(first).min();
}

fn instant(at: u64) -> RunId {
    RunId::Instant(at / 1_000)
}

fn is_instant(id: &RunId) -> bool {
    matches!(id, RunId::Instant(_))
}

/// The service that stands for a run.
fn stand_in(key: &ServiceKey, service: &Service, id: &RunId) -> Service {
    let spec = &service.spec;
    // A run whose job or hook is gone is not derived.
    let job = service.job_of(id).unwrap_or_default();
    let state = service.jobs.runs.get(id).cloned().unwrap_or_default();
    let parallelism = match job.parallelism {
        0 => job.completions,
        some => some,
    };
    Service {
        spec: Arc::new(spec_of_run(spec, &job, key, id)),
        revision: service.revision.clone(),
        replicas: job.completions,
        running: service.running,
        rollout: Arc::default(),
        jobs: Arc::new(Jobs {
            run: Some(Run {
                job: key.clone(),
                id: id.clone(),
                done: state.done,
                parallelism,
                result: state.result,
            }),
            ..Jobs::default()
        }),
    }
}

/// What a replica of a run is started with.
fn spec_of_run(spec: &ServiceSpec, job: &Job, key: &ServiceKey, id: &RunId) -> ServiceSpec {
    let mut spec = spec.clone();
    match id {
        RunId::Pre(..) => turn_into_hook(&mut spec, |hooks| hooks.pre_deploy),
        RunId::Post(_) => {
            turn_into_hook(&mut spec, |hooks| hooks.post_deploy);
            spec.depends_on = vec![Dependency {
                service: key.clone(),
                condition: Condition::ServiceRolledOut,
                required: true,
            }];
        }
        RunId::Revision(_) | RunId::Instant(_) | RunId::Asked(_) => {}
    }
    spec.job = Some(Box::new(job.clone()));
    spec.restart = RestartPolicy {
        condition: RestartCondition::OnFailure,
        delay_ms: job.backoff_ms,
        max_attempts: Some(job.retries),
        // However long it ran, a failure counts.
        window_ms: u64::MAX,
    };
    let mut tell = |name: &str, value: String| spec.environment.insert(name.to_owned(), value);
    tell("DUNLIN_JOB", key.name().to_owned());
    tell("DUNLIN_RUN", id.to_string());
    if let RunId::Instant(seconds) = id {
        tell("DUNLIN_SCHEDULED_AT", seconds.to_string());
    }
    if spec.mode == Mode::Replicated {
        tell("DUNLIN_COMPLETIONS", job.completions.to_string());
    }
    spec
}

/// The same container or process with the command of the hook, and nobody connects to it.
fn turn_into_hook(spec: &mut ServiceSpec, which: impl FnOnce(Hooks) -> Option<Hook>) {
    let hook = spec.hooks.take().and_then(|hooks| which(*hooks));
    spec.mode = Mode::Replicated;
    spec.entrypoint.clear();
    spec.command = hook.map(|hook| hook.command).unwrap_or_default();
    spec.ports.clear();
    spec.placement.max_per_node = None;
    (spec.health, spec.readiness, spec.liveness) = (None, None, None);
}
