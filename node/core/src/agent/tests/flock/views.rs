//! What is true of all agents together.

use std::collections::BTreeSet;

use dunlin_state::model::{Claim, NodeId, Phase, ServiceKey, Slot};

use super::{Flock, key};
use crate::io::WorkloadId;

impl Flock {
    /// Slots that some living node serves.
    pub(crate) fn served(&self) -> BTreeSet<(ServiceKey, Slot)> {
        self.claims()
            .filter(|(_, c)| c.ready && c.phase == Phase::Running)
            .map(|(_, c)| (c.slot.service.clone(), c.slot.slot))
            .collect()
    }

    /// All claims of living nodes, as they hold them.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (NodeId, Claim)> + '_ {
        self.nodes.iter().flat_map(|(id, node)| {
            let claims = node.agent.iter().flat_map(|a| a.report().claims);
            claims.map(|claim| (*id, claim))
        })
    }

    /// Replicas that really run, on all living nodes.
    pub(crate) fn running(&self) -> Vec<(NodeId, WorkloadId)> {
        self.nodes
            .iter()
            .flat_map(|(id, n)| n.running.iter().map(|w| (*id, w.clone())))
            .collect()
    }

    /// Whether each wanted slot of the service runs once, is ready, and nothing else does.
    pub(crate) fn is_exact(&self, name: &str) -> bool {
        let service = key(name);
        let wanted = self.desired.services[&service].wanted_replicas();
        let revision = &self.desired.services[&service].revision;
        let claims: Vec<Claim> = self
            .claims()
            .map(|(_, c)| c)
            .filter(|c| c.slot.service == service)
            .collect();
        let slots: BTreeSet<Slot> = claims
            .iter()
            .filter(|c| c.ready && !c.leaving && c.revision == *revision)
            .map(|c| c.slot.slot)
            .collect();
        claims.len() == wanted as usize && slots == (0..wanted).map(Slot::Replica).collect()
    }
}
