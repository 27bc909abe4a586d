//! Which of two claims to one slot wins.
//!
//! This order decides at the award and when partitions heal, on every node alike, and is a pure
//! function of the claims: nobody has to be asked.

use std::cmp::{Ordering, Reverse};

use super::{Claim, NodeId, Phase, Slot};

/// The order over claims to the same slot: [`Ordering::Greater`] when `a` wins.
///
/// 1. The higher epoch: the newest award, which also is the one that fenced storage accepts.
/// 2. Running and ready before not: a heal must not replace what answers by what does not yet.
/// 3. The older claim: what has run for long has state and connections.
/// 4. The smaller hash of node and slot, so that ties do not all fall on the same node.
///
/// It is total: only a claim of the same node equals another.
pub fn beats(a: (&NodeId, &Claim), b: (&NodeId, &Claim)) -> Ordering {
    let rank = |(node, claim): (&NodeId, &Claim)| {
        let serving = claim.ready && claim.phase == Phase::Running;
        (
            claim.epoch,
            serving,
            Reverse(claim.since),
            Reverse(lot(node, claim)),
        )
    };
    rank(a).cmp(&rank(b))
}

/// A random but agreed number of a node for a slot, with the node to break what cannot happen.
fn lot(node: &NodeId, claim: &Claim) -> ([u8; 32], NodeId) {
    let mut hasher = blake3::Hasher::new_derive_key("dunlin 2025 claim tie");
    hasher.update(node.as_bytes());
    hasher.update(claim.slot.service.to_string().as_bytes());
    match claim.slot.slot {
        Slot::Replica(index) => hasher.update(&[0]).update(&index.to_be_bytes()),
        Slot::Node(of) => hasher.update(&[1]).update(of.as_bytes()),
    };
    (*hasher.finalize().as_bytes(), *node)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    use super::*;
    use crate::model::{Resources, SlotId};

    /// Few values each, so that every tie is met.
    fn contender() -> impl Strategy<Value = (NodeId, Claim)> {
        let phase = prop_oneof![Just(Phase::Running), Just(Phase::Starting)];
        (0..4_u8, 0..3_u64, phase, any::<bool>(), 0..3_u64).prop_map(
            |(node, epoch, phase, ready, since)| {
                let claim = Claim {
                    slot: SlotId {
                        service: "web".parse().unwrap(),
                        slot: Slot::Replica(0),
                    },
                    epoch,
                    revision: String::new(),
                    phase,
                    ready,
                    leaving: false,
                    since,
                    resources: Resources::ZERO,
                    host_ports: Vec::new(),
                    endpoints: Vec::new(),
                    restarts: 0,
                    last_exit: None,
                    message: None,
                    workload: None,
                    started_at: None,
                    trial: crate::model::Trial::default(),
                    moved_from: None,
                    history: Vec::new(),
                    outputs: crate::model::Outputs::default(),
                };
                (NodeId::from_bytes([node; 32]), claim)
            },
        )
    }

    fn order(a: &(NodeId, Claim), b: &(NodeId, Claim)) -> Ordering {
        beats((&a.0, &a.1), (&b.0, &b.1))
    }

    proptest! {
        #[test]
        fn is_antisymmetric_and_total(a in contender(), b in contender()) {
            prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
            if order(&a, &b) == Ordering::Equal {
                prop_assert_eq!(a.0, b.0, "claims of two nodes never tie");
            }
        }

        #[test]
        fn is_transitive(a in contender(), b in contender(), c in contender()) {
            if order(&a, &b).is_ge() && order(&b, &c).is_ge() {
                prop_assert!(order(&a, &c).is_ge());
            }
        }

        #[test]
        fn ranks_epoch_then_serving_then_age(a in contender(), b in contender()) {
            let serving = |c: &Claim| c.ready && c.phase == Phase::Running;
            let (x, y) = (&a.1, &b.1);
            if x.epoch != y.epoch {
                prop_assert_eq!(order(&a, &b), x.epoch.cmp(&y.epoch));
            } else if serving(x) != serving(y) {
                prop_assert_eq!(order(&a, &b).is_gt(), serving(x));
            } else if x.since != y.since {
                prop_assert_eq!(order(&a, &b).is_gt(), x.since < y.since);
            }
        }
    }

    #[test]
    fn ties_fall_on_different_nodes_for_different_slots() {
        let mut winners = std::collections::BTreeSet::new();
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let (_, mut claim) = contender().new_tree(&mut runner).unwrap().current();
        let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        for index in 0..64 {
            claim.slot.slot = Slot::Replica(index);
            winners.insert(beats((&a, &claim), (&b, &claim)));
        }
        assert_eq!(winners.len(), 2, "both nodes win some slots");
    }
}
