//! What rebalancing would do, all at once: `dunlin rebalance --plan`.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::Desired;
use dunlin_state::model::{NodeId, ServiceKey, Slot};

use super::ledger::{Ledger, Stays, placed};
use super::search::{Move, Search};
use super::{ASKED_LEAST_PPM, may_receive};
use crate::cluster::Cluster;
use crate::placement::fullness;
use crate::plan::room::Room;

/// Moves that are foretold: more are made, and nobody reads more.
const MAX_MOVES: usize = 256;

/// What would move, and how full nodes are before and after.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forecast {
    /// In the order in which they would be made.
    pub moves: Vec<Move>,
    /// Whether there would be more.
    pub more: bool,
    /// How nodes are used.
    pub nodes: Vec<NodeUse>,
    /// Services of which nothing moves.
    pub stays: Vec<(ServiceKey, Stays)>,
    /// Replicas that are on their way already.
    pub moving: usize,
}

/// How a node is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeUse {
    /// Which node.
    pub node: NodeId,
    /// Its replicas now and afterwards.
    pub replicas: (u32, u32),
    /// How full it is now and afterwards, in millionths of what it has least left of.
    pub full_ppm: (u64, u64),
}

/// Goes through all services again and again, and carries out the best move on paper. Each replica
/// moves at most once.
pub(crate) fn forecast(cluster: &Cluster, desired: &Desired) -> Forecast {
    let ledger = Ledger::read(cluster);
    let mut room = Room::new(cluster, desired);
    let before = uses(&room);
    let mut forecast = Forecast {
        moving: ledger.moving,
        ..Forecast::default()
    };
    let mut holders: BTreeMap<&ServiceKey, BTreeMap<u32, NodeId>> = BTreeMap::new();
    for (key, service) in placed(desired) {
        match ledger.holders(key, service, cluster) {
            Ok(held) => {
                let held = held.into_iter().map(|(slot, (node, _))| (slot, node));
                holders.insert(key, held.collect());
            }
            Err(stays) => forecast.stays.push((key.clone(), stays)),
        }
    }
    let mut rested: BTreeMap<&ServiceKey, BTreeSet<u32>> = BTreeMap::new();
    for (key, held) in &holders {
        rested.insert(key, held.keys().copied().collect());
    }
    let closed = |node| !may_receive(cluster, node);
    while let Some(next) = best(desired, &holders, &rested, &room, &closed) {
        if forecast.moves.len() >= MAX_MOVES {
            forecast.more = true;
            break;
        }
        let key = &next.slot.service;
        let Some(service) = desired.services.get(key) else {
            break;
        };
        room.release(next.from, &next.slot);
        room.take(next.to, next.slot.clone(), &service.revision, &service.spec);
        if let (Slot::Replica(index), Some(held), Some(rested)) =
            (next.slot.slot, holders.get_mut(key), rested.get_mut(key))
        {
            held.insert(index, next.to);
            rested.remove(&index);
        }
        forecast.moves.push(next);
    }
    let after = uses(&room);
    let nodes = before.into_iter().filter_map(|(node, (count, full))| {
        let (count_after, full_after) = after.get(&node)?;
        Some(NodeUse {
            node,
            replicas: (count, *count_after),
            full_ppm: (full, *full_after),
        })
    });
    forecast.nodes = nodes.collect();
    forecast
}

fn best(
    desired: &Desired,
    holders: &BTreeMap<&ServiceKey, BTreeMap<u32, NodeId>>,
    rested: &BTreeMap<&ServiceKey, BTreeSet<u32>>,
    room: &Room<'_>,
    closed: &dyn Fn(NodeId) -> bool,
) -> Option<Move> {
    let busy = BTreeSet::new();
    let moves = holders.iter().filter_map(|(key, held)| {
        let search = Search {
            desired,
            key,
            service: desired.services.get(*key)?,
            holders: held,
            rested: rested.get(*key)?,
            room,
            busy: &busy,
            closed,
            least_ppm: ASKED_LEAST_PPM,
        };
        search.best()
    });
    moves.reduce(|best, next| if next.gain > best.gain { next } else { best })
}

fn uses(room: &Room<'_>) -> BTreeMap<NodeId, (u32, u64)> {
    let nodes = room.nodes().into_iter();
    let uses = nodes.filter_map(|node| {
        let view = room.view(node)?;
        Some((node, (view.replicas(), fullness(view))))
    });
    uses.collect()
}
