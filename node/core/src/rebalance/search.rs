//! The best move of one service, if any is worth it.
//!
//! A move counts as worth it only if it strictly lowers a potential, of which the parts come in this
//! order:
//!
//! 1. *Evenness*: over the rules of `spread`, the weighted sum of the pairs of replicas that share a
//!    value. Moving one from a value with `a` replicas to one with `b` lowers it by `a - 1 - b`.
//! 2. *Company*: the pairs of replicas of the service that share a node, against preferences for
//!    what nodes are; a pair is worth 200 of their weight, as in auctions.
//! 3. *Fullness*: the nodes' fullness, sorted, the fullest first. Moving from a node to one that is
//!    less full even afterwards lowers it.
//!
//! The first two concern the replicas of one service only, and a move for the third may not raise
//! them, so that the sums over all services, followed by the third, fall with every move whichever
//! service it is of. Hence no sequence of moves comes back to where it was. Conditions of placement
//! and company that others seek only forbid moves, which cannot make a circle either.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{Claim, NodeId, ServiceKey, Slot, SlotId, Strategy};
use serde::{Deserialize, Serialize};

use crate::placement::{Domains, NodeView, Verdict, fullness, wishes};
use crate::plan::room::Room;

/// What sharing a node with a replica of the same service weighs against preferences.
const COMPANY_WEIGHT: i64 = 200;

/// The least gain in company and preferences: that of one preference of the weight that is worth a
/// full node. Smaller wishes decide where a replica starts, and are not worth ending one.
const LEAST_COMPANY: i64 = 100;

/// What the node that a replica leaves gains at least, in millionths: where it takes nothing of what
/// there is least of, moving it helps nobody.
const LEAST_RELIEF_PPM: u64 = 1_000;

/// Nodes that replicas may leave, of one service, in one look: the fullest.
const MAX_SOURCES: usize = 32;

/// Nodes that a replica may come to, in one look: those with the fewest replicas of the service, and
/// of these the emptiest.
const MAX_TARGETS: usize = 64;

/// Why a replica should be moved; of two, the greater goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gain {
    /// Its node is fuller than the other will be with it, by so many millionths.
    Room(i64),
    /// It shares its node with more replicas of its service, or the other is preferred: so much in
    /// the weights of preferences.
    Company(i64),
    /// Its service is spread less evenly over labels: so much in the weights of `spread`.
    Evenness(i64),
}

/// A replica that should be moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub slot: SlotId,
    /// Where it runs.
    pub from: NodeId,
    /// Where it would run.
    pub to: NodeId,
    /// Why.
    pub gain: Gain,
}

/// What is asked about one service.
pub(super) struct Search<'a, 'd> {
    pub(super) desired: &'a Desired,
    pub(super) key: &'a ServiceKey,
    pub(super) service: &'a Service,
    /// Who holds each of its slots.
    pub(super) holders: &'a BTreeMap<u32, NodeId>,
    /// Slots that may be moved now.
    pub(super) rested: &'a BTreeSet<u32>,
    pub(super) room: &'a Room<'d>,
    /// Nodes that nothing comes to now, or leaves now.
    pub(super) busy: &'a BTreeSet<NodeId>,
    /// Nodes that nothing is to be moved to.
    pub(super) closed: &'a dyn Fn(NodeId) -> bool,
    /// How many millionths emptier the other node has to be, with the replica.
    pub(super) least_ppm: u64,
}

/// A node that a replica could come to.
struct Target<'a> {
    node: NodeId,
    view: &'a NodeView,
    replicas: i64,
    /// With the replica.
    full: u64,
}

/// A replica that could go, and its node without it.
struct Source<'a> {
    slot: SlotId,
    node: NodeId,
    view: &'a NodeView,
    without: NodeView,
    domains: Domains,
}

impl Search<'_, '_> {
    /// The move with the greatest gain.
    pub(super) fn best(&self) -> Option<Move> {
        let targets = self.targets();
        let mut best: Option<Move> = None;
        for source in self.sources() {
            for target in targets.iter().filter(|t| t.node != source.node) {
                let Some(gain) = self.gain(&source, target) else {
                    continue;
                };
                if best.as_ref().is_none_or(|known| gain > known.gain) {
                    best = Some(Move {
                        slot: source.slot.clone(),
                        from: source.node,
                        to: target.node,
                        gain,
                    });
                }
            }
        }
        best
    }

