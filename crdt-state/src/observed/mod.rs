//! Observed state: one register per node, newest wins.
//!
//! Each node writes its own register only, so two registers of one node are never concurrent: the
//! greater [`Version`] has seen everything of the smaller. That makes merging trivial, needs no
//! history, and lets anti-entropy compare versions alone.

mod check;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use check::{BadRegister, MAX_CLAIMS, MAX_REGISTER_BYTES, check, size};

use crate::model::{NodeId, NodeRegister, Version};

/// The newest register known of each node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedTable {
    registers: BTreeMap<NodeId, Arc<NodeRegister>>,
}

impl ObservedTable {
    /// Takes a register if it is newer than the known one. Returns whether it was. What comes from
    /// a peer has to pass [`check`] first.
    pub fn merge(&mut self, register: Arc<NodeRegister>) -> bool {
        let newer = self
            .version(register.node)
            .is_none_or(|known| register.version > known);
        if newer {
            self.registers.insert(register.node, register);
        }
        newer
    }

    /// The register of `node`, if one has been seen.
    pub fn get(&self, node: NodeId) -> Option<&Arc<NodeRegister>> {
        self.registers.get(&node)
    }

    /// The version known of `node`.
    pub fn version(&self, node: NodeId) -> Option<Version> {
        self.registers.get(&node).map(|r| r.version)
    }

    /// All registers, ordered by node.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<NodeRegister>> {
        self.registers.values()
    }

    /// How many nodes have been heard of.
    pub fn len(&self) -> usize {
        self.registers.len()
    }

    /// Whether no node has been heard of.
    pub fn is_empty(&self) -> bool {
        self.registers.is_empty()
    }

    /// Forgets a node, when it has left or been gone for long.
    pub fn forget(&mut self, node: NodeId) {
        self.registers.remove(&node);
    }

    /// What is known, to be compared with what a peer knows: ordered by node.
    pub fn digest(&self) -> Vec<(NodeId, Version)> {
        self.iter().map(|r| (r.node, r.version)).collect()
    }

    /// The registers that a peer with this digest lacks, as many as fit into `max_bytes` and at
    /// least one if there is any. The digest need not be sorted. Registers are taken in the order
    /// of nodes behind the first gap, so repeated rounds reach all of them.
    pub fn newer_than(
        &self,
        digest: &[(NodeId, Version)],
        max_bytes: usize,
    ) -> Vec<Arc<NodeRegister>> {
        let theirs = newest_of(digest);
        let mut found = Vec::new();
        let mut bytes = 0_usize;
        for register in self.iter() {
            let known = theirs.get(&register.node);
            if known.is_some_and(|version| *version >= register.version) {
                continue;
            }
            bytes = bytes.saturating_add(size(register));
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(Arc::clone(register));
        }
        found
    }

    /// The nodes of which a peer with this digest knows something newer than we do.
    pub fn missing(&self, digest: &[(NodeId, Version)]) -> Vec<NodeId> {
        let theirs = newest_of(digest).into_iter();
        theirs
            .filter(|(node, version)| self.version(*node).is_none_or(|known| known < *version))
            .map(|(node, _)| node)
            .collect()
    }
}

fn newest_of(digest: &[(NodeId, Version)]) -> BTreeMap<NodeId, Version> {
    let mut newest = BTreeMap::new();
    for (node, version) in digest {
        let entry = newest.entry(*node).or_insert(*version);
        *entry = (*entry).max(*version);
    }
    newest
}

#[cfg(test)]
mod tests;
