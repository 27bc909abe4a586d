//! Why a service is as it is, for a person who waits for it.

use dunlin_state::model::{NodeId, Phase, ServiceKey, Slot};
use serde::{Deserialize, Serialize};

use crate::bidding::LastRound;
use crate::liveness::Standing;
use crate::placement::Verdict;

/// The state of a service, slot by slot and node by node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whom it is about.
    pub service: ServiceKey,
    /// The whole in one sentence.
    pub summary: String,
    /// How many replicas should exist now.
    pub wanted: u32,
    /// How many of them get traffic.
    pub ready: u32,
    /// Every slot, ordered; a slot with several holders stands here once for each, the winner
    /// first.
    pub slots: Vec<SlotExplanation>,
    /// Every node: those that fit first, the best of them first.
    pub nodes: Vec<NodeExplanation>,
    /// The last auction, when this node held it.
    pub last_round: Option<LastRound>,
}

/// A slot and who fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotExplanation {
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeExplanation {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What is believed of its life.
    pub standing: Standing,
    /// Whether it may, and how much it would like to; or every reason why not, each with its fix
    /// ([`crate::placement::Reason::fix`]).
    pub verdict: Verdict,
}
