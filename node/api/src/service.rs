//! Services and their replicas.

use std::net::IpAddr;

use dunlin_state::model::{
    Endpoint, ExitReport, Mode, NodeId, Outputs, Phase, PhaseChange, PortSpec, RuntimeKind,
    ServiceKey, ServiceSpec, Slot, SlotId,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::NodeState;

/// Creates services or gives them new specifications, all or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeployRequest {
    /// The services; those that exist and are not named stay as they are.
    pub services: Vec<DeployService>,
}

/// One service of a [`DeployRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeployService {
    /// Which service.
    pub service: ServiceKey,
    /// All of its specification.
    pub spec: ServiceSpec,
    /// Its scale; when absent a new service gets one replica and an old one keeps its scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Only so many slots, the lowest, get the specification until it is promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<u32>,
}

/// Removes services, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemoveRequest {
    /// The services.
    pub services: Vec<ServiceKey>,
}

/// The answer to a [`DeployRequest`]: the change is on this node's disk and on its way to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployResponse {
    /// Whether anything differed from what was wanted before.
    pub changed: bool,
    /// What was asked for, in order.
    pub services: Vec<DeployedService>,
}

/// A service after a deploy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployedService {
    /// Which service.
    pub service: ServiceKey,
    /// Hash of its specification.
    pub revision: String,
}

/// The answer to a change: it is on this node's disk and on its way to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeResponse {
    /// Whether anything differed from what was wanted before.
    pub changed: bool,
}

/// How to steer a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutStep {
    /// Go no further.
    Pause,
    /// Go on, and forgive what has failed.
    Resume,
    /// All slots get the specification of a canary.
    Promote,
    /// The specification before is wanted again.
    Rollback,
}

/// Steers a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutRequest {
    /// What to do.
    pub step: RolloutStep,
}

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutStatus {
    /// Whom it is about.
    pub service: ServiceKey,
    /// The revision that is wanted.
    pub revision: String,
    /// The one that it replaces, where it is known.
    pub previous: Option<String>,
    /// Whether it goes no further.
    pub paused: bool,
    /// Only so many slots get it.
    pub canary: Option<u32>,
    /// Whether it undoes another one.
    pub rollback: bool,
    /// Why it is paused or undone.
    pub reason: Option<String>,
    /// How many replicas should exist.
    pub wanted: u32,
    /// Slots of the wanted revision that have proven themselves.
    pub proven: u32,
    /// Slots of the wanted revision on trial.
    pub pending: u32,
    /// Slots of the wanted revision that have failed.
    pub failed: u32,
    /// Slots of another revision.
    pub outdated: u32,
}

/// The specifications that a service had and has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RevisionList {
    /// Newest first; bounded by the history that is kept.
    pub revisions: Vec<RevisionEntry>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RevisionEntry {
    /// Hash of `spec`.
    pub revision: String,
    /// When it was wanted, by the clock of the node that took it.
    pub at: u64,
    /// Who wanted it.
    pub author: String,
    /// Whether it is wanted now.
    pub current: bool,
    /// The specification.
    pub spec: ServiceSpec,
}

/// Changes the number of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScaleRequest {
    /// The new number.
    pub replicas: u32,
}

/// Which services to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ServiceQuery {
    /// Only this namespace; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceList {
    /// Ordered by namespace and name.
    pub services: Vec<ServiceSummary>,
}

/// How many replicas a service may have that follows its load, and why it has as many as it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AutoscaleStatus {
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// Why there are as many as there are, in words; absent until somebody has decided.
    pub reason: Option<String>,
    /// Since when, in milliseconds since the Unix epoch by the clock of who decided.
    pub since: Option<u64>,
    /// The name of the node that decided.
    pub decided_by: Option<String>,
}

/// A service in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSummary {
    /// Its name.
    pub service: ServiceKey,
    /// Replicated or one on every node.
    pub mode: Mode,
    /// Whether it is a job: its runs end, and have the replicas.
    #[serde(default)]
    pub job: bool,
    /// Whether it runs at all.
    pub running: bool,
    /// How many replicas should exist now; for a daemon service, how many nodes match.
    pub wanted: u32,
    /// How many of them get traffic.
    pub ready: u32,
    /// How its number of replicas follows the load, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<AutoscaleStatus>,
    /// Its image; empty for host processes.
    pub image: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Which runtime starts it.
    pub runtime: RuntimeKind,
    /// Its ports.
    pub ports: Vec<PortSpec>,
    /// Hash of its specification.
    pub revision: String,
}

/// A service in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceDetail {
    /// Its name.
    pub service: ServiceKey,
    /// What was asked for.
    pub spec: ServiceSpec,
    /// Hash of `spec`: replicas of another revision are replaced.
    pub revision: String,
    /// How many replicas a replicated service has.
    pub scale: u32,
    /// Whether it runs at all.
    pub running: bool,
    /// How many replicas should exist now.
    pub wanted: u32,
    /// How many of them get traffic.
    pub ready: u32,
    /// How its number of replicas follows the load, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<AutoscaleStatus>,
    /// Its virtual address, when it has one.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Its replicas, ordered by slot, the superseded ones last.
    pub replicas: Vec<Replica>,
    /// Slots that no node holds.
    pub vacant: Vec<Slot>,
    /// What the last run of this job that has succeeded has told those that wait for it.
    #[serde(default, skip_serializing_if = "Outputs::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub outputs: Outputs,
}

/// Which replicas to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ReplicaQuery {
    /// Only this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only this service, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub service: Option<ServiceKey>,
    /// Only on this node: its id, a unique beginning of that, or its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaList {
    /// Ordered by service and slot, the superseded ones after the one that counts.
    pub replicas: Vec<Replica>,
    /// Slots of these services that no node holds; empty when only one node was asked about.
    pub vacant: Vec<SlotId>,
    /// Of these services, those whose present specification waits for another service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingService>,
    /// Of these services, those that have no replica until somebody connects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asleep: Vec<ServiceKey>,
    /// What people should know of these services beyond single replicas: changes on two sides of a
    /// partition that disagree, quotas that are exceeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A service that waits for what it depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitingService {
    /// Which service.
    pub service: ServiceKey,
    /// What it waits for, in words.
    pub reason: String,
    /// Whether it waits in vain until a person changes something.
    pub in_vain: bool,
}

/// A replica as its node reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// Whose replica it is.
    pub service: ServiceKey,
    /// Which slot it fills.
    pub slot: Slot,
    /// The node that holds it.
    pub node: NodeId,
    /// That node's name.
    pub node_name: String,
    /// What is believed of that node: the rest is what it last said.
    pub node_state: NodeState,
    /// Where the replica is in its life.
    pub phase: Phase,
    /// Whether it should get traffic.
    pub ready: bool,
    /// Whether its node wants to hand it over.
    pub leaving: bool,
    /// Whether another claim to the same slot beats this one, so that it will stop.
    pub superseded: bool,
    /// The fencing epoch.
    pub epoch: u64,
    /// Hash of the specification it runs.
    pub revision: String,
    /// Starts beyond the first.
    pub restarts: u32,
    /// Where its ports answer.
    pub endpoints: Vec<Endpoint>,
    /// When its node took it.
    pub since: u64,
    /// When the current attempt started.
    pub started_at: Option<u64>,
    /// Why it is not running.
    pub message: Option<String>,
    /// How it last ended.
    pub last_exit: Option<ExitReport>,
    /// Its latest steps, oldest first.
    #[serde(default)]
    pub history: Vec<PhaseChange>,
    /// The container's or process group's id.
    pub workload: Option<String>,
}
