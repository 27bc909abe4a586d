//! One snapshot of the route table as an index of names, and the look-up in it.
//!
//! All records are made when the snapshot is taken, once per change of the table, so that a query
//! costs one search in an ordered map and no allocation. Nothing here knows packets, sockets or
//! time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dunlin_state::model::{Protocol, ServiceKey};
use dunlin_state::route::{Backend, RouteTable, ServiceRoute};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::suffix::Suffix;

/// How long a client may reuse an answer, in seconds, and also a denial.
///
/// One: as long as names give addresses of replicas, a cached answer keeps sending traffic to a
/// replica that is gone, and a cached denial hides one that has come. One second still shields the
/// server from a program that resolves the name for each of its requests.
pub const TTL: u32 = 1;

/// Most addresses in one answer to a service's own name. A client needs one to connect to and some
/// to fall back on; eight fit into a datagram of 512 bytes beside a name of 85 characters, so that
/// hardly any client is sent to TCP for them. `tasks.` gives all.
pub const MAX_SERVICE_ADDRESSES: usize = 8;

/// SRV answers with more records than this come without the targets' addresses: the answer would
/// not fit into a datagram anyway.
const MAX_SRV_WITH_ADDRESSES: usize = 8;

/// The label before a service's name that asks for every replica, as with Docker Swarm.
const TASKS: &str = "tasks";

/// Room for the longest name in wire form (RFC 1035, 2.3.4).
const MAX_NAME: usize = 255;

/// The names of one route table.
#[derive(Debug)]
pub struct Zone {
    suffix: Suffix,
    soa: Record,
    /// By the labels before the suffix, in wire form and lower case.
    names: BTreeMap<Box<[u8]>, Entry>,
    /// Addresses of exactly one ready replica.
    reverse: BTreeMap<IpAddr, Record>,
}

/// What a query gets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer<'a> {
    /// The name is none of ours to answer for.
    NotOurs,
    /// There is no such name, nor any below it (NXDOMAIN).
    NoSuchName {
        /// Proof of authority; says how long the denial holds (RFC 2308).
        soa: &'a Record,
    },
    /// The name exists and has no record of this type now (NODATA).
    Empty {
        /// Proof of authority; says how long the denial holds (RFC 2308).
        soa: &'a Record,
    },
    /// The records asked for.
    Records {
        /// The answer.
        answers: Rotated<'a>,
        /// Addresses of the names in the answer, which save the client further queries.
        additional: &'a [Record],
    },
}

/// Records of one name and type, beginning at a point that moves from answer to answer, so that
/// clients that always take the first spread over all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rotated<'a> {
    records: &'a [Record],
    start: usize,
    count: usize,
}

impl<'a> Rotated<'a> {
    fn new(records: &'a [Record], turn: u32, most: usize) -> Self {
        let start = turn as usize % records.len().max(1);
        let count = records.len().min(most);
        Self {
            records,
            start,
            count,
        }
    }

    /// The records in their order for this answer.
    pub fn iter(&self) -> impl Iterator<Item = &'a Record> + Clone + use<'a> {
        let (before, after) = self.records.split_at(self.start);
        after.iter().chain(before).take(self.count)
    }
}

/// The records of one name.
#[derive(Debug, Default)]
struct Entry {
    a: Vec<Record>,
    aaaa: Vec<Record>,
    srv: Vec<Record>,
    srv_additional: Vec<Record>,
    /// Whether A and AAAA answers are cut to [`MAX_SERVICE_ADDRESSES`].
    cut: bool,
}

impl Entry {
    fn addresses(owner: &Name, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut entry = Self::default();
        for address in addresses {
            match address {
                IpAddr::V4(v4) => entry.a.push(record(owner, RData::A(A(v4)))),
                IpAddr::V6(v6) => entry.aaaa.push(record(owner, RData::AAAA(AAAA(v6)))),
            }
        }
        entry
    }

    fn answer(&self, qtype: RecordType, turn: u32) -> Option<(Rotated<'_>, &[Record])> {
        let most = if self.cut {
            MAX_SERVICE_ADDRESSES
        } else {
            usize::MAX
        };
        let (records, additional, most): (&[Record], &[Record], usize) = match qtype {
            RecordType::A => (&self.a, &[], most),
            RecordType::AAAA => (&self.aaaa, &[], most),
            RecordType::SRV => (&self.srv, &self.srv_additional, usize::MAX),
            // One type is enough for ANY (RFC 8482, 4.1), and keeps it from amplifying.
            RecordType::ANY => {
                let types = [RecordType::A, RecordType::AAAA, RecordType::SRV];
                return types.into_iter().find_map(|t| self.answer(t, turn));
            }
            _other => (&[], &[], 0),
        };
        let found = Rotated::new(records, turn, most);
        (found.count > 0).then_some((found, additional))
    }
}

