//! The route table: the only thing DNS and the proxies read.

mod numbers;

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub use self::numbers::ReplicaNumbers;
use crate::desired::Desired;
use crate::model::{
    Endpoint, Mode, Networks, NodeId, NodeRegister, Phase, PortSpec, ServiceKey, Slot,
    TrafficPolicy, Vip, VipRange, networks_of, share_network,
};
use crate::observed::ObservedTable;

/// Who answers for each service right now. A pure projection of desired state, observed state and
/// membership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// Every service that is wanted, also those with no ready replica: their names exist.
    pub services: BTreeMap<ServiceKey, ServiceRoute>,
    /// The members of the cluster, this node among them; also those that are suspected, but not
    /// those that are gone.
    pub nodes: BTreeMap<NodeId, NodeRoute>,
    /// The ranges of virtual addresses on this node.
    pub range: VipRange,
}

/// The routes of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRoute {
    /// The ports of its specification.
    pub ports: Vec<PortSpec>,
    /// Its virtual addresses on this node. Empty when the node has no range for them; then only
    /// the replicas' own addresses lead to it.
    pub vip: Vip,
    /// The networks it is in, by their full names.
    pub networks: Networks,
    /// How its connections are treated.
    pub traffic: TrafficPolicy,
    /// Whether it may have no replica until somebody connects, who then waits for one.
    pub wakes: bool,
    /// The virtual addresses of its replicas on this node, by slot; not of all where there are too
    /// many ([`ReplicaNumbers`]).
    pub replicas: BTreeMap<Slot, Vip>,
    /// Its ready replicas on nodes that are not suspected, ordered by slot, then by node.
    pub backends: Vec<Backend>,
}

/// A ready replica.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Its slot.
    pub slot: Slot,
    /// The node that runs it.
    pub node: NodeId,
    /// The epoch of its claim: tells it from another holder of the slot, before or after it.
    pub epoch: u64,
    /// Where its ports answer, as its node sees it. Others may not reach it there.
    pub endpoints: Vec<Endpoint>,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRoute {
    /// Its name.
    pub name: String,
    /// Its membership address, by its own report.
    pub address: Option<SocketAddr>,
    /// Its label `zone`.
    pub zone: Option<String>,
    /// Its label `weight`: its replicas' share of connections where they are weighted, 0 to 1000.
    pub weight: u16,
    /// Whether its replicas get traffic: it answers, and its report tells how things are now.
    pub serving: bool,
}

impl Default for NodeRoute {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: None,
            zone: None,
            weight: 1,
            serving: true,
        }
    }
}

/// The label of a node that says how much its replicas take where they are weighted.
pub const WEIGHT_LABEL: &str = "weight";

/// The greatest weight: more would only make the lists of others coarse.
pub const MAX_WEIGHT: u16 = 1_000;

/// The label of a node that says which zone it is in.
pub const ZONE_LABEL: &str = "zone";

impl RouteTable {
    /// A table of all services and of no replica.
    pub fn new(desired: &Desired, range: VipRange) -> Self {
        let lasting = desired
            .services
            .iter()
            .filter(|(_, s)| s.spec.job.is_none());
        let services = lasting.map(|(key, service)| {
            let vip = desired.vips.get(key).map(|assigned| assigned.index);
            let route = ServiceRoute {
                ports: service.spec.ports.clone(),
                vip: vip.map(|index| range.of(index)).unwrap_or_default(),
                networks: networks_of(key, &service.spec.networks),
                traffic: service.spec.traffic.clone(),
                wakes: service.wakes(),
                replicas: BTreeMap::new(),
                backends: Vec::new(),
            };
            (key.clone(), route)
        });
        Self {
            services: services.collect(),
            nodes: BTreeMap::new(),
            range,
        }
    }

    /// Whether two services share a network.
    pub fn share_network(&self, one: &ServiceKey, other: &ServiceKey) -> bool {
        let of = |key| self.services.get(key).map(|route| &route.networks);
        of(one)
            .zip(of(other))
            .is_some_and(|(a, b)| share_network(a, b))
    }

    /// Adds a member and, when it may get traffic, its ready replicas.
    ///
    /// A replica is offered when it runs, is ready, and belongs to a service that exists and is not
    /// stopped. Its revision does not matter: during an update the replicas of the old
    /// specification answer until each has been replaced. Nor does it matter that a slot is above
    /// the scale, or held twice after a partition: its holder stops it, and until then it answers
    /// as well as any other.
    pub fn add_node(&mut self, register: &NodeRegister, desired: &Desired, serving: bool) {
        let report = &register.report;
        // Labels in desired state win over those of the command line.
        let intent = desired.nodes.get(&register.node);
        let label = |name| {
            let of_cluster = intent.and_then(|i| i.labels.get(name));
            of_cluster.or_else(|| report.labels.get(name))
        };
        let weight = label(WEIGHT_LABEL).and_then(|w| w.parse::<u16>().ok());
        let route = NodeRoute {
            name: report.name.clone(),
            address: report.address,
            zone: label(ZONE_LABEL).cloned(),
            weight: weight.map_or(1, |w| w.min(MAX_WEIGHT)),
            serving,
        };
        self.nodes.insert(register.node, route);
        let claims = report.claims.iter().filter(|_| serving);
        for claim in claims.filter(|c| c.ready && c.phase == Phase::Running) {
            let service = desired.services.get(&claim.slot.service);
            if !service.is_some_and(|s| s.running && fits(s.spec.mode, claim.slot.slot)) {
                continue;
            }
            if let Some(route) = self.services.get_mut(&claim.slot.service) {
                let backend = Backend {
                    slot: claim.slot.slot,
                    node: register.node,
                    epoch: claim.epoch,
                    endpoints: claim.endpoints.clone(),
                };
                let place = route.backends.partition_point(|b| *b < backend);
                route.backends.insert(place, backend);
            }
        }
    }
}

/// Computes a whole table. `serving` says whether a node may get traffic: it is a member and not
/// suspected.
pub fn project(
    desired: &Desired,
    observed: &ObservedTable,
    range: VipRange,
    serving: impl Fn(NodeId) -> bool,
) -> RouteTable {
    let mut table = RouteTable::new(desired, range);
    for register in observed.iter() {
        table.add_node(register, desired, serving(register.node));
    }
    table
}

/// Whether slots of this kind belong to a service of this mode at all.
fn fits(mode: Mode, slot: Slot) -> bool {
    match (mode, slot) {
        (Mode::Replicated, Slot::Replica(_)) | (Mode::Global, Slot::Node(_)) => true,
        (Mode::Replicated, Slot::Node(_)) | (Mode::Global, Slot::Replica(_)) => false,
    }
}

#[cfg(test)]
mod tests;
