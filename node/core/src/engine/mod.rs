//! The engine: all machines of one node behind one verb.

use std::sync::Arc;

use dunlin_gossip::membership::{MemberId, MemberState};
use dunlin_state::Now;
use dunlin_state::desired::Desired;
use dunlin_state::model::{NodeId, NodeRegister, ServiceKey};
use dunlin_state::route::RouteTable;

use crate::explain::Explanation;
use crate::io::{Effect, Input, NodeConfig, Recovered};
use crate::liveness::Standing;

/// Why a node cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The saved document cannot be read. Nothing has been changed.
    #[error(
        "the saved cluster state cannot be read: {0}; move the state file away to start without \
         it and take the state over from a peer"
    )]
    Document(String),
}

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

/// Everything one node decides.
pub struct Engine {
    config: NodeConfig,
    desired: Arc<Desired>,
}

impl Engine {
    /// A node that starts. The effects are to be carried out before the first input.
    pub fn new(
        config: NodeConfig,
        recovered: Recovered,
        now: Now,
    ) -> Result<(Self, Vec<Effect>), StartError> {
        let _ = (recovered, now);
        let desired = Arc::new(Desired::default());
        Ok((Self { config, desired }, Vec::new()))
    }

    /// Takes one input; early timeouts are harmless.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let _ = (input, now);
        Vec::new()
    }

    /// When [`Input::Timeout`] is due, in milliseconds of the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        None
    }

    /// Desired state.
    pub fn desired(&self) -> &Arc<Desired> {
        &self.desired
    }

    /// The newest register of every node, ordered by node; this node's among them.
    pub fn observed(&self) -> impl Iterator<Item = &Arc<NodeRegister>> {
        [].into_iter()
    }

    /// All members but this node, ordered.
    pub fn members(&self) -> Vec<Member> {
        Vec::new()
    }

    /// What this node acts on regarding another one.
    pub fn standing(&self, node: NodeId) -> Standing {
        if node == self.config.member.node {
            Standing::Alive
        } else {
            Standing::Suspect
        }
    }

    /// Who answers for each service right now.
    pub fn route_table(&self) -> RouteTable {
        RouteTable::default()
    }

    /// Why a service is as it is; `None` when there is no such service.
    pub fn explain(&self, service: &ServiceKey) -> Option<Explanation> {
        self.desired.services.get(service).map(|_| Explanation {
            service: service.clone(),
            summary: String::new(),
            wanted: 0,
            ready: 0,
            slots: Vec::new(),
            nodes: Vec::new(),
            last_round: None,
        })
    }
}
