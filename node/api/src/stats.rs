//! What replicas use.

use dunlin_state::model::{NodeId, ServiceKey, SlotId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Whose usage to tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// Only this namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only this service, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub service: Option<ServiceKey>,
    /// Whether to go on, about once a second.
    pub follow: bool,
}

/// A line of the stream. What cannot be known is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StatsRecord {
    /// What a replica uses.
    Replica {
        /// Which replica.
        slot: SlotId,
        /// Its node.
        node: NodeId,
        /// That node's name.
        node_name: String,
        /// Thousandths of a core since the last look.
        cpu_millis: Option<u64>,
        /// Bytes of memory, without what the kernel could drop at once.
        memory: Option<u64>,
        /// Bytes of memory that its specification allows.
        memory_limit: Option<u64>,
        /// Processes.
        processes: Option<u64>,
        /// Bytes received since it started; containers only.
        received: Option<u64>,
        /// Bytes sent since it started; containers only.
        sent: Option<u64>,
    },
    /// Nothing can be said of this replica.
    Unknown {
        /// Which replica.
        slot: SlotId,
        /// Its node.
        node: NodeId,
        /// That node's name.
        node_name: String,
        /// Why not.
        reason: String,
    },
    /// A node that holds replicas could not be asked, so that they are missing here.
    Unreachable {
        /// Which node.
        node: NodeId,
        /// Its name.
        node_name: String,
        /// Why.
        reason: String,
    },
    /// All replicas have been told of once.
    End,
}