impl Zone {
    /// Indexes a snapshot. `serial` numbers the snapshots of this server, newer ones higher: it is
    /// the serial number of the zone.
    pub fn new(suffix: &Suffix, routes: &RouteTable, serial: u32) -> Self {
        let mut zone = Self {
            suffix: suffix.clone(),
            soa: soa(suffix, serial),
            names: BTreeMap::new(),
            reverse: BTreeMap::new(),
        };
        zone.names.insert(Box::default(), Entry::default());
        let mut holders: BTreeMap<IpAddr, Vec<Name>> = BTreeMap::new();
        for (key, route) in &routes.services {
            // No label of a service key breaks DNS, and the suffix leaves room; a name that did
            // would simply not be there.
            let _unnameable = zone.add_service(key, route, &mut holders);
        }
        for (address, names) in holders {
            if let [only] = names.as_slice() {
                let pointer = RData::PTR(PTR(only.clone()));
                zone.reverse
                    .insert(address, record(&Name::from(address), pointer));
            }
        }
        zone
    }

    /// Looks a name up. `turn` may be any number; answers to well-mixed numbers rotate evenly.
    pub fn answer(&self, name: &Name, qtype: RecordType, turn: u32) -> Answer<'_> {
        let mut buffer = [0; MAX_NAME];
        let Some(relative) = self.relative(name, &mut buffer) else {
            return self.answer_reverse(name, qtype);
        };
        let soa = &self.soa;
        if relative.is_empty() && matches!(qtype, RecordType::SOA | RecordType::ANY) {
            let answers = Rotated::new(std::slice::from_ref(soa), 0, 1);
            return Answer::Records {
                answers,
                additional: &[],
            };
        }
        let Some(entry) = self.names.get(relative) else {
            return Answer::NoSuchName { soa };
        };
        match entry.answer(qtype, turn) {
            Some((answers, additional)) => Answer::Records {
                answers,
                additional,
            },
            None => Answer::Empty { soa },
        }
    }

    /// The zones of addresses belong to whoever gave them out, so only an address known here is
    /// answered for, and none is denied.
    fn answer_reverse(&self, name: &Name, qtype: RecordType) -> Answer<'_> {
        if !matches!(qtype, RecordType::PTR | RecordType::ANY) {
            return Answer::NotOurs;
        }
        let address = name.parse_arpa_name().ok().filter(|net| {
            let whole = match net.addr() {
                IpAddr::V4(_) => 32,
                IpAddr::V6(_) => 128,
            };
            net.prefix_len() == whole
        });
        match address.and_then(|net| self.reverse.get(&net.addr())) {
            Some(pointer) => Answer::Records {
                answers: Rotated::new(std::slice::from_ref(pointer), 0, 1),
                additional: &[],
            },
            None => Answer::NotOurs,
        }
    }

    /// The part of `name` before the suffix in wire form and lower case, or nothing when it does
    /// not end in the suffix.
    fn relative<'b>(&self, name: &Name, buffer: &'b mut [u8; MAX_NAME]) -> Option<&'b [u8]> {
        let ours = self.suffix.name();
        let before = name.iter().count().checked_sub(ours.iter().count())?;
        let same = name
            .iter()
            .skip(before)
            .zip(ours.iter())
            .all(|(a, b)| a.eq_ignore_ascii_case(b));
        if !same {
            return None;
        }
        let mut used = 0;
        for label in name.iter().take(before) {
            let end = used + 1 + label.len();
            let room = buffer.get_mut(used..end)?;
            let (length, text) = room.split_first_mut()?;
            *length = u8::try_from(label.len()).ok()?;
            text.copy_from_slice(label);
            text.make_ascii_lowercase();
            used = end;
        }
        buffer.get(..used)
    }

    fn add_service(
        &mut self,
        key: &ServiceKey,
        route: &ServiceRoute,
        holders: &mut BTreeMap<IpAddr, Vec<Name>>,
    ) -> Option<()> {
        let namespace = self.below(None, key.namespace())?;
        let service = self.below(Some(&namespace), key.name())?;
        // Names between the suffix and a service exist though they have no records (RFC 8020).
        self.insert(&namespace, |_nothing| ());
        let tasks = self.below(Some(&service), TASKS)?;
        let all: BTreeSet<IpAddr> = route.backends.iter().flat_map(addresses).collect();
        let mut own = Entry::addresses(&service, all.iter().copied());
        own.cut = true;
        self.insert(&tasks, |e| {
            *e = Entry::addresses(&tasks, all.iter().copied());
        });
        let slots = self.add_slots(&service, route, holders);
        for port in &route.ports {
            let protocol = match port.protocol {
                Protocol::Tcp => "_tcp",
                Protocol::Udp => "_udp",
            };
            let parent = self.below(Some(&service), protocol)?;
            self.insert(&parent, |_nothing| ());
            let owner = self.below(Some(&parent), &format!("_{}", port.target))?;
            let mut entry = Entry::default();
            for (name, backend) in &slots {
                let ends = backend
                    .endpoints
                    .iter()
                    .filter(|e| e.target == port.target && e.protocol == port.protocol);
                for end in ends {
                    let data = RData::SRV(SRV::new(0, 1, end.address.port(), name.clone()));
                    own.srv.push(record(&service, data.clone()));
                    entry.srv.push(record(&owner, data));
                }
            }
            self.insert(&owner, |e| {
                *e = with_additional(entry, &slots);
            });
        }
        self.insert(&service, |e| *e = with_additional(own, &slots));
        Some(())
    }

    /// Names each slot's replica. Where a partition has left a slot with two holders, the name is
    /// the first one's: a name with two addresses and two ports would mix them up.
    fn add_slots<'r>(
        &mut self,
        service: &Name,
        route: &'r ServiceRoute,
        holders: &mut BTreeMap<IpAddr, Vec<Name>>,
    ) -> Vec<(Name, &'r Backend)> {
        let mut slots: Vec<(Name, &Backend)> = Vec::with_capacity(route.backends.len());
        let mut last = None;
        for backend in &route.backends {
            let Some(name) = self.below(Some(service), &backend.slot.to_string()) else {
                continue;
            };
            for address in addresses(backend) {
                holders.entry(address).or_default().push(name.clone());
            }
            if last.replace(backend.slot) == Some(backend.slot) {
                continue;
            }
            self.insert(&name, |e| {
                *e = Entry::addresses(&name, addresses(backend));
            });
            slots.push((name, backend));
        }
        slots
    }

    /// The name one label below `parent`, or below the suffix.
    fn below(&self, parent: Option<&Name>, label: &str) -> Option<Name> {
        let parent = parent.unwrap_or(self.suffix.name());
        parent.prepend_label(label.as_bytes()).ok()
    }

    fn insert(&mut self, name: &Name, fill: impl FnOnce(&mut Entry)) {
        let mut buffer = [0; MAX_NAME];
        if let Some(relative) = self.relative(name, &mut buffer) {
            fill(self.names.entry(relative.into()).or_default());
        }
    }
}

