//! Who auctions a service: rendezvous hashing (Thaler, Ravishankar: "A name-based mapping scheme
//! for rendezvous", 1996).
//!
//! A node needs to know only its own place in the order of each service, which is the number of
//! living nodes that weigh more. That number is counted once per service and then follows the
//! comings and goings of nodes at one multiplication each. Whoever is far down the order needs not
//! know how far, so counting ends at `FAR`; should most of those counted go, it is done again.

use dunlin_state::model::ServiceKey;

use crate::hashing::{mix, service_hash};

/// Nodes that stand ready to auction a service. The second and third take over when the ones
/// before them do nothing; that all three fail before membership notices is not worth the work.
pub(crate) const TOP_RANKS: usize = 3;

/// With so many nodes before this one, it does not matter how many more there are: nobody waits for
/// that many turns. Counting on would cost a large cluster eight times as much.
const FAR: usize = 24;

/// This node's place in a service's order.
#[derive(Debug)]
pub(super) struct Rank {
    service: u64,
    /// This node's weight.
    mine: u64,
    /// Living nodes that weigh more: all, or as many as were counted and at least the first ranks.
    ahead: usize,
    /// Whether all were counted.
    exact: bool,
}

impl Rank {
    /// Counts among all other living nodes, given by their hashes.
    pub(super) fn count(service: &ServiceKey, me: u64, others: &[u64]) -> Self {
        let service = service_hash(service);
        let mut rank = Self {
            service,
            mine: mix(service, me),
            ahead: 0,
            exact: true,
        };
        rank.recount(others);
        rank
    }

    fn recount(&mut self, others: &[u64]) {
        let heavier = others.iter().filter(|o| self.weight(**o) > self.mine);
        self.ahead = heavier.take(FAR).count();
        self.exact = self.ahead < FAR;
    }

    /// The weight of a node for this service.
    pub(super) fn weight(&self, node: u64) -> u64 {
        mix(self.service, node)
    }

    /// Living nodes that rank before this one, if they are few; otherwise some of them.
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

    /// Another node ceased to live, and `others` still do. Returns whether that matters here.
    pub(super) fn leave(&mut self, node: u64, others: &[u64]) -> bool {
        let before = self.top();
        if self.weight(node) > self.mine {
            self.ahead = self.ahead.saturating_sub(1);
        }
        if !self.exact && self.ahead < TOP_RANKS {
            self.recount(others);
        }
        before != self.top()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashing::mix;

    #[test]
    fn counting_no_further_than_needed_finds_the_same_first_nodes() {
        let service: ServiceKey = "web".parse().unwrap();
        for me in 1..=40 {
            let mut others: Vec<u64> = (100..400).map(|n| mix(n, 7)).collect();
            let mut rank = Rank::count(&service, me, &others);
            while let Some(gone) = others.pop() {
                let before = rank.top();
                let matters = rank.leave(gone, &others);
                let heavier = others.iter().filter(|o| rank.weight(**o) > rank.mine);
                let ahead = heavier.count();
                assert_eq!(rank.top(), (ahead < TOP_RANKS).then_some(ahead));
                assert_eq!(matters, before != rank.top());
            }
        }
    }
}
