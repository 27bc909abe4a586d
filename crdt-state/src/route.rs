//! The route table: the only thing DNS and the proxies read.

use std::collections::BTreeMap;

use crate::desired::Desired;
use crate::model::{Endpoint, Mode, NodeId, Phase, PortSpec, ServiceKey, Slot};
use crate::observed::ObservedTable;

/// Who answers for each service right now. A pure projection of desired state, observed state and
/// membership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// Every service that is wanted, also those with no ready replica: their names exist.
    pub services: BTreeMap<ServiceKey, ServiceRoute>,
}

/// The routes of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRoute {
    /// The ports of its specification.
    pub ports: Vec<PortSpec>,
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
    /// Where its ports answer.
    pub endpoints: Vec<Endpoint>,
}

/// Computes the route table. `serving` says whether a node may get traffic: it is a member and
/// not suspected.
///
/// A replica is offered when it runs, is ready, and belongs to a service that exists and is not
/// stopped. Its revision does not matter: during an update the replicas of the old specification
/// answer until each has been replaced. Nor does it matter that a slot is above the scale, or held
/// twice after a partition: its holder stops it, and until then it answers as well as any other.
pub fn project(
    desired: &Desired,
    observed: &ObservedTable,
    serving: impl Fn(NodeId) -> bool,
) -> RouteTable {
    let mut services: BTreeMap<ServiceKey, ServiceRoute> = desired
        .services
        .iter()
        .map(|(key, service)| {
            let route = ServiceRoute {
                ports: service.spec.ports.clone(),
                backends: Vec::new(),
            };
            (key.clone(), route)
        })
        .collect();
    for register in observed.iter().filter(|register| serving(register.node)) {
        for claim in &register.report.claims {
            let service = desired.services.get(&claim.slot.service);
            let wanted = service.is_some_and(|s| s.running && fits(s.spec.mode, claim.slot.slot));
            if !wanted || !claim.ready || claim.phase != Phase::Running {
                continue;
            }
            if let Some(route) = services.get_mut(&claim.slot.service) {
                route.backends.push(Backend {
                    slot: claim.slot.slot,
                    node: register.node,
                    endpoints: claim.endpoints.clone(),
                });
            }
        }
    }
    for route in services.values_mut() {
        route.backends.sort_unstable();
    }
    RouteTable { services }
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
