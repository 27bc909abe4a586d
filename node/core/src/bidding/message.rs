//! What auctioneers and bidders tell each other.

use dunlin_state::model::{NodeId, ServiceKey, Slot};
use serde::{Deserialize, Serialize};

use crate::placement::Reason;

/// Names a round of one auctioneer. `boot` keeps answers to an earlier life apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RoundId {
    /// The auctioneer's boot count.
    pub boot: u64,
    /// Rounds in that life.
    pub seq: u64,
}

/// A message of the auction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Auctioneer to candidate: how well would so many replicas sit with you?
    Call {
        /// Which round.
        round: RoundId,
        /// Whose replicas.
        service: ServiceKey,
        /// Of which specification.
        revision: String,
        /// At most how many.
        slots: u32,
        /// Whether replicas of lower priorities should make way.
        #[serde(default)]
        by_force: bool,
        /// One of the slots: the data that they need, if any, is for all of them on the same node.
        #[serde(default)]
        first: u32,
        /// Who runs the replica that is to be moved, if it is no vacant slot that is called for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        moved_from: Option<NodeId>,
    },
    /// Candidate to auctioneer: this well. The offer holds for [`super::OFFER_MS`].
    Bid {
        /// Which round.
        round: RoundId,
        /// The score of the first, second, … replica; higher is better.
        scores: Vec<i64>,
    },
    /// Candidate to auctioneer: not at all, because.
    Refusal {
        /// Which round.
        round: RoundId,
        /// Everything that stands against it.
        reasons: Vec<Reason>,
    },
    /// Auctioneer to bidder: these are yours, with their fencing epochs. None: the offer is
    /// released.
    Award {
        /// Which round.
        round: RoundId,
        /// What was won.
        slots: Vec<(Slot, u64)>,
    },
    /// Bidder to auctioneer: too late.
    AwardRefused {
        /// Which round.
        round: RoundId,
        /// What it does not take.
        slots: Vec<Slot>,
        /// Why.
        reason: Reason,
    },
}
