//! Observed state: one register per node, newest wins.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{NodeId, NodeRegister, Version};

/// The newest register known of each node.
#[derive(Debug, Clone, Default)]
pub struct ObservedTable {
    registers: BTreeMap<NodeId, Arc<NodeRegister>>,
}

impl ObservedTable {
    /// Takes a register if it is newer than the known one. Returns whether it was.
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

    /// Forgets a node, when it has left or been gone for long.
    pub fn forget(&mut self, node: NodeId) {
        self.registers.remove(&node);
    }
}
