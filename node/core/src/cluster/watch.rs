//! The claims of one watched service.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{Claim, NodeId, Slot};

use crate::liveness::Standing;

/// Remembered epochs of slots that are neither wanted nor held, beyond which they are dropped.
/// A service that shrinks and grows again by less than this keeps counting its epochs.
const MAX_SPARE_EPOCHS: usize = 1_024;

/// Claims by slot, and which wanted slots nobody holds.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    claims: BTreeMap<Slot, BTreeMap<NodeId, Claim>>,
    /// The highest epoch seen of each slot, also after its claims have gone.
    epochs: BTreeMap<Slot, u64>,
    wanted: u32,
    vacant: BTreeSet<u32>,
}

impl Watch {
    /// Wanted slots without a claim that counts.
    pub(crate) fn vacant(&self) -> &BTreeSet<u32> {
        &self.vacant
    }

    /// All claims of a slot, also of nodes that are gone.
    pub(crate) fn claims_of(&self, slot: Slot) -> impl Iterator<Item = (NodeId, &Claim)> {
        self.claims
            .get(&slot)
            .into_iter()
            .flatten()
            .map(|(node, claim)| (*node, claim))
    }

    /// All slots that have claims, ordered.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.claims.keys().copied()
    }

    /// Whether the node has claims to any slot.
    pub(super) fn is_held_by(&self, node: NodeId) -> bool {
        self.claims
            .values()
            .any(|holders| holders.contains_key(&node))
    }

    /// The highest epoch that any claim of the slot had, zero if it never had one.
    pub(crate) fn highest_epoch(&self, slot: Slot) -> u64 {
        self.epochs.get(&slot).copied().unwrap_or(0)
    }

    pub(super) fn set_wanted(&mut self, wanted: u32, standing: &dyn Fn(NodeId) -> Standing) {
        self.wanted = wanted;
        self.vacant = (0..wanted)
            .filter(|index| !self.is_filled(Slot::Replica(*index), standing))
            .collect();
    }

    pub(super) fn insert(
        &mut self,
        slot: Slot,
        node: NodeId,
        claim: &Claim,
        standing: &dyn Fn(NodeId) -> Standing,
    ) {
        let epoch = self.epochs.entry(slot).or_default();
        *epoch = claim.epoch.max(*epoch);
        if self.epochs.len() > self.wanted as usize + self.claims.len() + MAX_SPARE_EPOCHS {
            let (claims, wanted) = (&self.claims, self.wanted);
            self.epochs.retain(|slot, _| {
                claims.contains_key(slot) || matches!(slot, Slot::Replica(i) if *i < wanted)
            });
        }
        self.claims
            .entry(slot)
            .or_default()
            .insert(node, claim.clone());
        self.refresh(slot, standing);
    }

    pub(super) fn remove(
        &mut self,
        slot: Slot,
        node: NodeId,
        standing: &dyn Fn(NodeId) -> Standing,
    ) {
        if let Some(holders) = self.claims.get_mut(&slot) {
            holders.remove(&node);
            if holders.is_empty() {
                self.claims.remove(&slot);
            }
        }
        self.refresh(slot, standing);
    }

    /// A node's standing has changed. Returns whether it holds anything here.
    pub(super) fn refresh_node(
        &mut self,
        node: NodeId,
        standing: &dyn Fn(NodeId) -> Standing,
    ) -> bool {
        let slots: Vec<Slot> = self
            .claims
            .iter()
            .filter(|(_, holders)| holders.contains_key(&node))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in &slots {
            self.refresh(*slot, standing);
        }
        !slots.is_empty()
    }

    fn refresh(&mut self, slot: Slot, standing: &dyn Fn(NodeId) -> Standing) {
        let Slot::Replica(index) = slot else { return };
        if index < self.wanted && !self.is_filled(slot, standing) {
            self.vacant.insert(index);
        } else {
            self.vacant.remove(&index);
        }
    }

    fn is_filled(&self, slot: Slot, standing: &dyn Fn(NodeId) -> Standing) -> bool {
        self.claims_of(slot)
            .any(|(node, claim)| !claim.leaving && standing(node).holds_claims())
    }
}
