//! One snapshot of the route table as an index of names, and the look-up in it.
//!
//! All records are encoded when a snapshot is taken, and only those of services that have changed
//! since the last one, so that a query costs two searches and no allocation, and a change costs as
//! much as what changed. Nothing here knows sockets or time.

mod nodes;
mod records;
pub(crate) mod reverse;
mod service;
mod shards;
mod soa;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use dunlin_state::model::{ServiceKey, VipRange};
use dunlin_state::route::{RouteTable, ServiceRoute};
use hickory_proto::rr::{Name, RecordType};

use crate::suffix::Suffix;
use crate::wire::WireName;

use nodes::NodeNames;
pub use records::RecordSet;
use records::octets;
use service::{ServiceNames, pointer};
use shards::Shards;
pub(crate) use soa::Soa;

/// How long a client may reuse an answer about replicas, in seconds, and also a denial.
///
/// One: a cached answer keeps sending traffic to a replica that is gone, and a cached denial hides
/// a service that has come. One second still shields the server from a program that resolves the
/// name for each of its requests.
pub const TTL: u32 = 1;

/// How long a client may reuse the virtual address of a service, in seconds. It stays the same for
/// the life of the service; what changes is where it leads, and that asks no client.
pub const VIP_TTL: u32 = 5;

/// How long a client may reuse the address of a node, in seconds. It changes when a host moves.
pub const NODE_TTL: u32 = 30;

/// Most addresses in one answer to a service's own name. A client needs one to connect to and some
/// to fall back on; eight fit into a datagram of 512 bytes beside a name of 85 characters, so that
/// hardly any client is sent to TCP for them. `tasks.` gives all.
pub const MAX_SERVICE_ADDRESSES: u16 = 8;

/// The label that nodes are named below. A namespace of this name keeps its services except those
/// named like a node.
pub(crate) const NODE: &str = "node";

/// The names of one route table.
#[derive(Debug, Clone)]
pub struct Zone {
    suffix: Suffix,
    /// The suffix in wire form, without the root label.
    suffix_wire: Arc<[u8]>,
    soa: Soa,
    apex: Arc<RecordSet>,
    range: VipRange,
    /// By service and namespace, in wire form.
    services: Shards<Arc<ServiceNames>>,
    /// How many services each namespace has, by its label in wire form.
    namespaces: Arc<BTreeMap<Box<[u8]>, usize>>,
    nodes: Arc<NodeNames>,
    /// The names that each address of a replica stands for.
    holders: Shards<Vec<Name>>,
    pointers: Shards<Arc<RecordSet>>,
}

