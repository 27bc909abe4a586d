//! The immutable view of desired state that every decision reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::vips::Assigned;
use crate::model::{Availability, NodeId, ServiceKey, ServiceSpec};

/// Desired state at one moment. Cheap to clone and never changed in place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Every service that exists.
    pub services: BTreeMap<ServiceKey, Service>,
    /// What people said about nodes; a node nobody spoke of is absent.
    pub nodes: BTreeMap<NodeId, NodeIntent>,
    /// The number of each service among the virtual addresses; no two have the same.
    pub vips: Arc<BTreeMap<ServiceKey, Assigned>>,
}

/// A service as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its specification, with the image register folded in.
    pub spec: Arc<ServiceSpec>,
    /// Hash of `spec`: replicas of another revision are replaced.
    pub revision: String,
    /// How many replicas a replicated service has.
    pub replicas: u32,
    /// Whether it runs at all.
    pub running: bool,
}

impl Service {
    /// Replicas that should exist now: none while stopped. Daemon services do not use it.
    pub fn wanted_replicas(&self) -> u32 {
        if self.running { self.replicas } else { 0 }
    }
}

/// What people said about a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeIntent {
    /// Whether it takes replicas.
    pub availability: Availability,
    /// Labels that add to, and win over, those of its command line.
    pub labels: BTreeMap<String, String>,
}
