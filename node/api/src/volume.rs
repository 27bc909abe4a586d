//! Volumes, and which nodes have their data.

use dunlin_state::model::{NodeId, ServiceKey, VolumeId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which volumes to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct VolumeQuery {
    /// Only those of this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Every volume that some node has data of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeList {
    /// Ordered by name.
    pub volumes: Vec<Volume>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Volume {
    /// `namespace/name`, and of one that a replica has for itself `namespace/name@service.slot`.
    #[schema(value_type = String)]
    pub volume: VolumeId,
    /// The services whose specification names it.
    #[schema(value_type = Vec<String>)]
    pub used_by: Vec<ServiceKey>,
    /// Who has data of it, the copy that counts first.
    pub copies: Vec<VolumeCopy>,
}

/// The data of a volume on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeCopy {
    /// Which node.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// Whether that node answers.
    pub reachable: bool,
    /// Whether replicas get this copy. Of several, only one counts.
    pub counts: bool,
    /// Whether a replica may have written to it; before that it is only reserved.
    pub used: bool,
    /// How often it was begun anew although there was data.
    pub generation: u64,
    /// When the data came there.
    pub since: u64,
}

/// Whose copy of a volume is meant, and what may go for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct VolumeTarget {
    /// The node's id, a unique beginning of that, or its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether the archive, or an empty volume, counts in place of data that there is.
    pub force: bool,
}

/// Where a volume is that somebody wanted to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeCreated {
    /// Which.
    #[schema(value_type = String)]
    pub volume: VolumeId,
    /// The name of the node that has it.
    pub node_name: String,
    /// Whether it is new and empty; `false` when it was there.
    pub created: bool,
    /// Names of nodes with an older copy that does not count from now on.
    pub superseded: Vec<String>,
}

/// What became of the copies of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct VolumeRemoval {
    /// Nodes whose copy is gone, by name.
    pub removed: Vec<String>,
    /// Nodes that have a copy and could not be asked.
    pub unreachable: Vec<String>,
}
