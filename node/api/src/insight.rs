//! Answers to "why": explanations, history, progress, health of a node.

use dunlin_state::model::{Networks, NodeId, Phase, ServiceKey, Slot};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::AutoscaleStatus;

/// Why a service is as it is: which slots lack what, and which node could take them or why not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Whom it is about.
    pub service: ServiceKey,
    /// The whole in one sentence.
    pub summary: String,
    /// The networks it is in, by their full names: services that share one reach each other.
    pub networks: Networks,
    /// How many replicas should exist now.
    pub wanted: u32,
    /// How many of them get traffic.
    pub ready: u32,
    /// How its number of replicas follows the load, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<AutoscaleStatus>,
    /// Every slot, ordered.
    pub slots: Vec<SlotState>,
    /// Every node, those that fit first and the best of them first.
    pub nodes: Vec<NodeVerdict>,
}

/// A slot and who fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotState {
    /// Which slot.
    pub slot: Slot,
    /// Who holds it; nobody when absent.
    pub node: Option<NodeId>,
    /// That node's name.
    pub node_name: Option<String>,
    /// Where its replica is in its life.
    pub phase: Option<Phase>,
    /// Whether it gets traffic.
    pub ready: bool,
    /// Why it does not, in words.
    pub message: Option<String>,
}

/// What a node would say to one more replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeVerdict {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it may.
    pub verdict: Verdict,
    /// How much it would like to, when it may; greater is better and only the order means
    /// anything.
    pub score: Option<f64>,
    /// All reasons why not, when it may not.
    pub reasons: Vec<RefusalReason>,
}

/// Whether a node may take a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may.
    Fits,
    /// It may not.
    Refused,
}

/// One reason why a node may not take a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusalReason {
    /// The reason, in words.
    pub text: String,
    /// What would change it.
    pub fix: Option<String>,
}

/// Who changed what about a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Whom it is about.
    pub service: ServiceKey,
    /// Newest first.
    pub entries: Vec<HistoryEntry>,
}

/// One change of one aspect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryEntry {
    /// Which aspect: `spec`, `image`, `scale`, `running`.
    pub aspect: String,
    /// When, by the clock of the node that took it.
    pub at: u64,
    /// Who asked.
    pub author: String,
    /// What it became, in a few words.
    pub summary: String,
    /// The revision that it made, where there is one.
    pub revision: Option<String>,
    /// Whether it is what counts now.
    pub current: bool,
    /// Whether it lost against a concurrent change of the same aspect.
    pub lost: bool,
}

/// Whose progress to tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ConvergenceQuery {
    /// Only this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only this service, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub service: Option<ServiceKey>,
}

/// How far the cluster is from what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Convergence {
    /// Ordered by namespace and name.
    pub services: Vec<ServiceProgress>,
}

/// How far a service is from what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceProgress {
    /// Whom it is about.
    pub service: ServiceKey,
    /// The revision that is wanted.
    pub revision: String,
    /// How many replicas should exist now.
    pub wanted: u32,
    /// How many of them get traffic, of any revision.
    pub ready: u32,
    /// How many of those that get traffic are of the wanted revision.
    pub updated: u32,
    /// Whether it is exactly as wanted: all slots ready and of the wanted revision, or completed
    /// as the restart policy allows, and nothing superfluous left.
    pub converged: bool,
    /// Why it is not, in a sentence, as far as the node knows.
    pub reason: Option<String>,
    /// Why its rollout goes no further or was undone, when it was.
    #[serde(default)]
    pub halted: Option<String>,
}

/// How well a node is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DoctorReport {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What was looked at, the essential first.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What it is: a few words.
    pub name: String,
    /// How it is.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// The outcome of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// It works with a drawback.
    Warn,
    /// Something does not work.
    Fail,
}
