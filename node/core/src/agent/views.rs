//! What the agent shows of itself.

use std::sync::Arc;

use dunlin_state::desired::{Command, Desired, Rejection};
use dunlin_state::model::{NodeId, NodeRegister, ServiceKey, SlotId, VipRange};
use dunlin_state::route::RouteTable;

use super::Agent;
use crate::explain::{Explanation, Sources, explain};
use crate::io::WorkloadId;
use crate::liveness::Standing;
use crate::plan::{Plan, plan};

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

    /// Who answers for each service right now; this node takes virtual addresses from `range`.
    pub fn route_table(&self, range: VipRange) -> RouteTable {
        let mut table = RouteTable::new(&self.desired, range);
        for (_node, known) in self.cluster.nodes() {
            let Some(register) = known.register.as_ref() else {
                continue;
            };
            if !known.standing.holds_claims() {
                continue;
            }
            let serving = known.standing == Standing::Alive && known.trusted;
            table.add_node(register, &self.desired, serving);
        }
        table
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

    /// The attempt of this slot that runs on this node.
    pub fn running(&self, slot: &SlotId) -> Option<WorkloadId> {
        self.reconciler.running(slot)
    }

    /// What commands would do; an error is what they would be refused with.
    pub fn plan(&self, commands: &[Command]) -> Result<Plan, Rejection> {
        plan(&self.cluster, &self.desired, commands)
    }
}
