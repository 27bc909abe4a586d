//! Which replicas of lower priorities would give way to one that finds no room.

use std::collections::BTreeSet;

use dunlin_state::desired::Service;
use dunlin_state::model::{Claim, NodeId, SlotId};

use super::room::{Room, Seeker};
use crate::preempt::{self, Eviction};

/// The node that would win an auction that is held by force, and who would have to go there.
pub(super) fn best(
    room: &Room<'_>,
    service: &Service,
    seeker: &Seeker<'_>,
) -> Option<(NodeId, BTreeSet<SlotId>)> {
    let nodes = room.nodes().into_iter();
    let bids = nodes
        .filter(|node| seeker.may_go(*node))
        .filter_map(|node| {
            let (bare, claims) = room.parts(node)?;
            let claims: Vec<&Claim> = claims.iter().collect();
            let view = preempt::Room {
                desired: room.desired(),
                bare,
                claims: &claims,
                going: &BTreeSet::new(),
            };
            let Seeker {
                service: key, spec, ..
            } = seeker;
            let found = preempt::evictions(key, spec, &service.spec.policy, view, 1).ok()?;
            let Eviction { victims, score } = found.into_iter().next()?;
            Some((score, node, victims))
        });
    let best = bids.reduce(|best, next| {
        // As an auction breaks ties.
        if next.0 > best.0 { next } else { best }
    });
    best.map(|(_, node, victims)| (node, victims))
}
