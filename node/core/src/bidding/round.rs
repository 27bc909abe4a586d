//! One round: who was asked, what they answered, who wins.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use dunlin_state::model::{NodeId, ServiceKey, Slot};
use serde::{Deserialize, Serialize};

use super::evenly::deal;
use crate::placement::{Domains, Reason};

/// Milliseconds after which a round closes without those who have not answered: the bidders' own
/// window ([`super::BID_WINDOW_MS`]) and a round trip on a bad path.
pub(super) const ROUND_WINDOW_MS: u64 = 500;

/// Milliseconds after which a round closes when the bids it has fill all slots and most candidates
/// have answered: one that hangs should not delay everybody by the whole window.
pub(super) const ENOUGH_MS: u64 = 150;

/// Refusals kept of a round. `explain` judges all nodes by itself; these add what only the nodes
/// know.
const MAX_KEPT_REFUSALS: usize = 64;

/// What the last round of a service came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LastRound {
    /// When it closed, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The revision it was for.
    pub revision: String,
    /// Slots that were vacant.
    pub slots: u32,
    /// Nodes that were asked.
    pub asked: u32,
    /// Who won what.
    pub awards: Vec<(Slot, NodeId)>,
    /// Who refused, and why.
    pub refusals: Vec<(NodeId, Vec<Reason>)>,
    /// Who did not answer in time.
    pub silent: Vec<NodeId>,
}

/// A round in flight.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) service: ServiceKey,
    pub(super) revision: String,
    pub(super) slots: Vec<u32>,
    /// Whether others are to make way.
    pub(super) by_force: bool,
    pub(super) opened: u64,
    pub(super) asked: u32,
    outstanding: BTreeSet<NodeId>,
    bids: BTreeMap<NodeId, Vec<i64>>,
    refusals: Vec<(NodeId, Vec<Reason>)>,
}

impl Round {
    pub(super) fn new(
        service: ServiceKey,
        revision: String,
        slots: Vec<u32>,
        by_force: bool,
        candidates: BTreeSet<NodeId>,
        now: u64,
    ) -> Self {
        Self {
            service,
            revision,
            slots,
            by_force,
            opened: now,
            asked: u32::try_from(candidates.len()).unwrap_or(u32::MAX),
            outstanding: candidates,
            bids: BTreeMap::new(),
            refusals: Vec::new(),
        }
    }

    /// Takes a bid. Returns whether it was waited for.
    pub(super) fn bid(&mut self, from: NodeId, scores: Vec<i64>) -> bool {
        let expected = self.outstanding.remove(&from);
        if expected {
            self.bids.insert(from, scores);
        }
        expected
    }

    pub(super) fn refuse(&mut self, from: NodeId, reasons: Vec<Reason>) {
        if self.outstanding.remove(&from) {
            self.refusals.push((from, reasons));
        }
    }

    /// Waits no longer for a node. Returns whether it was waited for.
    pub(super) fn lose(&mut self, node: NodeId) -> bool {
        self.outstanding.remove(&node)
    }

    /// Whether it is time to award.
    pub(super) fn is_over(&self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.opened);
        self.outstanding.is_empty() || elapsed >= ROUND_WINDOW_MS || {
            let offered: usize = self.bids.values().map(Vec::len).sum();
            let answered = self.bids.len() + self.refusals.len();
            elapsed >= ENOUGH_MS && offered >= self.slots.len() && answered > self.outstanding.len()
        }
    }

    /// Who has made an offer.
    pub(super) fn bidders(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.bids.keys().copied()
    }

    /// Whether some node would answer otherwise a moment later.
    pub(super) fn is_passing(&self) -> bool {
        let mut refusals = self.refusals.iter();
        refusals.any(|(_, reasons)| reasons.iter().all(Reason::is_passing))
    }

    /// Whether some node is making room already.
    pub(super) fn is_making_room(&self) -> bool {
        let mut refusals = self.refusals.iter();
        refusals.any(|(_, reasons)| reasons.contains(&Reason::MakingRoom))
    }

    /// Gives each slot to the best marginal score that is left. `forbidden` pairs are skipped: a
    /// node does not get a slot that it is about to leave.
    pub(super) fn assign(
        &self,
        slots: &[u32],
        domains: Domains,
        forbidden: impl Fn(u32, NodeId) -> bool,
    ) -> BTreeMap<NodeId, Vec<u32>> {
        if !domains.is_empty() {
            return deal(&self.bids, slots, domains, forbidden);
        }
        let mut best: BinaryHeap<(i64, Reverse<NodeId>, usize)> = self
            .bids
            .iter()
            .filter_map(|(node, scores)| Some((*scores.first()?, Reverse(*node), 0)))
            .collect();
        let mut left: BTreeSet<u32> = slots.iter().copied().collect();
        let mut awards: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
        while let Some((_, Reverse(node), index)) = best.pop() {
            let Some(slot) = left.iter().copied().find(|s| !forbidden(*s, node)) else {
                continue;
            };
            left.remove(&slot);
            awards.entry(node).or_default().push(slot);
            let further = self.bids.get(&node).and_then(|s| s.get(index + 1));
            if let Some(score) = further {
                best.push((*score, Reverse(node), index + 1));
            }
        }
        awards
    }

    pub(super) fn summary(mut self, awards: &BTreeMap<NodeId, Vec<u32>>, wall: u64) -> LastRound {
        self.refusals.truncate(MAX_KEPT_REFUSALS);
        let awards = awards
            .iter()
            .flat_map(|(node, slots)| slots.iter().map(|s| (Slot::Replica(*s), *node)));
        LastRound {
            at: wall,
            revision: self.revision,
            slots: u32::try_from(self.slots.len()).unwrap_or(u32::MAX),
            asked: self.asked,
            awards: awards.take(MAX_KEPT_REFUSALS).collect(),
            refusals: self.refusals,
            silent: self
                .outstanding
                .into_iter()
                .take(MAX_KEPT_REFUSALS)
                .collect(),
        }
    }
}
