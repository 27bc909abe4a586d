//! The one order over claims of a slot.

use std::cmp::{Ordering, Reverse};

use dunlin_state::model::{Claim, NodeId, Phase, Slot};

use crate::hashing::{mix, node_hash};

/// Greater when claim `a` has the slot rather than claim `b`: the higher epoch, then running and ready,
/// then the older, then the smaller hash of node and slot. A pure function of the two, so that
/// every node comes to the same winner.
pub(crate) fn beats(a: (&NodeId, &Claim), b: (&NodeId, &Claim)) -> Ordering {
    let rank = |(&node, claim): (&NodeId, &Claim)| {
        let serves = claim.phase == Phase::Running && claim.ready;
        let slot = match claim.slot.slot {
            Slot::Replica(index) => u64::from(index),
            Slot::Node(node) => node_hash(node),
        };
        let tie = mix(node_hash(node), slot);
        (
            claim.epoch,
            serves,
            Reverse(claim.since),
            Reverse(tie),
            Reverse(node),
        )
    };
    rank(a).cmp(&rank(b))
}
