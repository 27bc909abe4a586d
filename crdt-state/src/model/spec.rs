//! What a person asks for: the specification of a service.
//!
//! Every struct tolerates missing fields (`serde(default)`), so that a cluster with daemons of two
//! versions reads each other's registers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Autoscale, Constraint, Dependency, FileMount, Hooks, Job, Network, Policy, Preference,
    Resources, ScoreWeights, ServiceKey, SpreadRule, TrafficPolicy, VolumeMount,
};

/// Everything about a service but how many replicas it has and whether it runs, which are
/// registers of their own so that concurrent edits of different aspects both win.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceSpec {
    /// Container image. Empty for host processes.
    pub image: String,
    /// Overrides the image's entry point.
    pub entrypoint: Vec<String>,
    /// The command and its arguments; for host processes, what to execute.
    pub command: Vec<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Working directory inside the container or on the host.
    pub working_dir: Option<String>,
    /// User (and group) to run as, as Docker writes it.
    pub user: Option<String>,
    /// Host name inside the container.
    pub hostname: Option<String>,
    /// Labels put on the containers.
    pub labels: BTreeMap<String, String>,
    /// Replicated or one on every node.
    pub mode: Mode,
    /// Which runtime starts the replicas.
    pub runtime: RuntimeKind,
    /// Ports the replicas listen on.
    pub ports: Vec<PortSpec>,
    /// The networks it is in: it may connect to services that are in one of them, and they to it.
    /// Its namespace's default network when empty.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub networks: BTreeSet<Network>,
    /// How the proxies treat its connections. Not part of the revision.
    pub traffic: TrafficPolicy,
    /// What placement reserves for a replica.
    pub reservation: Resources,
    /// What a replica may use at most; zero means unlimited.
    pub limit: Resources,
    /// What it is worth among others. Not part of the revision.
    pub policy: Policy,
    /// Where replicas may and should run.
    pub placement: Placement,
    /// What happens when a replica ends.
    pub restart: RestartPolicy,
    /// How a new specification replaces the old one.
    pub update: UpdatePolicy,
    /// How it is replaced again when it is rolled back; as in `update` when absent.
    pub rollback: Option<UpdatePolicy>,
    /// How the replica's health is found out: decides about traffic and about restarts, where
    /// the two below say nothing else. When absent, the image's own check is taken.
    pub health: Option<HealthCheck>,
    /// Decides about traffic alone.
    pub readiness: Option<HealthCheck>,
    /// Decides about restarts alone.
    pub liveness: Option<HealthCheck>,
    /// Volumes, by name.
    pub volumes: Vec<VolumeMount>,
    /// Secrets of its namespace that replicas get as files.
    pub secrets: Vec<FileMount>,
    /// Configs of its namespace that replicas get as files.
    pub configs: Vec<FileMount>,
    /// Signal that tells a replica that one of these files has changed; none when absent.
    pub secret_signal: Option<String>,
    /// Signal that asks a replica to stop; `SIGTERM` when none is named.
    pub stop_signal: Option<String>,
    /// Milliseconds between that signal and `SIGKILL`.
    pub stop_grace_ms: Option<u64>,
    /// Milliseconds between leaving the routes and that signal, in which connections end.
    pub drain_ms: Option<u64>,
    /// What the first replica of a revision waits for. Not part of the revision.
    pub depends_on: Vec<Dependency>,
    /// Makes it a job, whose replicas do their work and end.
    pub job: Option<Box<Job>>,
    /// Jobs that belong to its deploys. Not part of the revision.
    pub hooks: Option<Box<Hooks>>,
    /// Lets the number of replicas follow the load. Not part of the revision.
    pub autoscale: Option<Box<Autoscale>>,
}

impl ServiceSpec {
    /// Grace between the stop signal and `SIGKILL` when the specification names none, as Docker.
    pub const DEFAULT_STOP_GRACE_MS: u64 = 10_000;

    /// Milliseconds between leaving the routes and the stop signal when the specification names
    /// none: some ten times what a register takes to every node, so that nobody sends anything
    /// new to a replica that is about to stop, and short answers are over.
    pub const DEFAULT_DRAIN_MS: u64 = 1_500;

    /// Milliseconds between leaving the routes and the stop signal. A replica without ports has
    /// nobody to wait for.
    pub fn drain_ms(&self) -> u64 {
        let usual = if self.ports.is_empty() {
            0
        } else {
            Self::DEFAULT_DRAIN_MS
        };
        self.drain_ms.unwrap_or(usual)
    }

    /// Milliseconds between the stop signal and `SIGKILL`.
    pub fn stop_grace_ms(&self) -> u64 {
        self.stop_grace_ms.unwrap_or(Self::DEFAULT_STOP_GRACE_MS)
    }

    /// Host ports that a replica takes for itself on its node.
    pub fn host_ports(&self) -> impl Iterator<Item = HostPort> + '_ {
        self.ports
            .iter()
            .filter(|p| p.publish_mode == PublishMode::Host)
            .filter_map(|p| {
                p.published.map(|port| HostPort {
                    port,
                    protocol: p.protocol,
                })
            })
    }
}

/// How many replicas a service has, as a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Mode {
    /// As many as its `scale` register says.
    #[default]
    Replicated,
    /// One on every node that matches (a daemon service).
    Global,
}

/// Which runtime starts a service's replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RuntimeKind {
    /// Docker when its socket answers and the service names an image, else processes.
    #[default]
    Auto,
    /// Supervised host processes.
    Process,
    /// Docker or Podman.
    Docker,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// How a published port is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PublishMode {
    /// On every node, by the proxies.
    #[default]
    Ingress,
    /// Only on the nodes that run a replica, bound by it; an exclusive resource of the node.
    Host,
}

