//! Who auctions a service: rendezvous hashing (Thaler, Ravishankar: "A name-based mapping scheme
//! for rendezvous", 1996), cut to the first few ranks.

use dunlin_state::model::{NodeId, ServiceKey};

use crate::hashing::{mix, service_hash};

/// Nodes that stand ready to auction a service. The second and third take over when the ones
/// before them do nothing; that all three fail before membership notices is not worth memory.
pub(crate) const TOP_RANKS: usize = 3;

/// The first nodes in a service's order.
#[derive(Debug)]
pub(super) struct Ranks {
    service: u64,
    /// Weight and node, greatest first.
    top: Vec<(u64, NodeId)>,
}

impl Ranks {
    pub(super) fn new(service: &ServiceKey) -> Self {
        Self {
            service: service_hash(service),
            top: Vec::with_capacity(TOP_RANKS + 1),
        }
    }

    pub(super) fn rank_of(&self, node: NodeId) -> Option<usize> {
        self.top.iter().position(|(_, n)| *n == node)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.top.iter().map(|(_, node)| *node)
    }

    /// Adds a node. Returns whether it is among the first.
    pub(super) fn insert(&mut self, node: NodeId, hash: u64) -> bool {
        let entry = (mix(self.service, hash), node);
        let place = self.top.partition_point(|known| *known > entry);
        if place >= TOP_RANKS || self.top.get(place) == Some(&entry) {
            return false;
        }
        self.top.insert(place, entry);
        self.top.truncate(TOP_RANKS);
        true
    }

    pub(super) fn recompute(&mut self, alive: impl Iterator<Item = (NodeId, u64)>) {
        self.top.clear();
        for (node, hash) in alive {
            self.insert(node, hash);
        }
    }
}
