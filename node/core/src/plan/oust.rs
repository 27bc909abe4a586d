//! Which replicas of lower priorities would give way to one that finds no room.

use std::collections::BTreeSet;

use dunlin_state::desired::Service;
use dunlin_state::model::{Claim, NodeId, ServiceKey, ServiceSpec, SlotId};

use super::room::Room;
use crate::placement::Domains;
use crate::preempt::{self, Eviction};

/// The node that would win an auction that is held by force, and who would have to go there.
pub(super) fn best(
    room: &Room<'_>,
    service: (&ServiceKey, &Service, &ServiceSpec),
    except: Option<NodeId>,
    domains: &Domains,
) -> Option<(NodeId, BTreeSet<SlotId>)> {
    let (key, known, spec) = service;
    let nodes = room
        .nodes()
        .into_iter()
        .filter(|node| Some(*node) != except);
    let even = nodes.filter(|node| domains.refusal(*node).is_none());
    let bids = even.filter_map(|node| {
        let (bare, claims) = room.parts(node)?;
        let claims: Vec<&Claim> = claims.iter().collect();
        let view = preempt::Room {
            desired: room.desired(),
            bare,
            claims: &claims,
            going: &BTreeSet::new(),
        };
        let found = preempt::evictions(key, spec, &known.spec.policy, view, 1).ok()?;
        let Eviction { victims, score } = found.into_iter().next()?;
        Some((score, node, victims))
    });
    let best = bids.reduce(|best, next| {
        // As an auction breaks ties.
        if next.0 > best.0 { next } else { best }
    });
    best.map(|(_, node, victims)| (node, victims))
}