/// A port that replicas listen on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortSpec {
    /// The port inside the container; for processes a free host port stands for it.
    pub target: u16,
    /// The port published on hosts, if any.
    pub published: Option<u16>,
    /// The host address to publish on; all when absent.
    pub host_ip: Option<String>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who answers the published port.
    pub publish_mode: PublishMode,
}

/// A port of a host, held by at most one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostPort {
    /// The port number.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// Where replicas may run (constraints) and would better run (strategy).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// All must hold on a node.
    pub constraints: Vec<Constraint>,
    /// Even or dense.
    pub strategy: Strategy,
    /// At most so many replicas of this service on one node.
    pub max_per_node: Option<u32>,
    /// Services that must not share a node with this one.
    pub anti_affinity: Vec<ServiceKey>,
    /// Services of which a node must have a replica to take one of this. Replicas stay when those
    /// of the other leave.
    pub affinity: Vec<ServiceKey>,
    /// What makes nodes better or worse.
    pub preferences: Vec<Preference>,
    /// Labels and facts over whose values replicas are dealt out evenly.
    pub spread: Vec<SpreadRule>,
    /// How much each resource counts in the load of a node.
    pub weights: ScoreWeights,
}

/// How scores compare nodes that may all take a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Strategy {
    /// Replicas far from each other, load even.
    #[default]
    Spread,
    /// The fullest node that still has room.
    Pack,
    /// Any node, by a hash, whatever runs there.
    Random,
}

/// When a replica that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RestartCondition {
    /// Never.
    Never,
    /// After a non-zero exit.
    OnFailure,
    /// Always.
    #[default]
    Any,
}

/// Restarts of a replica on its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RestartPolicy {
    /// When to restart.
    pub condition: RestartCondition,
    /// First delay in milliseconds; doubles with each failure up to five minutes.
    pub delay_ms: u64,
    /// Give up after so many failures in a row; for ever when absent.
    pub max_attempts: Option<u32>,
    /// A replica that ran so many milliseconds counts as recovered, and the back-off starts anew.
    pub window_ms: u64,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay_ms: 500,
            max_attempts: None,
            window_ms: 10_000,
        }
    }
}

/// How replicas move to a new specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UpdatePolicy {
    /// How many slots change at a time, at least one.
    pub parallelism: u32,
    /// Milliseconds between a slot's turn and its change.
    pub delay_ms: u64,
    /// Whether the old replica or the new one goes first.
    pub order: UpdateOrder,
    /// Milliseconds for which a new replica has to be ready without a break to be proven.
    pub monitor_ms: u64,
    /// Thousandths of the slots that may fail before the update has failed.
    pub max_failure_permille: u32,
    /// What happens when it has.
    pub failure_action: FailureAction,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay_ms: 0,
            order: UpdateOrder::StopFirst,
            monitor_ms: 1_000,
            max_failure_permille: 0,
            failure_action: FailureAction::Pause,
        }
    }
}

/// Which replica of a slot goes first in an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum UpdateOrder {
    /// The old one is stopped, then the new one started in its place.
    #[default]
    StopFirst,
    /// The new one is started on another node; the old one stops once that is ready.
    StartFirst,
}

/// What happens when an update has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureAction {
    /// It goes no further.
    #[default]
    Pause,
    /// It goes on all the same.
    Continue,
    /// The specification before it is wanted again.
    Rollback,
}

/// A health check, as Compose writes it and a little beyond. A zero stands for Docker's value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthCheck {
    /// What is tried.
    pub test: HealthTest,
    /// Milliseconds between checks.
    pub interval_ms: u64,
    /// Milliseconds after which a check has failed.
    pub timeout_ms: u64,
    /// Failures in a row that make a replica unhealthy.
    pub retries: u32,
    /// Successes in a row that make it healthy again; one when zero.
    pub successes: u32,
    /// Milliseconds after the start in which failures do not count.
    pub start_period_ms: u64,
    /// Milliseconds between checks until the first success; chosen when zero.
    pub start_interval_ms: u64,
}

impl HealthCheck {
    /// Docker's interval, in milliseconds.
    pub const DEFAULT_INTERVAL_MS: u64 = 30_000;
    /// Docker's timeout, in milliseconds.
    pub const DEFAULT_TIMEOUT_MS: u64 = 30_000;
    /// Docker's number of failures.
    pub const DEFAULT_RETRIES: u32 = 3;
}

/// The test of a [`HealthCheck`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HealthTest {
    /// Checks are switched off, also those of the image.
    #[default]
    None,
    /// A command run in the container, without a shell.
    Exec(Vec<String>),
    /// A command line run by the container's shell.
    Shell(String),
    /// An HTTP request; 200 to 399 is a success.
    Http(HttpTest),
    /// A TCP connection to this port of the specification; to the first one when absent.
    Tcp(Option<u16>),
}

/// An HTTP request that a healthy replica answers with a status of 200 to 399.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HttpTest {
    /// The port as the specification names it; the first TCP port when absent.
    pub port: Option<u16>,
    /// Path and query.
    pub path: String,
    /// The `Host` header; the address when absent.
    pub host: Option<String>,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
}

impl Default for HttpTest {
    fn default() -> Self {
        Self {
            port: None,
            path: "/".to_owned(),
            host: None,
            headers: BTreeMap::new(),
        }
    }
}

/// Whether a node takes new replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Availability {
    /// Takes replicas.
    #[default]
    Active,
    /// Keeps what it has and takes nothing new.
    Cordoned,
    /// Hands what it has to others, then is empty.
    Drained,
}
