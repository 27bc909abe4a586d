//! Whether replicas that run are moved so that nodes are evenly used.

use serde::{Deserialize, Serialize};

/// What people said about moving replicas, for the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rebalancing {
    /// Whether nothing moves by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
    /// When somebody last asked for it, in milliseconds since the Unix epoch by the clock of the
    /// node that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<u64>,
}
