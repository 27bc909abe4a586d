//! The changes a person can ask for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::items::NewItem;
use super::jobs::RunRecord;
use super::trust::TrustCommand;
use crate::model::{
    Availability, ItemKey, ItemKind, NodeId, Quota, Rebalancing, RunId, ServiceKey, ServiceSpec,
    Window,
};

/// One intended change of desired state. Several commands given together become one change of the
/// document: all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Create a service or give it a new specification. Only the aspects that differ are written,
    /// so that applying the same file twice writes nothing.
    Deploy {
        /// Which service.
        service: ServiceKey,
        /// All of its specification.
        spec: Box<ServiceSpec>,
        /// Its scale; when absent a new service gets one replica and an old one keeps its scale.
        replicas: Option<u32>,
    },
    /// Change the number of replicas.
    Scale {
        /// Which service.
        service: ServiceKey,
        /// The new number.
        replicas: u32,
    },
    /// Stop (`false`) or start (`true`) all replicas, keeping the service.
    SetRunning {
        /// Which service.
        service: ServiceKey,
        /// Whether it runs.
        running: bool,
    },
    /// Steer the rollout of a service.
    Rollout {
        /// Which service.
        service: ServiceKey,
        /// Only while this is its revision: a decision about one rollout is none about the next.
        revision: Option<String>,
        /// What to do.
        change: RolloutChange,
    },
    /// Nothing is changed; but a deploy that follows takes the present revision for proven, and
    /// thus for what to go back to.
    Proven {
        /// Which service.
        service: ServiceKey,
    },
    /// Have a job run now.
    AskRun {
        /// Which job.
        service: ServiceKey,
        /// Names the run: one that was asked for.
        run: RunId,
    },
    /// End a run of a job, or keep it from beginning.
    CancelRun {
        /// Which job.
        service: ServiceKey,
        /// Which run.
        run: RunId,
    },
    /// Record what has become of runs.
    RecordRuns {
        /// Which job.
        service: ServiceKey,
        /// What is known.
        record: RunRecord,
    },
    /// Remove the service and everything about it but its history.
    Remove {
        /// Which service.
        service: ServiceKey,
    },
    /// Cordon, drain or re-activate a node.
    SetAvailability {
        /// Which node.
        node: NodeId,
        /// What it shall do.
        availability: Availability,
    },
    /// Replace the labels that the cluster gives a node.
    SetLabels {
        /// Which node.
        node: NodeId,
        /// All of them.
        labels: BTreeMap<String, String>,
    },
    /// Replace the times at which a node is to be worked on.
    SetWindows {
        /// Which node.
        node: NodeId,
        /// All of them.
        windows: Vec<Window>,
    },
    /// Bound what the services of a namespace may reserve together; a quota of nothing is none.
    SetQuota {
        /// Which namespace.
        namespace: String,
        /// The bounds.
        quota: Quota,
    },
    /// Say whether replicas are moved to even out nodes.
    SetRebalancing(Rebalancing),
    /// Create a secret or config, or give it another content or labels.
    PutItem {
        /// Which kind.
        kind: ItemKind,
        /// Which.
        item: ItemKey,
        /// What it shall be.
        new: NewItem,
    },
    /// Remove a secret or config that no service uses.
    RemoveItem {
        /// Which kind.
        kind: ItemKind,
        /// Which.
        item: ItemKey,
    },
    /// Change who belongs to the cluster.
    Trust(TrustCommand),
}

/// How to steer a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutChange {
    /// Go no further.
    Pause {
        /// Why.
        reason: Option<String>,
    },
    /// Go on, and forgive what has failed.
    Resume,
    /// Only the lowest slots get the new specification.
    Canary(u32),
    /// All slots get it.
    Promote,
    /// The specification before is wanted again.
    Rollback {
        /// Why.
        reason: Option<String>,
    },
}