    fn replicas(&self, node: &NodeView) -> i64 {
        node.services.get(self.key).copied().map_or(0, i64::from)
    }

    fn targets(&self) -> Vec<Target<'_>> {
        let spec = &self.service.spec;
        let nodes = self.room.nodes().into_iter();
        let open = nodes.filter(|node| !self.busy.contains(node) && !(self.closed)(*node));
        let fits = open.filter_map(|node| {
            let view = self.room.view(node)?;
            match self.room.judge(node, spec, self.key)? {
                Verdict::Fit { .. } => Some(Target {
                    node,
                    view,
                    replicas: self.replicas(view),
                    full: fullness(&self.with_one_more(view)),
                }),
                Verdict::Refused(_) => None,
            }
        });
        let mut targets: Vec<Target<'_>> = fits.collect();
        targets.sort_by_key(|t| (t.replicas, t.full, t.node));
        targets.truncate(MAX_TARGETS);
        targets
    }

    fn with_one_more(&self, view: &NodeView) -> NodeView {
        let mut view = view.clone();
        let spec = &self.service.spec;
        let slot = self.slot(0);
        let claim = Claim::won(slot, 0, &self.service.revision, spec, 0);
        view.add_claim(&claim, self.desired);
        view
    }

    fn slot(&self, index: u32) -> SlotId {
        SlotId {
            service: self.key.clone(),
            slot: Slot::Replica(index),
        }
    }

    /// Of each node the highest slot that may be moved: the lowest ones are those that people look
    /// at, and that canaries run in.
    fn sources(&self) -> Vec<Source<'_>> {
        let mut highest: BTreeMap<NodeId, u32> = BTreeMap::new();
        for (index, node) in self.holders {
            if self.rested.contains(index) && !self.busy.contains(node) {
                highest.insert(*node, *index);
            }
        }
        let seen = highest.into_iter().filter_map(|(node, index)| {
            let view = self.room.view(node)?;
            Some((node, index, view))
        });
        let mut seen: Vec<(NodeId, u32, &NodeView)> = seen.collect();
        seen.sort_by_key(|(node, _, view)| (Reverse((self.replicas(view), fullness(view))), *node));
        seen.truncate(MAX_SOURCES);
        let sources = seen.into_iter().filter_map(|(node, index, view)| {
            let slot = self.slot(index);
            let without = self.room.without(node, &slot)?;
            let others = self.holders.iter().filter(|(other, _)| **other != index);
            let others = others.map(|(_, node)| *node);
            let domains = match self.service.spec.placement.spread.is_empty() {
                true => Domains::default(),
                false => self.room.domains(&self.service.spec, others),
            };
            Some(Source {
                slot,
                node,
                view,
                without,
                domains,
            })
        });
        sources.filter(|source| !self.is_followed(source)).collect()
    }

    /// Whether another service seeks the company of this replica, which nobody else there would give.
    fn is_followed(&self, source: &Source<'_>) -> bool {
        let alone = !source.without.services.contains_key(self.key);
        let mut others = source.without.services.keys();
        alone
            && others.any(|other| {
                let other = self.desired.services.get(other);
                other.is_some_and(|s| s.spec.placement.affinity.contains(self.key))
            })
    }

    /// What is gained if it is worth it.
    fn gain(&self, source: &Source<'_>, target: &Target<'_>) -> Option<Gain> {
        let spec = &self.service.spec;
        if source.domains.refusal(target.node).is_some() {
            return None;
        }
        let (here, there) = (wishes(spec, &source.without), wishes(spec, target.view));
        if there.company < here.company {
            return None;
        }
        let even = source.domains.cost(source.node) - source.domains.cost(target.node);
        let spreads = spec.placement.strategy == Strategy::Spread;
        let crowd = self.replicas(&source.without) - target.replicas;
        let crowd = if spreads { crowd * COMPANY_WEIGHT } else { 0 };
        let company = crowd + there.node - here.node;
        let (full, left) = (fullness(source.view), fullness(&source.without));
        let relieved = full.saturating_sub(left) >= LEAST_RELIEF_PPM;
        let room = full.saturating_sub(target.full);
        match () {
            () if even > 0 => Some(Gain::Evenness(even)),
            () if even < 0 => None,
            () if company >= LEAST_COMPANY => Some(Gain::Company(company)),
            () if spreads && company >= 0 && relieved && room >= self.least_ppm => {
                Some(Gain::Room(i64::try_from(room).unwrap_or(i64::MAX)))
            }
            () => None,
        }
    }
}
