//! Moving replicas so that nodes are evenly used.

use dunlin_state::model::{ServiceKey, Slot};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What would be moved at this moment, and whether it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct RebalancePlan {
    /// Whether replicas move by themselves, once the cluster has been quiet for a while.
    pub automatic: bool,
    /// Until when they move because somebody has asked for it; absent when nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_until: Option<u64>,
    /// Replicas that are on their way.
    pub moving: u32,
    /// What would be moved, in this order.
    pub moves: Vec<PlannedMove>,
    /// Whether there would be more than these.
    pub more: bool,
    /// How nodes are used, before and after.
    pub nodes: Vec<NodeUse>,
    /// Services of which nothing would be moved.
    pub stays: Vec<StayingService>,
}

/// A replica that would be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedMove {
    /// Whose replica.
    pub service: ServiceKey,
    /// Which.
    pub slot: Slot,
    /// The name of the node that it runs on.
    pub from: String,
    /// The name of the node that it would run on.
    pub to: String,
    /// Why.
    pub why: String,
}

/// How a node is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeUse {
    /// Its name.
    pub name: String,
    /// Replicas now.
    pub replicas_before: u32,
    /// Replicas then.
    pub replicas_after: u32,
    /// How full it is now, in millionths of what it has least left of.
    pub full_before_ppm: u32,
    /// How full it would be.
    pub full_after_ppm: u32,
}

/// A service of which nothing would be moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StayingService {
    /// Which.
    pub service: ServiceKey,
    /// Why.
    pub why: String,
}

/// What replicas shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RebalanceRequest {
    /// Whether they move by themselves; as before when absent.
    pub automatic: Option<bool>,
    /// Whether they move now.
    pub now: bool,
}
