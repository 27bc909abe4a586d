//! What a service is worth, and what becomes of it where its node is alone. None of it is a
//! property of a running replica, so none of it is part of the revision.

use serde::{Deserialize, Serialize};

use super::{NodeId, SlotId};

/// How a service fares among others and in a divided cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Policy {
    /// Where there is no room, replicas of services with a lower number make way. From
    /// -[`Policy::MAX_PRIORITY`] to [`Policy::MAX_PRIORITY`].
    pub priority: i32,
    /// Milliseconds after which a node that is cut off stops its replicas; it keeps them when
    /// absent.
    pub stop_isolated_after_ms: Option<u64>,
    /// Whether replicas may be moved to even out nodes. When absent, those that have no volumes.
    pub rebalance: Option<bool>,
    /// Whose votes a replica needs to run, of a service of which there must never be two: the
    /// majority of these. Anybody may run when empty.
    pub voters: Vec<NodeId>,
}

impl Policy {
    /// The greatest priority, in either direction.
    pub const MAX_PRIORITY: i32 = 1_000;

    /// Most voters: more make it slower and hardly safer.
    pub const MAX_VOTERS: usize = 7;

    /// Whether there must never be two of a slot.
    pub fn is_strict(&self) -> bool {
        !self.voters.is_empty()
    }

    /// The longest time in milliseconds until an isolated node stops a replica, a week.
    pub const MAX_ISOLATED_MS: u64 = 7 * 86_400_000;
}

/// A node's word that it ends a replica to make room for a service of a higher priority.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Preempted {
    /// Whose replica had to go.
    pub slot: SlotId,
    /// For whom.
    pub by: SlotId,
    /// When that was decided, in milliseconds since the Unix epoch by the node's clock.
    pub at: u64,
}

/// Preemptions that a node's report remembers, the newest: enough to say of every waiting slot of
/// a usual host why it waits.
pub const MAX_PREEMPTED: usize = 64;