/// What there is for a question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Found<'z> {
    /// The name is none of ours to answer for.
    NotOurs,
    /// There is no such name, nor any below it (NXDOMAIN).
    NoSuchName,
    /// The same for the reverse name of a virtual address that no service has.
    NoSuchAddress,
    /// The name exists and has no record of this type now (NODATA).
    Empty,
    /// The records asked for.
    Records(&'z RecordSet),
    /// The records asked for, of a name that is not below the suffix.
    Reverse(&'z RecordSet),
}

impl Zone {
    /// A zone with nothing in it.
    pub fn empty(suffix: &Suffix) -> Self {
        let wire = suffix.wire();
        let soa = Soa::new(0);
        Self {
            suffix: suffix.clone(),
            apex: Arc::new(soa.apex(suffix.name())),
            soa,
            suffix_wire: wire.into(),
            range: VipRange::default(),
            services: Shards::new(),
            namespaces: Arc::default(),
            nodes: Arc::default(),
            holders: Shards::new(),
            pointers: Shards::new(),
        }
    }

    /// Indexes a snapshot.
    pub fn new(suffix: &Suffix, routes: &RouteTable) -> Self {
        Self::empty(suffix).updated(&RouteTable::default(), routes)
    }

    /// The index of `new`, given that this is the one of `old`. The zone's serial number goes up.
    #[must_use]
    pub fn updated(&self, old: &RouteTable, new: &RouteTable) -> Self {
        let mut zone = self.clone();
        zone.soa = Soa::new(self.soa.serial().wrapping_add(1));
        zone.apex = Arc::new(zone.soa.apex(zone.suffix.name()));
        for key in old.services.keys() {
            if !new.services.contains_key(key) {
                zone.change(key, None);
            }
        }
        for (key, route) in &new.services {
            if old.services.get(key) != Some(route) {
                zone.change(key, Some(route));
            }
        }
        zone.range = new.range;
        if old.nodes != new.nodes {
            zone.nodes = Arc::new(NodeNames::new(zone.suffix.name(), &new.nodes));
        }
        zone
    }

    /// The domain that the names stand below.
    pub fn suffix(&self) -> &Suffix {
        &self.suffix
    }

    /// Proof of authority for denials (RFC 2308).
    pub(crate) fn soa(&self) -> &Soa {
        &self.soa
    }

    /// The suffix in wire form, without the root label.
    pub(crate) fn suffix_wire(&self) -> &[u8] {
        &self.suffix_wire
    }

    /// Looks a name up.
    pub fn find(&self, name: &WireName, kind: RecordType) -> Found<'_> {
        let own_labels = self.suffix.labels();
        let Some(before) = name.labels().checked_sub(own_labels) else {
            return self.find_reverse(name, kind);
        };
        if name.from_label(before) != &*self.suffix_wire {
            return self.find_reverse(name, kind);
        }
        match before {
            0 => match kind {
                RecordType::SOA | RecordType::ANY => Found::Records(&self.apex),
                _other => Found::Empty,
            },
            1 => {
                let namespace = self.strip(name.as_bytes());
                let there = namespace == b"\x04node" || self.namespaces.contains_key(namespace);
                if there {
                    Found::Empty
                } else {
                    Found::NoSuchName
                }
            }
            labels => self.find_below(name, labels, kind),
        }
    }

    /// A name of at least two labels before the suffix.
    fn find_below(&self, name: &WireName, labels: usize, kind: RecordType) -> Found<'_> {
        let key = self.strip(name.from_label(labels - 2));
        if labels == 2
            && let Some(label) = key.strip_suffix(b"\x04node")
            && let Some(addresses) = self.nodes.get(label)
        {
            return addresses.get(kind).map_or(Found::Empty, Found::Records);
        }
        let Some(service) = self.services.get(key) else {
            return Found::NoSuchName;
        };
        let relative = self.strip(name.as_bytes());
        let before = relative.strip_suffix(key).unwrap_or_default();
        match service.get(before) {
            None => Found::NoSuchName,
            Some(entry) => entry.get(kind).map_or(Found::Empty, Found::Records),
        }
    }

    /// The zones of addresses belong to whoever gave them out, so only an address known here is
    /// answered for, and none is denied but virtual ones.
    fn find_reverse(&self, name: &WireName, kind: RecordType) -> Found<'_> {
        if !matches!(kind, RecordType::PTR | RecordType::ANY) {
            return Found::NotOurs;
        }
        let Some(address) = reverse::address(name) else {
            return Found::NotOurs;
        };
        let key = octets(address);
        let of_service = || self.pointers.get(&key).map(Arc::as_ref);
        match self.nodes.name_of(&key).or_else(of_service) {
            Some(pointer) => Found::Reverse(pointer),
            None if self.range.contains(address) => Found::NoSuchAddress,
            None => Found::NotOurs,
        }
    }

    /// Cuts the suffix off.
    fn strip<'n>(&self, name: &'n [u8]) -> &'n [u8] {
        name.strip_suffix(&*self.suffix_wire).unwrap_or_default()
    }

    /// Replaces or removes the names of one service.
    fn change(&mut self, key: &ServiceKey, route: Option<&ServiceRoute>) {
        let (service, namespace) = (wire(key.name()), wire(key.namespace()));
        let names = route.and_then(|route| ServiceNames::new(self.suffix.name(), key, route));
        let names = names.map(Arc::new);
        let is_new = names.is_some();
        let new_held = names.clone();
        let mut was = None;
        let path = [&service[..], &namespace[..]].concat();
        self.services
            .change(&path, |slot| was = std::mem::replace(slot, names));
        match (was.is_some(), is_new) {
            (false, true) => {
                let namespaces = Arc::make_mut(&mut self.namespaces);
                *namespaces.entry(namespace).or_default() += 1;
            }
            (true, false) => {
                let namespaces = Arc::make_mut(&mut self.namespaces);
                if let Some(count) = namespaces.get_mut(&namespace) {
                    *count -= 1;
                    if *count == 0 {
                        namespaces.remove(&namespace);
                    }
                }
            }
            (true, true) | (false, false) => {}
        }
        let held = |names: Option<&Arc<ServiceNames>>| names.map_or(&[][..], |n| &n.held).to_vec();
        let (gone, come) = (held(was.as_ref()), held(new_held.as_ref()));
        self.move_holders(&gone, &come);
    }

    /// Keeps the pointers of addresses that stand for exactly one replica.
    fn move_holders(&mut self, gone: &[(IpAddr, Name)], come: &[(IpAddr, Name)]) {
        if gone == come {
            return;
        }
        for (address, name) in gone {
            self.holders.change(&octets(*address), |holders| {
                let list = holders.take().map(|mut list: Vec<Name>| {
                    if let Some(at) = list.iter().position(|n| n == name) {
                        list.swap_remove(at);
                    }
                    list
                });
                *holders = list.filter(|list| !list.is_empty());
            });
        }
        for (address, name) in come {
            self.holders.change(&octets(*address), |holders| {
                holders.get_or_insert_default().push(name.clone());
            });
        }
        for (address, _) in gone.iter().chain(come) {
            let key = octets(*address);
            let pointer = match self.holders.get(&key).map(Vec::as_slice) {
                Some([only]) => pointer(&Name::from(*address), only).map(Arc::new),
                _none_or_many => None,
            };
            self.pointers.change(&key, |slot| *slot = pointer);
        }
    }
}

/// A label in wire form. Labels of the model are lower case and at most 63 octets long.
fn wire(label: &str) -> Box<[u8]> {
    let length = u8::try_from(label.len()).unwrap_or_default();
    [&[length], label.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests;
