//! What is written of the runs of jobs.

use std::sync::Arc;

use super::{Draft, json};
use crate::desired::jobs::{Ask, Jobs, MAX_ASKS, RunRecord};
use crate::desired::keys::{Aspect, Key};
use crate::desired::rejection::Rejection;
use crate::model::{MAX_JOB_NAME, RUN_MARK, RunId, ServiceKey, ServiceSpec};

impl Draft {
    pub(super) fn ask_run(&mut self, key: &ServiceKey, run: &RunId) -> Result<(), Rejection> {
        if !self.existing(key)?.is_job() {
            return Err(Rejection::NoJob(key.clone()));
        }
        let jobs = self.jobs(key)?;
        if jobs.asks.len() >= MAX_ASKS && !jobs.asks.contains_key(run) {
            let service = key.clone();
            return Err(Rejection::TooManyRuns {
                service,
                max: MAX_ASKS,
            });
        }
        if jobs.asks.contains_key(run) || jobs.runs.contains_key(run) {
            return Ok(());
        }
        self.write_ask(key, run, Ask::default())
    }

    pub(super) fn cancel_run(&mut self, key: &ServiceKey, run: &RunId) -> Result<(), Rejection> {
        let jobs = self.jobs(key)?;
        let known = jobs.asks.contains_key(run) || jobs.runs.contains_key(run);
        if !known {
            return Err(Rejection::NoSuchRun {
                service: key.clone(),
                run: run.clone(),
            });
        }
        let ended = jobs.runs.get(run).is_some_and(|r| r.result.is_some());
        if ended || jobs.asks.get(run).is_some_and(|ask| ask.cancelled) {
            return Ok(());
        }
        self.write_ask(key, run, Ask { cancelled: true })
    }

    pub(super) fn record_runs(
        &mut self,
        key: &ServiceKey,
        record: &RunRecord,
    ) -> Result<(), Rejection> {
        let jobs = self.jobs(key)?;
        let before = jobs.clone();
        jobs.record(record);
        if *jobs == before {
            return Ok(());
        }
        let value = json(&jobs.stored());
        let gone: Vec<RunId> = before
            .asks
            .into_keys()
            .filter(|run| !jobs.asks.contains_key(run))
            .collect();
        self.writes
            .insert(Key::Service(key.clone(), Aspect::Jobs), value);
        for run in gone {
            let key = Key::Ask(key.clone(), run);
            self.writes.insert(key, serde_json::Value::Null);
        }
        Ok(())
    }

    fn jobs(&mut self, key: &ServiceKey) -> Result<&mut Jobs, Rejection> {
        let service = self.existing(key)?;
        if !service.has_runs() {
            return Err(Rejection::NoJob(key.clone()));
        }
        Ok(Arc::make_mut(&mut service.jobs))
    }

    fn write_ask(&mut self, key: &ServiceKey, run: &RunId, ask: Ask) -> Result<(), Rejection> {
        self.jobs(key)?.asks.insert(run.clone(), ask);
        self.writes
            .insert(Key::Ask(key.clone(), run.clone()), json(&ask));
        Ok(())
    }
}

/// Names with the mark of runs belong to these, and those of jobs leave room for it.
pub(super) fn check_name(key: &ServiceKey, spec: &ServiceSpec) -> Result<(), Rejection> {
    let bad = |why: String| Rejection::BadJobName {
        service: key.clone(),
        why,
    };
    if key.name().contains(RUN_MARK) {
        return Err(bad(format!(
            "'{RUN_MARK}' stands between the name of a job and that of its run"
        )));
    }
    let has_runs = spec.job.is_some() || spec.hooks.is_some();
    if has_runs && key.name().len() > MAX_JOB_NAME {
        return Err(bad(format!(
            "the name of a job, or of a service with hooks, has at most {MAX_JOB_NAME} characters, as those of its runs are \
             longer"
        )));
    }
    Ok(())
}
