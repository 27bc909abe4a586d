//! Where replicas would better run: affinities that can be outweighed, even spreading over labels,
//! and what counts as a full node.

use serde::{Deserialize, Serialize};

use super::{Constraint, ServiceKey};

/// Something that makes a node better or worse for a replica, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Preference {
    /// What is preferred or avoided.
    pub of: Preferred,
    /// From -100 to 100, not 0. At 100 it weighs as much as the difference between an empty node
    /// and a full one, and half as much as one more replica of the same service on the node.
    pub weight: i32,
}

impl Preference {
    /// The greatest weight, in either direction.
    pub const MAX_WEIGHT: i32 = 100;
}

/// What a [`Preference`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Preferred {
    /// A node with a replica of this service.
    Service(ServiceKey),
    /// A node on which this holds.
    Constraint(Constraint),
}

/// Replicas are dealt out evenly over the values of a label or fact. Nodes that have none count as
/// one more value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpreadRule {
    /// The key, as in constraints.
    pub key: String,
    /// How much this one counts beside others, from 1 to 100.
    pub weight: u32,
    /// A value may have at most so many replicas more than the one with the fewest; then replicas
    /// wait rather than break that. Any number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_skew: Option<u32>,
}

impl SpreadRule {
    /// The greatest weight.
    pub const MAX_WEIGHT: u32 = 100;

    /// Even over `key`, as far as there is room.
    pub fn over(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            weight: 1,
            max_skew: None,
        }
    }
}

/// How much each resource counts when the load of nodes is compared, from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScoreWeights {
    /// Reserved CPU time.
    pub cpu: u32,
    /// Reserved memory.
    pub memory: u32,
    /// Reserved disk space.
    pub disk: u32,
    /// Replicas per core, so that services which reserve nothing spread too.
    pub replicas: u32,
}

impl ScoreWeights {
    /// The greatest weight.
    pub const MAX_WEIGHT: u32 = 100;

    /// All of them.
    pub fn all(self) -> [u32; 4] {
        [self.cpu, self.memory, self.disk, self.replicas]
    }
}

impl Default for ScoreWeights {
    fn default() -> Self {
        Self {
            cpu: 1,
            memory: 1,
            disk: 0,
            replicas: 1,
        }
    }
}
