//! What a job may say.

use super::{MAX_COMPLETIONS, SpecFault};
use crate::model::{Mode, ServiceSpec};
use crate::timetable::Timetable;

/// Retries of a replica: with growing delays they take more than a day.
const MAX_RETRIES: u32 = 1_000;

/// Longest time of a job in milliseconds, a year.
const MAX_JOB_MS: u64 = 366 * 86_400_000;

pub(super) fn check_job(spec: &ServiceSpec) -> Result<(), SpecFault> {
    check_hooks(spec)?;
    let Some(job) = &spec.job else {
        return Ok(());
    };
    if job.completions == 0 {
        return Err(SpecFault::Zero("the number of completions of a job"));
    }
    if job.completions > MAX_COMPLETIONS {
        return Err(SpecFault::TooLong {
            what: "the number of completions".to_owned(),
            len: job.completions as usize,
            max: MAX_COMPLETIONS as usize,
        });
    }
    if spec.ports.iter().any(|port| port.published.is_some()) {
        return Err(SpecFault::BadJob("publishes no ports; remove them"));
    }
    let times = [Some(job.backoff_ms), job.deadline_ms, Some(job.ttl_ms)];
    if job.retries > MAX_RETRIES || times.into_iter().flatten().any(|ms| ms > MAX_JOB_MS) {
        return Err(SpecFault::BadJob(
            "has at most 1000 retries, and times of at most a year",
        ));
    }
    if job.deadline_ms == Some(0) {
        return Err(SpecFault::Zero("the deadline of a job"));
    }
    if spec.mode == Mode::Global && (job.schedule.is_some() || job.manual || job.completions > 1) {
        return Err(SpecFault::BadJob(
            "of every node runs once for each revision, without schedule, 'manual' or completions",
        ));
    }
    if spec.policy.is_strict() {
        return Err(SpecFault::BadJob(
            "is no strict singleton: votes keep two replicas from running at once, and not a part of a \
             run from running again when its node is lost; remove 'singleton' and make the work safe to \
             repeat",
        ));
    }
    if let Some(schedule) = &job.schedule {
        Timetable::of(schedule)?;
    }
    Ok(())
}

fn check_hooks(spec: &ServiceSpec) -> Result<(), SpecFault> {
    let Some(hooks) = &spec.hooks else {
        return Ok(());
    };
    if spec.job.is_some() {
        return Err(SpecFault::BadJob(
            "has no hooks; let another job depend on it",
        ));
    }
    for hook in hooks.pre_deploy.iter().chain(&hooks.post_deploy) {
        if hook.command.first().is_none_or(String::is_empty) {
            return Err(SpecFault::BadJob("of a hook needs a command"));
        }
        for argument in &hook.command {
            super::check_no_nul("a command argument of a hook", argument)?;
        }
        if hook.retries > MAX_RETRIES || hook.deadline_ms.is_some_and(|ms| ms > MAX_JOB_MS) {
            return Err(SpecFault::BadJob(
                "has at most 1000 retries, and times of at most a year",
            ));
        }
    }
    Ok(())
}
