//! Who claims the slots of one watched service. The claims themselves stay in the registers: a
//! service may have ten thousand slots, and each of its holders watches all of them.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{Claim, NodeId, Slot, Trial};

use crate::liveness::Standing;

/// Remembered epochs of slots that are neither wanted nor held, beyond which they are dropped.
/// A service that shrinks and grows again by less than this keeps counting its epochs.
const MAX_SPARE_EPOCHS: usize = 1_024;

/// Claims by slot, and which wanted slots nobody holds.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Whether each claim is leaving.
    claims: BTreeMap<(Slot, NodeId), bool>,
    /// The highest epoch seen of each slot, also after its claims have gone.
    epochs: BTreeMap<Slot, u64>,
    /// Claims that have not proven their revision.
    unproven: BTreeSet<(Slot, NodeId)>,
    wanted: u32,
    /// Those below that which are left alone all the same: of a run, what is done or comes later.
    closed: BTreeSet<u32>,
    vacant: BTreeSet<u32>,
}

impl Watch {
    /// Wanted slots without a claim that counts.
    pub(crate) fn vacant(&self) -> &BTreeSet<u32> {
        &self.vacant
    }

    /// All nodes that claim a slot, also those that are gone, and whether they want to leave it.
    pub(crate) fn holders(&self, slot: Slot) -> impl Iterator<Item = (NodeId, bool)> + '_ {
        let first = (slot, NodeId::from_bytes([0; 32]));
        let last = (slot, NodeId::from_bytes([0xff; 32]));
        let range = self.claims.range(first..=last);
        range.map(|((_, node), leaving)| (*node, *leaving))
    }

    /// Slots with a claim that has not proven its revision, ordered; a slot may come twice.
    pub(crate) fn unproven(&self) -> impl Iterator<Item = Slot> + '_ {
        self.unproven.iter().map(|(slot, _)| *slot)
    }

    /// All slots that have claims, with their holders, ordered.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (Slot, NodeId)> + '_ {
        self.claims.keys().copied()
    }

    /// Wanted slots with the nodes that hold them and do not want to leave them, gone ones as well.
    pub(crate) fn settled(&self) -> impl Iterator<Item = (Slot, NodeId)> + '_ {
        let wanted = Slot::Replica(self.wanted);
        let claims = self.claims.iter().filter(|(_, leaving)| !**leaving);
        claims
            .map(|(key, _)| *key)
            .filter(move |(slot, _)| *slot < wanted)
    }

    /// Whether the node has claims to any slot.
    pub(super) fn is_held_by(&self, node: NodeId) -> bool {
        self.claims.keys().any(|(_, holder)| *holder == node)
    }

    /// The highest epoch that any claim of the slot had, zero if it never had one.
    pub(crate) fn highest_epoch(&self, slot: Slot) -> u64 {
        self.epochs.get(&slot).copied().unwrap_or(0)
    }

    pub(super) fn note_epoch(&mut self, slot: Slot, epoch: u64) {
        let known = self.epochs.entry(slot).or_default();
        *known = epoch.max(*known);
    }

    pub(super) fn set_wanted(
        &mut self,
        wanted: u32,
        closed: BTreeSet<u32>,
        standing: &dyn Fn(NodeId) -> Standing,
    ) {
        self.wanted = wanted;
        self.closed = closed;
        self.vacant = (0..wanted)
            .filter(|index| !self.closed.contains(index))
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
        self.claims.insert((slot, node), claim.leaving);
        if claim.trial == Trial::Proven {
            self.unproven.remove(&(slot, node));
        } else {
            self.unproven.insert((slot, node));
        }
        self.refresh(slot, standing);
        if self.epochs.len() > self.wanted as usize + self.claims.len() + MAX_SPARE_EPOCHS {
            self.drop_spare_epochs();
        }
    }

    fn drop_spare_epochs(&mut self) {
        let held: BTreeSet<Slot> = self.claims.keys().map(|(slot, _)| *slot).collect();
        let wanted = self.wanted;
        self.epochs.retain(|slot, _| {
            held.contains(slot) || matches!(slot, Slot::Replica(index) if *index < wanted)
        });
    }

    pub(super) fn remove(
        &mut self,
        slot: Slot,
        node: NodeId,
        standing: &dyn Fn(NodeId) -> Standing,
    ) {
        self.claims.remove(&(slot, node));
        self.unproven.remove(&(slot, node));
        self.refresh(slot, standing);
    }

    /// A node's standing has changed. Returns whether it holds anything here.
    pub(super) fn refresh_node(
        &mut self,
        node: NodeId,
        standing: &dyn Fn(NodeId) -> Standing,
    ) -> bool {
        let claims = self.claims.keys();
        let claims = claims.filter(|(_, holder)| *holder == node);
        let slots: Vec<Slot> = claims.map(|(slot, _)| *slot).collect();
        for slot in &slots {
            self.refresh(*slot, standing);
        }
        !slots.is_empty()
    }

    fn refresh(&mut self, slot: Slot, standing: &dyn Fn(NodeId) -> Standing) {
        let Slot::Replica(index) = slot else { return };
        let open = index < self.wanted && !self.closed.contains(&index);
        if open && !self.is_filled(slot, standing) {
            self.vacant.insert(index);
        } else {
            self.vacant.remove(&index);
        }
    }

    fn is_filled(&self, slot: Slot, standing: &dyn Fn(NodeId) -> Standing) -> bool {
        self.holders(slot)
            .any(|(node, leaving)| !leaving && standing(node).holds_claims())
    }
}