/// Adds the addresses of the targets, when they are few.
fn with_additional(mut entry: Entry, slots: &[(Name, &Backend)]) -> Entry {
    if entry.srv.is_empty() || entry.srv.len() > MAX_SRV_WITH_ADDRESSES {
        return entry;
    }
    for (name, backend) in slots {
        let Entry { a, aaaa, .. } = Entry::addresses(name, addresses(backend));
        entry.srv_additional.extend(a.into_iter().chain(aaaa));
    }
    entry
}

/// Where a replica answers, each address once. What no client can connect to is left out.
fn addresses(backend: &Backend) -> BTreeSet<IpAddr> {
    backend
        .endpoints
        .iter()
        .map(|endpoint| endpoint.address.ip().to_canonical())
        .filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
        .collect()
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TTL, data)
}

/// The start of authority. Its last field is how long a denial may be reused (RFC 2308); the
/// timers before it are for secondary servers, which do not exist.
fn soa(suffix: &Suffix, serial: u32) -> Record {
    let name = suffix.name();
    let person = name
        .prepend_label(b"hostmaster".as_slice())
        .unwrap_or_else(|_too_long| name.clone());
    let timers = 60;
    let data = SOA::new(name.clone(), person, serial, timers, timers, timers, TTL);
    record(name, RData::SOA(data))
}

#[cfg(test)]
mod tests;
