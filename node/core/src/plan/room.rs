//! What nodes have free, as replicas are planned onto them and off them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use dunlin_state::desired::Desired;
use dunlin_state::model::{Claim, NodeId, ServiceKey, ServiceSpec, SlotId};

use crate::cluster::Cluster;
use crate::liveness::Standing;
use crate::placement::{Domains, NodeView, Reason, Verdict, judge, matches_constraints};

/// Nodes of which the refusals are told: more nobody reads.
const MAX_REFUSALS: usize = 64;

/// All nodes that have told what they hold.
pub(crate) struct Room<'d> {
    desired: &'d Desired,
    places: BTreeMap<NodeId, Place>,
}

/// A slot that looks for a node.
pub(crate) struct Seeker<'a> {
    pub(crate) service: &'a ServiceKey,
    pub(crate) spec: &'a ServiceSpec,
    /// Where it is now, and may not stay.
    pub(crate) except: Option<NodeId>,
    pub(crate) domains: &'a Domains,
    /// Data that it needs and a node does not have.
    pub(crate) lacks: &'a dyn Fn(NodeId) -> Vec<Reason>,
}

impl Seeker<'_> {
    /// Whether anything but the node itself keeps it from there.
    pub(crate) fn may_go(&self, node: NodeId) -> bool {
        Some(node) != self.except
            && self.domains.refusal(node).is_none()
            && (self.lacks)(node).is_empty()
    }
}

struct Place {
    /// The node without its claims.
    bare: NodeView,
    claims: Vec<Claim>,
    /// The node with its claims.
    view: NodeView,
}

impl<'d> Room<'d> {
    pub(crate) fn new(cluster: &Cluster, desired: &'d Desired) -> Self {
        let places = cluster.nodes().filter_map(|(node, known)| {
            let report = &known.register.as_ref()?.report;
            let bare = NodeView::conditions(node, report, known.standing, desired);
            let claims = report.claims.clone();
            let view = filled(&bare, &claims, desired);
            Some((node, Place { bare, claims, view }))
        });
        Self {
            desired,
            places: places.collect(),
        }
    }

    /// All nodes, ordered.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.places.keys().copied().collect()
    }

    /// How many nodes answer.
    pub(crate) fn alive(&self) -> usize {
        let places = self.places.values();
        places
            .filter(|p| p.view.standing == Standing::Alive)
            .count()
    }

    /// A node without one of its replicas.
    pub(crate) fn without(&self, node: NodeId, slot: &SlotId) -> Option<NodeView> {
        let place = self.places.get(&node)?;
        let others: Vec<Claim> = place
            .claims
            .iter()
            .filter(|c| c.slot != *slot)
            .cloned()
            .collect();
        Some(filled(&place.bare, &others, self.desired))
    }

    pub(crate) fn desired(&self) -> &'d Desired {
        self.desired
    }

    /// A node without its replicas, and these.
    pub(crate) fn parts(&self, node: NodeId) -> Option<(&NodeView, &[Claim])> {
        let place = self.places.get(&node)?;
        Some((&place.bare, &place.claims))
    }

    /// A node with its replicas.
    pub(crate) fn view(&self, node: NodeId) -> Option<&NodeView> {
        Some(&self.places.get(&node)?.view)
    }

    pub(crate) fn judge(
        &self,
        node: NodeId,
        spec: &ServiceSpec,
        service: &ServiceKey,
    ) -> Option<Verdict> {
        Some(judge(spec, service, &self.places.get(&node)?.view))
    }

    pub(crate) fn matches(&self, node: NodeId, spec: &ServiceSpec) -> bool {
        let place = self.places.get(&node);
        place.is_some_and(|place| matches_constraints(spec, &place.bare))
    }

    /// Where these replicas are by the values of labels.
    pub(crate) fn domains(
        &self,
        spec: &ServiceSpec,
        held: impl Iterator<Item = NodeId>,
    ) -> Domains {
        let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
        for node in held {
            *counts.entry(node).or_default() += 1;
        }
        let alive = self
            .places
            .values()
            .filter(|p| p.bare.standing == Standing::Alive);
        let nodes: Vec<(NodeView, u32)> = alive
            .map(|p| (p.bare.clone(), counts.get(&p.bare.id).copied().unwrap_or(0)))
            .collect();
        Domains::of(spec, &nodes)
    }

    /// The node that would win an auction.
    pub(crate) fn best(&self, seeker: &Seeker<'_>) -> Option<NodeId> {
        let bids = self.places.iter().filter_map(|(node, place)| {
            if !seeker.may_go(*node) {
                return None;
            }
            match judge(seeker.spec, seeker.service, &place.view) {
                Verdict::Fit { score } => Some((seeker.domains.cost(*node), Reverse(score), *node)),
                Verdict::Refused(_) => None,
            }
        });
        bids.min().map(|(_, _, node)| node)
    }

    /// What each node says against one more replica.
    pub(crate) fn refusals(&self, seeker: &Seeker<'_>) -> Vec<(NodeId, Vec<Reason>)> {
        let refusals = self.places.iter().filter_map(|(node, place)| {
            let mut reasons = match judge(seeker.spec, seeker.service, &place.view) {
                Verdict::Fit { .. } => Vec::new(),
                Verdict::Refused(reasons) => reasons,
            };
            reasons.extend(seeker.domains.refusal(*node));
            reasons.extend((seeker.lacks)(*node));
            (!reasons.is_empty()).then_some((*node, reasons))
        });
        refusals.take(MAX_REFUSALS).collect()
    }

    /// A replica ends there.
    pub(crate) fn release(&mut self, node: NodeId, slot: &SlotId) {
        if let Some(place) = self.places.get_mut(&node) {
            place.claims.retain(|claim| claim.slot != *slot);
            place.view = filled(&place.bare, &place.claims, self.desired);
        }
    }

    /// A replica of this specification comes.
    pub(crate) fn take(&mut self, node: NodeId, slot: SlotId, revision: &str, spec: &ServiceSpec) {
        if let Some(place) = self.places.get_mut(&node) {
            let claim = Claim::won(slot, 0, revision, spec, 0);
            place.view.add_claim(&claim, self.desired);
            place.claims.push(claim);
        }
    }
}

fn filled(bare: &NodeView, claims: &[Claim], desired: &Desired) -> NodeView {
    let mut view = bare.clone();
    for claim in claims {
        view.add_claim(claim, desired);
    }
    view
}
