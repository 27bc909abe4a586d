//! The names of nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dunlin_state::model::NodeId;
use dunlin_state::route::NodeRoute;
use hickory_proto::rr::Name;

use super::records::{Addresses, RecordSet, octets};
use super::service::{below, pointer};
use super::{NODE, NODE_TTL};

/// Names of all nodes, and what their addresses stand for. Nodes come and go rarely, so these are
/// made anew as a whole.
#[derive(Debug, Default)]
pub(super) struct NodeNames {
    /// By label, in wire form.
    names: BTreeMap<Box<[u8]>, Addresses>,
    reverse: BTreeMap<[u8; 16], RecordSet>,
}

impl NodeNames {
    pub(super) fn new(suffix: &Name, nodes: &BTreeMap<NodeId, NodeRoute>) -> Self {
        let mut by_name: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        let mut daemons: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for node in nodes.values() {
            let addresses = by_name.entry(&node.name).or_default();
            let Some(address) = node.address.map(|a| a.ip().to_canonical()) else {
                continue;
            };
            *daemons.entry(address).or_default() += 1;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let mut all = Self::default();
        for (label, addresses) in by_name {
            let name = below(suffix, NODE).and_then(|parent| below(&parent, label));
            let (Some(name), Ok(length)) = (name, u8::try_from(label.len())) else {
                continue;
            };
            for address in &addresses {
                // Several daemons of one host share its address: no name stands for it alone.
                let alone = daemons.get(address) == Some(&1);
                if alone && let Some(set) = pointer(&Name::from(*address), &name) {
                    all.reverse.insert(octets(*address), set);
                }
            }
            let mut key = vec![length];
            key.extend_from_slice(label.to_ascii_lowercase().as_bytes());
            let records = Addresses::new(&name, NODE_TTL, addresses);
            all.names.insert(key.into(), records);
        }
        all
    }

    pub(super) fn get(&self, label: &[u8]) -> Option<&Addresses> {
        self.names.get(label)
    }

    pub(super) fn name_of(&self, address: &[u8; 16]) -> Option<&RecordSet> {
        self.reverse.get(address)
    }
}
