//! Work that ends: jobs, when they run, and the names of their runs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::ServiceKey;

/// What makes a service a job: its replicas do their work and are not started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// How many replicas of a run have to end with success.
    pub completions: u32,
    /// How many of them run at a time; all when zero.
    pub parallelism: u32,
    /// How often a replica is started again after a failure before the run has failed.
    pub retries: u32,
    /// Milliseconds before the first of these; doubles with each, up to five minutes.
    pub backoff_ms: u64,
    /// Milliseconds from its begin after which a run has failed; none when absent.
    pub deadline_ms: Option<u64>,
    /// Milliseconds for which replicas and logs of a run are kept after its end.
    pub ttl_ms: u64,
    /// Whether it runs only when a person asks for it, and not when it is deployed. Without meaning
    /// with a schedule.
    pub manual: bool,
    /// When it runs; once for each revision when absent.
    pub schedule: Option<Schedule>,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            completions: 1,
            parallelism: 0,
            retries: 3,
            backoff_ms: 1_000,
            deadline_ms: None,
            ttl_ms: 3_600_000,
            manual: false,
            schedule: None,
        }
    }
}

/// Jobs that belong to the deploy of a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hooks {
    /// Runs before the first slot gets a new revision, which waits for its success.
    pub pre_deploy: Option<Hook>,
    /// Runs when all slots have proven a new revision.
    pub post_deploy: Option<Hook>,
}

/// One of them: the same container or process with another command.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hook {
    /// What is run, in place of entry point and command.
    pub command: Vec<String>,
    /// How often it is tried again.
    pub retries: u32,
    /// Milliseconds after which it has failed; none when absent.
    pub deadline_ms: Option<u64>,
}

impl Hook {
    /// The job that it is.
    pub fn job(&self) -> Job {
        Job {
            retries: self.retries,
            deadline_ms: self.deadline_ms,
            ..Job::default()
        }
    }
}

/// When a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Schedule {
    /// Five fields as in crontab, or six with seconds before them.
    pub cron: String,
    /// A name of the IANA database.
    pub timezone: String,
    /// What happens when the run before has not ended.
    pub overlap: Overlap,
    /// What happens to instants at which no run could begin.
    pub catch_up: CatchUp,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            cron: String::new(),
            timezone: "UTC".to_owned(),
            overlap: Overlap::default(),
            catch_up: CatchUp::default(),
        }
    }
}

/// What happens when the time for a run has come and the one before has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Overlap {
    /// The new one does not begin until the old one has ended.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The old one is cancelled.
    Replace,
}

/// What happens to instants that have passed without a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CatchUp {
    /// They are left out.
    #[default]
    None,
    /// One run stands for all of them.
    Last,
    /// Each gets its run, one after the other.
    All,
}

/// The name of one run of a job. Every node derives the same one from the same cause.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RunId {
    /// The run that comes with a revision.
    Revision(String),
    /// The run of an instant of its schedule, in seconds since the Unix epoch.
    Instant(u64),
    /// The hook before a revision is deployed, in this round of its rollout.
    Pre(String, u32),
    /// The hook after it has been.
    Post(String),
    /// The run that a person asked for, by the time of asking in milliseconds since the Unix epoch.
    Asked(u64),
}

/// A text that names no run.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not the name of a run, such as at-1700000000 or ask-18bcfe56800")]
pub struct BadRunId(pub String);

/// What stands between the name of a job and that of a run, where the two name a service.
pub const RUN_MARK: &str = "--";

/// Characters of a job's name at most, so that those of its runs are names of services too.
pub const MAX_JOB_NAME: usize = 40;

impl RunId {
    /// The service that the replicas of this run belong to; `None` when the job's name leaves no
    /// room.
    pub fn service(&self, job: &ServiceKey) -> Option<ServiceKey> {
        let name = format!("{}{RUN_MARK}{self}", job.name());
        ServiceKey::new(job.namespace(), &name).ok()
    }

    /// The job and the run that a service stands for.
    pub fn of_service(service: &ServiceKey) -> Option<(ServiceKey, Self)> {
        let (job, run) = service.name().rsplit_once(RUN_MARK)?;
        let job = ServiceKey::new(service.namespace(), job).ok()?;
        Some((job, run.parse().ok()?))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revision(revision) => write!(f, "rev-{revision}"),
            Self::Instant(seconds) => write!(f, "at-{seconds}"),
            Self::Pre(revision, 0) => write!(f, "pre-{revision}"),
            Self::Pre(revision, round) => write!(f, "pre-{revision}-{round}"),
            Self::Post(revision) => write!(f, "post-{revision}"),
            Self::Asked(millis) => write!(f, "ask-{millis:x}"),
        }
    }
}

impl FromStr for RunId {
    type Err = BadRunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadRunId(text.chars().take(80).collect());
        let (kind, rest) = text.split_once('-').ok_or_else(bad)?;
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let is_revision = |text: &str| text.len() == 16 && text.chars().all(hex);
        let id = match kind {
            "rev" if is_revision(rest) => Self::Revision(rest.to_owned()),
            "post" if is_revision(rest) => Self::Post(rest.to_owned()),
            "pre" => {
                let (revision, round) = rest.split_once('-').unwrap_or((rest, "0"));
                let round = round.parse().map_err(|_not_a_number| bad())?;
                match is_revision(revision) {
                    true => Self::Pre(revision.to_owned(), round),
                    false => return Err(bad()),
                }
            }
            "at" => Self::Instant(rest.parse().map_err(|_not_a_number| bad())?),
            "ask" => Self::Asked(u64::from_str_radix(rest, 16).map_err(|_not_a_number| bad())?),
            _ => return Err(bad()),
        };
        // One run has one name.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(bad())
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = BadRunId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.to_string()
    }
}
