//! Jobs: `x-dunlin.job`, `deploy.mode: replicated-job`, and what others wait for to end.

use dunlin_state::model::{
    CatchUp, Condition, Hook, Hooks, Job, Mode, Overlap, RestartCondition, Schedule, ServiceSpec,
};
use dunlin_state::timetable::Timetable;

use super::read::View;
use super::report::Report;
use super::service::Read;
use super::service::command;
use super::support::{HOOK, HOOKS, JOB, SCHEDULE};
use super::units::duration_ms;

const OVERLAPS: &[(&str, Overlap)] = &[
    ("forbid", Overlap::Forbid),
    ("allow", Overlap::Allow),
    ("replace", Overlap::Replace),
];

const CATCH_UPS: &[(&str, CatchUp)] = &[
    ("none", CatchUp::None),
    ("last", CatchUp::Last),
    ("all", CatchUp::All),
];

/// Most replicas of a run.
const MAX_COMPLETIONS: u32 = dunlin_state::desired::MAX_COMPLETIONS;

/// Most retries of a replica.
const MAX_RETRIES: u32 = 1_000;

/// Reads `x-dunlin.job`.
pub(super) fn job(report: &mut Report, view: &View<'_>) -> Job {
    let mut job = Job::default();
    if view.is_null() {
        return job;
    }
    for (key, field) in report.section(view, &JOB) {
        match key {
            "completions" => set(
                &mut job.completions,
                report.number(&field, 1, MAX_COMPLETIONS),
            ),
            "parallelism" => set(
                &mut job.parallelism,
                report.number(&field, 0, MAX_COMPLETIONS),
            ),
            "retries" => set(&mut job.retries, report.number(&field, 0, MAX_RETRIES)),
            "backoff" => set(&mut job.backoff_ms, report.parsed(&field, duration_ms)),
            "deadline" => job.deadline_ms = report.parsed(&field, duration_ms),
            "ttl" => set(&mut job.ttl_ms, report.parsed(&field, duration_ms)),
            "manual" => set(&mut job.manual, report.flag(&field)),
            _ => report.unhandled(&field),
        }
    }
    job
}

/// Reads `x-dunlin.schedule`.
pub(super) fn schedule(report: &mut Report, view: &View<'_>) -> Schedule {
    let mut schedule = Schedule::default();
    if view.as_text().is_some() {
        schedule.cron = report.line(view).unwrap_or_default().to_owned();
    } else {
        for (key, field) in report.section(view, &SCHEDULE) {
            match key {
                "cron" => schedule.cron = report.line(&field).unwrap_or_default().to_owned(),
                "timezone" => {
                    if let Some(zone) = report.line(&field) {
                        zone.clone_into(&mut schedule.timezone);
                    }
                }
                "overlap" => set(&mut schedule.overlap, report.choice(&field, OVERLAPS)),
                "catch_up" => set(&mut schedule.catch_up, report.choice(&field, CATCH_UPS)),
                _ => report.unhandled(&field),
            }
        }
    }
    if let Err(error) = Timetable::of(&schedule) {
        report.fault(view, error.to_string());
    }
    schedule
}

/// Reads `x-dunlin.hooks`.
pub(super) fn hooks(report: &mut Report, view: &View<'_>) -> Hooks {
    let mut hooks = Hooks::default();
    for (key, field) in report.section(view, &HOOKS) {
        match key {
            "pre_deploy" => hooks.pre_deploy = Some(hook(report, &field)),
            "post_deploy" => hooks.post_deploy = Some(hook(report, &field)),
            _ => report.unhandled(&field),
        }
    }
    hooks
}

/// A command, or a mapping with one.
fn hook(report: &mut Report, view: &View<'_>) -> Hook {
    let mut hook = Hook::default();
    if view.is_map() {
        for (key, field) in report.section(view, &HOOK) {
            match key {
                "command" => hook.command = command(report, &field),
                "retries" => set(&mut hook.retries, report.number(&field, 0, MAX_RETRIES)),
                "deadline" => hook.deadline_ms = report.parsed(&field, duration_ms),
                _ => report.unhandled(&field),
            }
        }
    } else {
        hook.command = command(report, view);
    }
    if hook.command.is_empty() {
        report.fault(view, "a hook needs a command");
    }
    hook
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// Makes a job of a service by its `deploy.mode`: as many replicas as `replicas` says have to end.
pub(super) fn by_mode(spec: &mut ServiceSpec, replicas: Option<u32>) {
    let job = spec.job.get_or_insert_default();
    if let (Mode::Replicated, Some(replicas)) = (spec.mode, replicas) {
        job.completions = replicas.clamp(1, MAX_COMPLETIONS);
    }
}

/// A service that another one waits for to end with success is a job, as in Compose, where nothing
/// is started again unless `restart` says so.
pub(super) fn by_dependents(report: &mut Report, read: &mut [Read]) {
    let ends = read.iter().flat_map(|one| &one.service.spec.depends_on);
    let ends = ends.filter(|d| d.condition == Condition::ServiceCompletedSuccessfully);
    let ends: Vec<_> = ends.map(|d| d.service.clone()).collect();
    for one in read
        .iter_mut()
        .filter(|one| ends.contains(&one.service.key))
    {
        let spec = &mut one.service.spec;
        if spec.job.is_some() {
            continue;
        }
        let retries = match spec.restart.condition {
            _ if !one.restart_said => 0,
            RestartCondition::Never => 0,
            RestartCondition::OnFailure => spec.restart.max_attempts.unwrap_or(MAX_RETRIES),
            RestartCondition::Any => {
                let text = "another service waits for this one to end, but it is started again \
                            for ever";
                let hint = "write 'restart: on-failure', or remove 'restart'";
                report.error_hint(one.at, &one.path, text, hint);
                continue;
            }
        };
        let completions = one.service.replicas.take().unwrap_or(1);
        spec.job = Some(Box::new(Job {
            retries,
            completions: completions.clamp(1, MAX_COMPLETIONS),
            ..Job::default()
        }));
    }
}
