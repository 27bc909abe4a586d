//! Slots dealt out over the values of labels, when a service asks for that.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::Desired;
use dunlin_state::model::{NodeId, ServiceSpec, Slot};

use crate::cluster::{Cluster, Watch};
use crate::placement::{Domains, NodeView};

/// Where the replicas of a service are, by the values of the labels that it is spread over: claims
/// that count, and slots that were given away and are not claimed yet.
pub(super) fn domains(
    cluster: &Cluster,
    desired: &Desired,
    spec: &ServiceSpec,
    watch: &Watch,
    pending: impl Iterator<Item = (u32, NodeId)>,
) -> Domains {
    if spec.placement.spread.is_empty() {
        return Domains::default();
    }
    let mut held: BTreeSet<(Slot, NodeId)> = watch.settled().collect();
    held.extend(pending.map(|(slot, node)| (Slot::Replica(slot), node)));
    let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
    for (_, node) in held {
        *counts.entry(node).or_default() += 1;
    }
    let nodes = cluster.alive().filter_map(|node| {
        let report = &cluster.register(node)?.report;
        let view = NodeView::conditions(node, report, cluster.standing(node), desired);
        Some((view, counts.get(&node).copied().unwrap_or(0)))
    });
    let nodes: Vec<(NodeView, u32)> = nodes.collect();
    Domains::of(spec, &nodes)
}

/// Gives each slot to the least crowded value, and there to the best score that is left.
/// `forbidden` pairs are skipped.
pub(super) fn deal(
    bids: &BTreeMap<NodeId, Vec<i64>>,
    slots: &[u32],
    mut domains: Domains,
    forbidden: impl Fn(u32, NodeId) -> bool,
) -> BTreeMap<NodeId, Vec<u32>> {
    let mut awards: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
    for slot in slots {
        let taken = |node: &NodeId| awards.get(node).map_or(0, Vec::len);
        let able = bids.iter().filter(|(node, _)| !forbidden(*slot, **node));
        let able = able.filter(|(node, _)| domains.refusal(**node).is_none());
        let offers = able.filter_map(|(node, scores)| Some((node, scores.get(taken(node))?)));
        let best = offers
            .min_by_key(|(node, score)| (domains.cost(**node), std::cmp::Reverse(**score), **node));
        if let Some((node, _)) = best {
            let node = *node;
            domains.place(node);
            awards.entry(node).or_default().push(*slot);
        }
    }
    awards
}
