//! What placement needs to know of a node.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::{Desired, NodeIntent};
use dunlin_state::model::{
    Availability, Claim, Facts, HostPort, NodeId, NodeReport, Resources, ServiceKey,
};

use crate::liveness::Standing;

/// A node as placement sees it, either this one (exactly) or another one (as it last reported).
#[derive(Debug, Clone)]
pub struct NodeView {
    /// Who it is.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// What it is.
    pub facts: Facts,
    /// Labels of its command line, overridden by those of the cluster.
    pub labels: BTreeMap<String, String>,
    /// What its replicas may use in total.
    pub capacity: Resources,
    /// What they have reserved, including stopping ones.
    pub committed: Resources,
    /// What it has offered in auctions that are not over; counts as taken.
    pub offered: Resources,
    /// Host ports taken, including offered ones.
    pub host_ports: BTreeSet<HostPort>,
    /// Replicas per service.
    pub services: BTreeMap<ServiceKey, u32>,
    /// Services that some service here refuses to share a node with, and which one does.
    pub repelled: BTreeMap<ServiceKey, ServiceKey>,
    /// Whether it takes new replicas.
    pub availability: Availability,
    /// Until when it is worked on, if it is.
    pub maintenance: Option<u64>,
    /// Runtimes it offers.
    pub runtimes: Vec<String>,
    /// Whether its disk accepts writes.
    pub disk_ok: bool,
    /// What is believed of its life.
    pub standing: Standing,
}

impl NodeView {
    /// The node as it reports itself, with what people said about it.
    pub fn of_report(
        id: NodeId,
        report: &NodeReport,
        standing: Standing,
        desired: &Desired,
    ) -> Self {
        let mut view = Self::conditions(id, report, standing, desired);
        for claim in &report.claims {
            view.add_claim(claim, desired);
        }
        view
    }

    /// The same without its claims: what it is, and nothing of what it has taken.
    pub fn conditions(
        id: NodeId,
        report: &NodeReport,
        standing: Standing,
        desired: &Desired,
    ) -> Self {
        let intent = desired.nodes.get(&id);
        Self {
            id,
            name: report.name.clone(),
            facts: report.facts.clone(),
            labels: merged_labels(&report.labels, intent),
            capacity: report.capacity,
            committed: Resources::ZERO,
            offered: Resources::ZERO,
            host_ports: BTreeSet::new(),
            services: BTreeMap::new(),
            repelled: BTreeMap::new(),
            availability: intent.map(|i| i.availability).unwrap_or_default(),
            maintenance: intent.and_then(|i| i.maintenance),
            runtimes: report.runtimes.clone(),
            disk_ok: report.disk_ok,
            standing,
        }
    }

    /// Counts a claim among what the node has taken.
    pub fn add_claim(&mut self, claim: &Claim, desired: &Desired) {
        self.committed = self.committed.plus(claim.resources);
        self.host_ports.extend(claim.host_ports.iter().copied());
        // A leaving replica still takes its resources, but will not be company. One that stops and
        // does not leave is started again in its place.
        if claim.leaving {
            return;
        }
        let service = &claim.slot.service;
        *self.services.entry(service.clone()).or_default() += 1;
        if let Some(known) = desired.services.get(service) {
            for other in &known.spec.placement.anti_affinity {
                self.repelled
                    .entry(other.clone())
                    .or_insert_with(|| service.clone());
            }
        }
    }

    /// Replicas on the node, of all services.
    pub fn replicas(&self) -> u32 {
        self.services
            .values()
            .fold(0u32, |sum, count| sum.saturating_add(*count))
    }

    /// What is neither reserved nor offered.
    pub fn free(&self) -> Resources {
        self.capacity.minus(self.committed).minus(self.offered)
    }
}

/// Labels of the command line, overridden by those that the cluster gives the node.
fn merged_labels(
    own: &BTreeMap<String, String>,
    intent: Option<&NodeIntent>,
) -> BTreeMap<String, String> {
    let mut labels = own.clone();
    if let Some(intent) = intent {
        labels.extend(intent.labels.clone());
    }
    labels
}
