//! The names of one service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dunlin_state::model::{Protocol, ServiceKey};
use dunlin_state::route::{Backend, ServiceRoute};
use hickory_proto::rr::rdata::{PTR, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::records::{Addresses, RecordSet, address_record};
use super::{MAX_SERVICE_ADDRESSES, TTL, VIP_TTL};

/// SRV answers with more records than this come without the targets' addresses: the answer would
/// not fit into a datagram anyway.
const MAX_SRV_WITH_ADDRESSES: usize = 8;

/// The label before a service's name that asks for every replica, as with Docker Swarm.
const TASKS: &str = "tasks";

/// A service's own name and those below it.
#[derive(Debug, Default)]
pub(super) struct ServiceNames {
    own: Entry,
    /// By the labels before the service's name, in wire form.
    below: BTreeMap<Box<[u8]>, Entry>,
    /// The addresses of the service and of its replicas, each with the name that it stands for.
    pub(super) held: Vec<(IpAddr, Name)>,
}

/// The records of one name.
#[derive(Debug, Default)]
pub(super) struct Entry {
    addresses: Addresses,
    srv: Option<RecordSet>,
}

impl Entry {
    pub(super) fn get(&self, kind: RecordType) -> Option<&RecordSet> {
        match kind {
            RecordType::SRV => self.srv.as_ref(),
            RecordType::ANY => self.addresses.get(kind).or(self.srv.as_ref()),
            other => self.addresses.get(other),
        }
    }
}

impl ServiceNames {
    /// Encodes the names of a service below `suffix`. Labels of a service never break DNS, and the
    /// suffix leaves room; a name that did would simply not be there.
    pub(super) fn new(suffix: &Name, key: &ServiceKey, route: &ServiceRoute) -> Option<Self> {
        let namespace = below(suffix, key.namespace())?;
        let service = below(&namespace, key.name())?;
        let backends = route.backends.iter();
        let all: BTreeSet<IpAddr> = backends.flat_map(|b| addresses(route, b)).collect();
        let tasks = Entry {
            addresses: Addresses::new(&below(&service, TASKS)?, TTL, all.iter().copied()),
            srv: None,
        };
        let mut names = Self::default();
        names.insert(&[TASKS], tasks);
        let slots = names.add_slots(&service, route);
        let mut targets = Vec::new();
        for port in &route.ports {
            let protocol = match port.protocol {
                Protocol::Tcp => "_tcp",
                Protocol::Udp => "_udp",
            };
            // Names between a service and its ports exist though they have no records (RFC 8020).
            names.insert(&[protocol], Entry::default());
            let label = format!("_{}", port.target);
            let owner = below(&below(&service, protocol)?, &label)?;
            let of_port: Vec<RData> = slots
                .iter()
                .flat_map(|(name, backend)| {
                    let ends = backend.endpoints.iter();
                    ends.filter(|e| e.target == port.target && e.protocol == port.protocol)
                        .map(|e| {
                            // At its virtual address it has the port of its specification.
                            let own = route.replicas.contains_key(&backend.slot);
                            let port = if own { e.target } else { e.address.port() };
                            RData::SRV(SRV::new(0, 1, port, name.clone()))
                        })
                })
                .collect();
            let entry = Entry {
                addresses: Addresses::default(),
                srv: srv(&owner, &of_port, (route, &slots)),
            };
            names.insert(&[&label, protocol], entry);
            targets.extend(of_port);
        }
        names.own = Entry {
            addresses: names.own_addresses(&service, route, all),
            srv: srv(&service, &targets, (route, &slots)),
        };
        Some(names)
    }

    /// The service's virtual addresses. A node without a range for them gives those of replicas.
    fn own_addresses(
        &mut self,
        service: &Name,
        route: &ServiceRoute,
        replicas: BTreeSet<IpAddr>,
    ) -> Addresses {
        let virtual_ones: Vec<IpAddr> = route.vip.addresses().collect();
        if virtual_ones.is_empty() {
            return Addresses::new(service, TTL, replicas).at_most(MAX_SERVICE_ADDRESSES);
        }
        let held = virtual_ones.iter().map(|ip| (*ip, service.clone()));
        self.held.extend(held);
        Addresses::new(service, VIP_TTL, virtual_ones)
    }

    /// The records of a name; `before` is what stands before the service's own.
    pub(super) fn get(&self, before: &[u8]) -> Option<&Entry> {
        match before {
            [] => Some(&self.own),
            labels => self.below.get(labels),
        }
    }

    /// Names each slot's replica. Where a partition has left a slot with two holders, the name is
    /// the first one's: a name with two addresses and two ports would mix them up.
    fn add_slots<'r>(
        &mut self,
        service: &Name,
        route: &'r ServiceRoute,
    ) -> Vec<(Name, &'r Backend)> {
        let mut slots: Vec<(Name, &Backend)> = Vec::with_capacity(route.backends.len());
        let mut last = None;
        for backend in &route.backends {
            let label = backend.slot.to_string();
            let Some(name) = below(service, &label) else {
                continue;
            };
            for address in addresses(route, backend) {
                self.held.push((address, name.clone()));
            }
            if last.replace(backend.slot) == Some(backend.slot) {
                continue;
            }
            let entry = Entry {
                addresses: Addresses::new(&name, TTL, addresses(route, backend)),
                srv: None,
            };
            self.insert(&[&label], entry);
            slots.push((name, backend));
        }
        slots
    }

    fn insert(&mut self, labels: &[&str], entry: Entry) {
        let mut key = Vec::new();
        for label in labels {
            key.push(u8::try_from(label.len()).unwrap_or_default());
            key.extend_from_slice(label.to_ascii_lowercase().as_bytes());
        }
        self.below.insert(key.into(), entry);
    }
}

/// The pointer from an address to the name it stands for.
pub(super) fn pointer(question: &Name, target: &Name) -> Option<RecordSet> {
    let data = RData::PTR(PTR(target.clone()));
    RecordSet::new(question, &[Record::from_rdata(question.clone(), TTL, data)])
}

/// The name one label below `parent`.
pub(super) fn below(parent: &Name, label: &str) -> Option<Name> {
    parent.prepend_label(label.as_bytes()).ok()
}

/// Encodes SRV records, with the addresses of their targets when they are few.
fn srv(
    owner: &Name,
    data: &[RData],
    (route, slots): (&ServiceRoute, &[(Name, &Backend)]),
) -> Option<RecordSet> {
    let records: Vec<Record> = data
        .iter()
        .map(|data| Record::from_rdata(owner.clone(), TTL, data.clone()))
        .collect();
    let mut extra = Vec::new();
    if records.len() <= MAX_SRV_WITH_ADDRESSES {
        for (name, backend) in slots {
            extra.extend(
                addresses(route, backend)
                    .into_iter()
                    .map(|a| address_record(name, TTL, a)),
            );
        }
    }
    RecordSet::with_extra(owner, &records, &extra)
}

/// Where a replica answers: at its virtual addresses, or else as its node reports, each address
/// once. What no client can connect to is left out.
fn addresses(route: &ServiceRoute, backend: &Backend) -> BTreeSet<IpAddr> {
    if let Some(vip) = route.replicas.get(&backend.slot) {
        return vip.addresses().collect();
    }
    backend
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.ip().to_canonical())
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
        .collect()
}
