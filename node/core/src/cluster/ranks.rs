//! Who auctions a service: rendezvous hashing (Thaler, Ravishankar: "A name-based mapping scheme
//! for rendezvous", 1996).
//!
//! A node needs to know only its own place in the order of each service, which is the number of
//! living nodes that weigh more. That number is counted once per service and then follows the
//! comings and goings of nodes at one multiplication each.

use dunlin_state::model::ServiceKey;

use crate::hashing::{mix, service_hash};

/// Nodes that stand ready to auction a service. The second and third take over when the ones
/// before them do nothing; that all three fail before membership notices is not worth the work.
pub(crate) const TOP_RANKS: usize = 3;

/// This node's place in a service's order.
#[derive(Debug)]
pub(super) struct Rank {
    service: u64,
    /// This node's weight.
    mine: u64,
    /// Living nodes that weigh more.
    ahead: usize,
}

impl Rank {
    /// Counts among all other living nodes, given by their hashes.
    pub(super) fn count(service: &ServiceKey, me: u64, others: &[u64]) -> Self {
        let service = service_hash(service);
        let mine = mix(service, me);
        let ahead = others.iter().filter(|o| mix(service, **o) > mine).count();
        Self {
            service,
            mine,
            ahead,
        }
    }

    /// The weight of a node for this service.
    pub(super) fn weight(&self, node: u64) -> u64 {
        mix(self.service, node)
    }

    /// Living nodes that rank before this one.
    pub(super) fn ahead(&self) -> usize {
        self.ahead
    }

    /// This node's rank, if it is among the first.
    pub(super) fn top(&self) -> Option<usize> {
        (self.ahead < TOP_RANKS).then_some(self.ahead)
    }

    /// Another node came to life. Returns whether that matters here.
    pub(super) fn join(&mut self, node: u64) -> bool {
        let before = self.top();
        if self.weight(node) > self.mine {
            self.ahead += 1;
        }
        before != self.top()
    }

    /// Another node ceased to live. Returns whether that matters here.
    pub(super) fn leave(&mut self, node: u64) -> bool {
        let before = self.top();
        if self.weight(node) > self.mine {
            self.ahead = self.ahead.saturating_sub(1);
        }
        before != self.top()
    }
}
