//! What readers see.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_gossip::membership::{MemberId, MemberState};
use dunlin_gossip::replication::Metrics;
use dunlin_state::desired::{
    AuditRecord, Command, Conflict, Desired, DocumentId, HistoryEntry, InvalidRegister, Rejection,
};
use dunlin_state::model::{
    ItemKey, NodeId, NodeRegister, NodeReport, ScaleDecision, ServiceKey, SlotId, VolumeId,
};
use dunlin_state::route::RouteTable;
use dunlin_trust::Credential;

use super::Engine;
use crate::agent::VolumeCopy;
use crate::depend::Wait;
use crate::explain::Explanation;
use crate::io::{NodeConfig, WorkloadId};
use crate::liveness::Standing;
use crate::plan::Plan;
use crate::rebalance::Forecast;

/// A member of the cluster as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: MemberId,
    /// What membership says.
    pub state: MemberState,
    /// What this node acts on.
    pub standing: Standing,
    /// When it was last heard, in milliseconds of the monotonic clock.
    pub last_heard: u64,
}

impl Engine {
    /// What this node was started with.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Desired state.
    pub fn desired(&self) -> &Arc<Desired> {
        self.agent.desired()
    }

    /// The newest register of every node as replicated, ordered by node; this node's among them.
    pub fn observed(&self) -> impl Iterator<Item = &Arc<NodeRegister>> {
        self.replication.observed().iter()
    }

    /// This node's report at this moment; the replicated one may be some milliseconds older.
    pub fn report(&self) -> NodeReport {
        self.agent.report()
    }

    /// All members but this node, ordered.
    pub fn members(&self) -> Vec<Member> {
        let views = self.membership.members();
        views
            .map(|view| Member {
                id: view.id,
                state: view.state,
                standing: self.agent.standing(view.id.node),
                last_heard: view.last_heard,
            })
            .collect()
    }

    /// What this node acts on regarding another one.
    pub fn standing(&self, node: NodeId) -> Standing {
        self.agent.standing(node)
    }

    /// Who answers for each service right now.
    pub fn route_table(&self) -> RouteTable {
        self.agent.route_table(self.config.vips)
    }

    /// Why a service is as it is; `None` when there is no such service.
    pub fn explain(&self, service: &ServiceKey) -> Option<Explanation> {
        self.agent.explain(service, self.now.mono)
    }

    /// Services that follow their load, which has to be measured: [`crate::io::Input::Measured`].
    pub fn followed(&self) -> &BTreeSet<ServiceKey> {
        self.agent.followed()
    }

    /// How many replicas a service that follows its load shall have, and why, once somebody has
    /// decided.
    pub fn scale_decision(&self, service: &ServiceKey) -> Option<&ScaleDecision> {
        self.agent.scale_decision(service)
    }

    /// The attempt of this slot that runs on this node.
    pub fn running(&self, slot: &SlotId) -> Option<WorkloadId> {
        self.agent.running(slot)
    }

    /// What commands would do, without doing it.
    ///
    /// # Errors
    /// What they would be refused with.
    pub fn plan(&self, commands: &[Command]) -> Result<Plan, Rejection> {
        self.agent.plan(commands)
    }

    /// Every copy of every volume that is known, by volume and node.
    pub fn volumes(&self) -> Vec<VolumeCopy> {
        self.agent.volumes()
    }

    /// The slots on this node that have the volume and may be running.
    pub fn volume_users(&self, volume: &VolumeId) -> Vec<SlotId> {
        self.agent.volume_users(volume)
    }

    /// What rebalancing would move.
    pub fn rebalance_forecast(&self) -> Forecast {
        self.agent.rebalance_forecast()
    }

    /// What the present revision of a service waits for, if anything.
    pub fn waits_for(&self, service: &ServiceKey) -> Option<Wait> {
        self.agent.waits_for(service)
    }

    /// The nodes that a new version of a secret should be sealed to at once.
    pub fn secret_recipients(&self, secret: &ItemKey) -> BTreeSet<NodeId> {
        self.agent.secret_recipients(secret)
    }

    /// Whether this node can open the present version of a secret.
    pub fn opens(&self, secret: &ItemKey) -> bool {
        self.agent.opens(secret)
    }

    /// The kept versions of a service, newest first; also of a removed one.
    pub fn history(&self, service: &ServiceKey) -> Vec<HistoryEntry> {
        self.replication.history(service)
    }

    /// Who changed what, newest first.
    pub fn audit(&self) -> Vec<AuditRecord> {
        self.replication.audit()
    }

    /// Concurrent edits of a service that disagree and have not been settled.
    pub fn conflicts_of(&self, service: &ServiceKey) -> Vec<Conflict> {
        self.replication.conflicts_of(service)
    }

    /// The same of all services.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.replication.conflicts()
    }

    /// Which document of desired state this node holds.
    pub fn document_id(&self) -> DocumentId {
        self.replication.document_id()
    }

    /// Hash of desired state and its history: equal on nodes that agree.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.replication.fingerprint()
    }

    /// Changes in the document's history.
    pub fn change_count(&self) -> usize {
        self.replication.change_count()
    }

    /// What replication has counted.
    pub fn replication_metrics(&self) -> Metrics {
        self.replication.metrics()
    }

    /// Peers with a control connection, ordered.
    pub fn connected(&self) -> Vec<NodeId> {
        self.overlay.connected().collect()
    }

    /// How ill this node believes itself to be, from 0 (healthy) to 4.
    pub fn local_health(&self) -> u8 {
        self.membership.local_health()
    }

    /// Addresses at which members were seen, also in earlier lives of this node.
    pub fn known_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.peers.addresses.iter().copied()
    }

    /// The boot count of a later life of this node, if one was seen: this process is the remains
    /// of an earlier one and should end.
    pub fn superseded(&self) -> Option<u64> {
        self.membership.superseded()
    }
}

/// Look-ups for those who show the node to people.
impl Engine {
    /// This node as a member.
    pub fn me(&self) -> MemberId {
        self.config().member
    }

    /// The newest register of a node.
    pub fn register(&self, node: NodeId) -> Option<&Arc<NodeRegister>> {
        self.replication.observed().get(node)
    }

    /// In whose name this node writes.
    pub fn credentials(&self) -> &[Credential] {
        self.replication.credentials()
    }

    /// Registers that the cluster holds and this node does not understand.
    pub fn invalid(&self) -> Vec<InvalidRegister> {
        self.replication.invalid()
    }
}
