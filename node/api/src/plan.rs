//! What a deploy would do.

use dunlin_state::model::{NodeId, ServiceKey, ServiceSpec, Slot, VolumeId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::NodeVerdict;

/// What a [`crate::DeployRequest`] would do at this moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeployPlan {
    /// In the order of the request.
    pub services: Vec<PlannedService>,
}

/// What would become of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedService {
    /// Which service.
    pub service: ServiceKey,
    /// Whether it is new or changes.
    pub change: PlannedChange,
    /// Its specification now; absent when it would be created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ServiceSpec>,
    /// Its specification then.
    pub after: ServiceSpec,
    /// Its scale now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_before: Option<u32>,
    /// Its scale then.
    pub scale_after: u32,
    /// Hash of the specification then.
    pub revision: String,
    /// Every slot that it has now or then, ordered.
    pub slots: Vec<PlannedSlot>,
    /// Why nodes take no replica, where a slot would have no node.
    pub refusals: Vec<NodeVerdict>,
}

/// Whether a service is new or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlannedChange {
    /// It is new.
    Create,
    /// Its specification or scale changes.
    Update,
    /// Everything is so already.
    Unchanged,
}

/// What would become of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedSlot {
    /// Which slot.
    pub slot: Slot,
    /// What would happen.
    pub step: PlannedStep,
    /// Where; for a slot that stops, where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// That node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The name of the node that it would leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Replicas of services with a lower priority that would give way to it there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ousts: Vec<OustedReplica>,
    /// The volumes whose data decides where it goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<PlannedVolume>,
}

/// A volume that decides where a slot goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedVolume {
    /// Which.
    #[schema(value_type = String)]
    pub volume: VolumeId,
    /// The name of the node whose copy decides, or of the one that would make it.
    pub node_name: String,
    /// Whether nobody has it yet.
    pub begins: bool,
    /// Names of nodes that have a copy which does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<String>,
}

/// A replica that would give way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OustedReplica {
    /// Whose.
    pub service: ServiceKey,
    /// Which.
    pub slot: Slot,
}

/// What would happen to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlannedStep {
    /// Its replica stays as it is.
    Keep,
    /// It gets a replica.
    Start,
    /// Its replica is replaced on its node.
    Update,
    /// A replica on another node takes its place.
    Move,
    /// Its replica ends.
    Stop,
    /// No node would take it.
    Nowhere,
}
