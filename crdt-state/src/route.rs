//! The route table: the only thing DNS and the proxies read.

use std::collections::BTreeMap;

use crate::model::{Endpoint, NodeId, PortSpec, ServiceKey, Slot};

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
    /// Its ready replicas on nodes that are not suspected, ordered by slot.
    pub backends: Vec<Backend>,
}

/// A ready replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its slot.
    pub slot: Slot,
    /// The node that runs it.
    pub node: NodeId,
    /// Where its ports answer.
    pub endpoints: Vec<Endpoint>,
}
