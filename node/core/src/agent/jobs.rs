//! Jobs: their runs among the services that this node decides about, and what is recorded of them.

use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::{Command, Desired};
use dunlin_state::model::ServiceKey;

use super::{Agent, Output, STEER_AGAIN_MS, turn};
use crate::jobs::{Expanded, Recording, due, expand};

/// Milliseconds after which it is looked again what the clock says, since it may be put forward or
/// back.
const LOOK_AGAIN_MS: u64 = 60_000;

/// Drains nodes whose windows are open. Returns when that has to be looked at again.
fn with_windows(mut desired: Arc<Desired>, wall: u64) -> (Arc<Desired>, Option<u64>) {
    if desired.nodes.values().all(|n| n.windows.is_empty()) {
        return (desired, None);
    }
    let nodes = Arc::make_mut(&mut desired).nodes.values_mut();
    let planned = nodes.filter(|n| !n.windows.is_empty());
    let changes: Vec<u64> = planned.filter_map(|intent| intent.at(wall)).collect();
    let again = changes.into_iter().min();
    let latest = wall.saturating_add(LOOK_AGAIN_MS);
    (desired, again.map(|at| at.min(latest)))
}

impl Agent {
    /// Takes in what people want, and adds what follows from the clock: runs of jobs, and nodes that
    /// are worked on.
    pub(super) fn with_runs(&mut self, written: Arc<Desired>, now: Now) -> Arc<Desired> {
        let held = |key: &ServiceKey| self.reconciler.holds_any(key);
        let Expanded {
            desired,
            jobs,
            again,
        } = expand(&written, now.wall, held);
        self.written = written;
        self.jobs = jobs;
        let (desired, windows) = with_windows(desired, now.wall);
        let again = again.into_iter().chain(windows).min();
        let wait = again.map(|at| at.saturating_sub(now.wall));
        self.jobs_due = wait.map(|wait| now.mono.saturating_add(wait));
        self.with_scales(desired, now)
    }

    /// The time of a run may have come, or that of its end.
    pub(super) fn look_at_jobs(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.jobs_due.is_some_and(|at| at <= now.mono) {
            let written = Arc::clone(&self.written);
            self.take_desired(written, now, out);
            self.dirty.extend(self.jobs.iter().cloned());
        }
    }

    /// Has recorded what has become of the runs of a job: by the node that ranks first at once, by
    /// others when nothing has come of that, as with failed rollouts.
    pub(super) fn record_runs(&mut self, service: &ServiceKey, now: Now, out: &mut Vec<Output>) {
        let Some(known) = self.desired.services.get(service) else {
            self.recording.remove(service);
            return;
        };
        let job = known.jobs.run.as_ref().map(|run| run.job.clone());
        let job = job.unwrap_or_else(|| service.clone());
        let known = self.desired.services.get(&job).filter(|s| s.has_runs());
        let held = |key: &ServiceKey| self.reconciler.holds_any(key);
        let Some(record) = known.and_then(|s| due(&job, s, &self.cluster, now.wall, held)) else {
            self.recording.remove(&job);
            self.record_at.set(&job, None);
            return;
        };
        let ahead = self.cluster.ahead_of_me(&job).unwrap_or(usize::MAX);
        let recording = self.recording.entry(job.clone()).or_insert(Recording {
            turn: now.mono.saturating_add(turn(ahead)),
            proposed: None,
            again: 0,
        });
        let same = recording
            .proposed
            .as_ref()
            .is_some_and(|p| is_same(p, &record));
        let at = if same {
            recording.turn.max(recording.again)
        } else {
            recording.turn
        };
        if at > now.mono {
            self.record_at.set(&job, Some(at));
            return;
        }
        recording.again = now.mono.saturating_add(STEER_AGAIN_MS);
        recording.proposed = Some(record.clone());
        self.record_at.set(&job, Some(recording.again));
        out.push(Output::Propose(Command::RecordRuns {
            service: job,
            record,
        }));
    }
}

/// Whether two records say the same but for the time.
fn is_same(a: &dunlin_state::desired::RunRecord, b: &dunlin_state::desired::RunRecord) -> bool {
    let ids = a.until == b.until && a.forget == b.forget && a.runs.keys().eq(b.runs.keys());
    let mut pairs = a.runs.values().zip(b.runs.values());
    ids && pairs.all(|(a, b)| {
        let outcome = |state: &dunlin_state::desired::RunState| {
            state.result.as_ref().map(|result| result.outcome)
        };
        a.done == b.done && outcome(a) == outcome(b)
    })
}
