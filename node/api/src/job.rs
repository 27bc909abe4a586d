//! Jobs and their runs.

use dunlin_state::desired::Outcome;

use dunlin_state::model::{Outputs, ServiceKey};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which jobs to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct JobQuery {
    /// Only this namespace; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only this job, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub service: Option<ServiceKey>,
}

/// Jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobList {
    /// Ordered by namespace and name.
    pub jobs: Vec<JobSummary>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSummary {
    /// Its name.
    pub service: ServiceKey,
    /// Whether it runs at all.
    pub running: bool,
    /// Its cron pattern and time zone, when it has a schedule.
    pub schedule: Option<String>,
    /// When it fires next.
    pub next: Option<u64>,
    /// The runs that are known, the newest last.
    pub runs: Vec<JobRun>,
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRun {
    /// Its name.
    pub run: String,
    /// The instant of the schedule that it stands for.
    pub scheduled_at: Option<u64>,
    /// When it was seen first; nobody has recorded it yet when absent.
    pub since: Option<u64>,
    /// How it has ended; it has not when absent.
    pub outcome: Option<Outcome>,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// Why it ended as it did, or what it waits for.
    pub reason: Option<String>,
    /// Replicas that run.
    pub active: u32,
    /// Replicas that have ended with success.
    pub done: u32,
    /// How many have to.
    pub completions: u32,
    /// What it has told those that wait for it: while it runs, what is recorded so far, and then that
    /// of the last run that has succeeded.
    #[serde(default, skip_serializing_if = "Outputs::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub outputs: Outputs,
}

/// The answer to a wish for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunResponse {
    /// The name of the run.
    pub run: String,
}
