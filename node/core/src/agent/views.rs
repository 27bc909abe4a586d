//! What the agent shows of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_state::desired::Desired;
use dunlin_state::model::{NodeId, NodeRegister, Phase, ServiceKey};
use dunlin_state::route::{Backend, RouteTable, ServiceRoute};

use super::Agent;
use crate::explain::{Explanation, Sources, explain};
use crate::liveness::Standing;

impl Agent {
    /// Desired state as the agent acts on it.
    pub fn desired(&self) -> &Arc<Desired> {
        &self.desired
    }

    /// What this node acts on regarding another one.
    pub fn standing(&self, node: NodeId) -> Standing {
        self.cluster.standing(node)
    }

    /// The registers of all nodes, ordered; this node's is as fresh as its decisions.
    pub fn registers(&self) -> impl Iterator<Item = &Arc<NodeRegister>> {
        self.cluster
            .nodes()
            .filter_map(|(_, n)| n.register.as_ref())
    }

    /// Who answers for each service right now.
    pub fn route_table(&self) -> RouteTable {
        let routes = self.desired.services.iter().map(|(key, service)| {
            let route = ServiceRoute {
                ports: service.spec.ports.clone(),
                backends: Vec::new(),
            };
            (key.clone(), route)
        });
        let mut services: BTreeMap<ServiceKey, ServiceRoute> = routes.collect();
        for (node, known) in self.cluster.nodes() {
            if known.standing != Standing::Alive || !known.trusted {
                continue;
            }
            let claims = known.register.iter().flat_map(|r| &r.report.claims);
            for claim in claims.filter(|c| c.ready && c.phase == Phase::Running) {
                if let Some(route) = services.get_mut(&claim.slot.service) {
                    route.backends.push(Backend {
                        slot: claim.slot.slot,
                        node,
                        endpoints: claim.endpoints.clone(),
                    });
                }
            }
        }
        for route in services.values_mut() {
            route.backends.sort_by_key(|b| (b.slot, b.node));
        }
        RouteTable { services }
    }

    /// Why a service is as it is; `None` when there is no such service.
    pub fn explain(&self, service: &ServiceKey, now: u64) -> Option<Explanation> {
        let sources = Sources {
            cluster: &self.cluster,
            desired: &self.desired,
            last_round: self.auctioneer.last_round(service),
            pending: self.auctioneer.pending(service),
            own_refusal: &|revision| self.reconciler.refusal(service, revision, now),
        };
        explain(service, &sources)
    }
}
