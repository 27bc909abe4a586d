//! Even numbers of replicas over the values of a label: zones, racks, kinds of disks.
//!
//! No node can judge that by itself: it depends on what the others hold. Who auctions the service
//! knows all its claims, so it counts them here, and deals slots out one by one.

use std::collections::BTreeMap;

use dunlin_state::model::{Availability, NodeId, ServiceSpec};

use super::{NodeView, Reason, facts, matches_constraints};

/// For each rule of a service, which value each node has and how many replicas each value has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Domains {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    key: String,
    weight: i64,
    max_skew: Option<u32>,
    /// The value of each node; an absent one is a value as well.
    of: BTreeMap<NodeId, Option<String>>,
    counts: BTreeMap<Option<String>, Domain>,
}

#[derive(Debug, Clone, Default)]
struct Domain {
    replicas: u32,
    /// Whether some node of it takes replicas at all: one that takes none holds nobody up.
    open: bool,
}

impl Domains {
    /// Counts replicas by the values of all nodes that are there.
    pub(crate) fn of(spec: &ServiceSpec, nodes: &[(NodeView, u32)]) -> Self {
        let rules = spec.placement.spread.iter().map(|rule| {
            let mut of = BTreeMap::new();
            let mut counts: BTreeMap<Option<String>, Domain> = BTreeMap::new();
            for (node, replicas) in nodes {
                let value = facts::value(&rule.key, node);
                let domain = counts.entry(value.clone()).or_default();
                domain.replicas = domain.replicas.saturating_add(*replicas);
                domain.open |=
                    node.availability == Availability::Active && matches_constraints(spec, node);
                of.insert(node.id, value);
            }
            Rule {
                key: rule.key.clone(),
                weight: i64::from(rule.weight),
                max_skew: rule.max_skew,
                of,
                counts,
            }
        });
        Self {
            rules: rules.collect(),
        }
    }

    /// Whether the service is not spread over anything.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How crowded a node's values are; a lower number goes first.
    pub(crate) fn cost(&self, node: NodeId) -> i64 {
        let costs = self.rules.iter().map(|rule| {
            let replicas = rule.domain(node).map_or(0, |domain| domain.replicas);
            rule.weight.saturating_mul(i64::from(replicas))
        });
        costs.fold(0, i64::saturating_add)
    }

    /// Why one more replica on a node would be too uneven.
    pub(crate) fn refusal(&self, node: NodeId) -> Option<Reason> {
        self.rules.iter().find_map(|rule| {
            let max = rule.max_skew?;
            let open = rule.counts.values().filter(|domain| domain.open);
            let fewest = open.map(|domain| domain.replicas).min()?;
            let here = rule.domain(node).map_or(0, |domain| domain.replicas);
            (here.saturating_add(1) > fewest.saturating_add(max)).then(|| Reason::Skew {
                key: rule.key.clone(),
                value: rule.of.get(&node).cloned().flatten(),
                here,
                fewest,
                max,
            })
        })
    }

    /// One more replica has been given to the node.
    pub(crate) fn place(&mut self, node: NodeId) {
        for rule in &mut self.rules {
            let value = rule.of.get(&node).cloned().flatten();
            let domain = rule.counts.entry(value).or_default();
            domain.replicas = domain.replicas.saturating_add(1);
        }
    }
}

impl Rule {
    fn domain(&self, node: NodeId) -> Option<&Domain> {
        self.counts.get(&self.of.get(&node).cloned().flatten())
    }
}
