//! Observed state: one register per node, newest wins.
//!
//! Each node writes its own register only, so two registers of one node are never concurrent: the
//! greater [`Version`] has seen everything of the smaller. That makes merging trivial, needs no
//! history, and lets anti-entropy compare versions alone. A [`Register`] is signed by its node and
//! travels as an [`Envelope`], whole or as what changed since a version that the receiver knows.

mod check;
mod envelope;
mod register;
mod scaling;
mod seal;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use check::{BadRegister, MAX_CLAIMS, MAX_REGISTER_BYTES, check, size};
pub use envelope::{BadEnvelope, ENVELOPE_VERSION, Envelope, Header, MAX_KEY_BYTES, Parcel};
pub use register::{Refused, Register};
pub use seal::{PROOF_BYTES, Proof, Seal, SharedSecret};

use crate::model::{NodeId, NodeRegister, Version};

/// The newest register known of each node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedTable {
    registers: BTreeMap<NodeId, Arc<Register>>,
    bytes: usize,
}

impl ObservedTable {
    /// Takes a register if it is newer than the known one. Returns whether it was. Whoever calls
    /// this has made sure that it is genuine.
    pub fn merge(&mut self, register: Arc<Register>) -> bool {
        let newer = self
            .version(register.node())
            .is_none_or(|known| register.version() > known);
        if newer {
            self.bytes += register.size(None);
            let old = self.registers.insert(register.node(), register);
            self.bytes -= old.map_or(0, |old| old.size(None));
        }
        newer
    }

    /// What `node` says of itself, if anything has been heard.
    pub fn get(&self, node: NodeId) -> Option<&Arc<NodeRegister>> {
        self.registers.get(&node).map(|r| r.view())
    }

    /// The same with its parts and signature.
    pub fn sealed(&self, node: NodeId) -> Option<&Arc<Register>> {
        self.registers.get(&node)
    }

    /// The version known of `node`.
    pub fn version(&self, node: NodeId) -> Option<Version> {
        self.registers.get(&node).map(|r| r.version())
    }

    /// What all nodes say, ordered by node.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NodeRegister>> {
        self.registers.values().map(|r| r.view())
    }

    /// All registers, ordered by node.
    pub fn all_sealed(&self) -> impl Iterator<Item = &Arc<Register>> {
        self.registers.values()
    }

    /// How many nodes have been heard of.
    pub fn len(&self) -> usize {
        self.registers.len()
    }

    /// Bytes of all registers together, as they would travel.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no node has been heard of.
    pub fn is_empty(&self) -> bool {
        self.registers.is_empty()
    }

    /// Forgets a node, when it has left or been gone for long.
    pub fn forget(&mut self, node: NodeId) {
        let old = self.registers.remove(&node);
        self.bytes -= old.map_or(0, |old| old.size(None));
    }
}

#[cfg(test)]
mod tests;
