//! The judge: compares what all hosts say, what runs, what answers and what names mean with what
//! was promised. Everything it knows it sees from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dunlin_api::{Replica, ServiceDetail};
use dunlin_state::model::{Phase, Slot};

use super::Lab;
use super::calls::{Who, call, contained, running};
use super::ledger::{Ledger, PORT, SERVICES};
use super::people::name;
use super::view::{View, claim};
use crate::lab::Host;
use crate::lab::net::LabError;
use crate::lab::resolve::{Asker, Said};

/// Has a program on each host that asks for names.
pub(super) struct Judge {
    askers: Vec<Asker>,
}

impl Judge {
    pub(super) fn new(lab: &Lab) -> Result<Self, LabError> {
        let askers = (0..lab.hosts.len()).map(|at| Asker::new(&lab.network.namespace(at)));
        Ok(Self {
            askers: askers.collect::<Result<_, _>>()?,
        })
    }

    /// What is not as it should be. Cheap questions first: while hosts disagree, there is no point
    /// in calling replicas.
    pub(super) async fn complaints(&mut self, lab: &Lab, ledger: &Ledger) -> Vec<String> {
        let mut views = Vec::new();
        for at in 0..lab.hosts.len() {
            match View::of(lab, at).await {
                Ok(view) => views.push(view),
                Err(trouble) => return vec![trouble],
            }
        }
        let mut found = super::view::apart(lab).await;
        for view in &views {
            found.extend(view.differences(&views[0]));
            found.extend(view.inactive());
            found.extend((0..SERVICES).filter_map(|service| {
                let complaint = ledger.judge(service, view.wanted.get(&service))?;
                Some(format!("{}: {complaint}", view.host))
            }));
        }
        let Some(view) = views.first().filter(|_| found.is_empty()) else {
            return found;
        };
        found.extend(view.wanted.values().flat_map(as_wanted));
        found.extend(view.fixed.iter().flat_map(as_wanted));
        found.extend(unwanted(view));
        found.extend(overcommitted(view));
        if found.is_empty() {
            found.extend(processes(lab, view));
            found.extend(engines(lab));
            found.extend(answers(lab, view));
            found.extend(self.names(view));
            found.extend(ports(lab, view));
        }
        found
    }

    /// Whether every host's DNS names what is ready, and nothing else.
    fn names(&self, view: &View) -> Vec<String> {
        let mut found = Vec::new();
        for service in 0..SERVICES {
            let full = format!("{}.default.dunlin.internal", name(service));
            let wanted = view.wanted.get(&service);
            let own: Vec<Said> = self.askers.iter().map(|a| a.ask(&full)).collect();
            for (at, said) in own.iter().enumerate() {
                let right = match wanted {
                    Some(_) => matches!(said, Said::Addresses(_)) && *said == own[0],
                    None => *said == Said::NoSuchName,
                };
                if !right {
                    found.push(format!("h{at} says {said:?} of {full}, h0 {:?}", own[0]));
                }
            }
            let Some(detail) = wanted.filter(|d| d.wanted > 0) else {
                continue;
            };
            // Each slot has an address of its own, and here the same one on all hosts.
            let slots: BTreeSet<Slot> = detail.replicas.iter().map(|r| r.slot).collect();
            let tasks = format!("tasks.{full}");
            let first = self.askers[0].ask(&tasks);
            for (at, asker) in self.askers.iter().enumerate() {
                let said = asker.ask(&tasks);
                if said.count() != slots.len() || said != first {
                    let wanted = slots.len();
                    found.push(format!(
                        "h{at} says {said:?} of {tasks}, not {wanted} addresses, h0 {first:?}"
                    ));
                }
            }
        }
        found
    }
}

/// Whether each wanted slot is held once, by a ready replica of the wanted specification.
fn as_wanted(detail: &ServiceDetail) -> Vec<String> {
    let slots: BTreeSet<_> = detail.replicas.iter().map(|r| r.slot).collect();
    let right = |r: &&Replica| {
        r.ready && r.phase == Phase::Running && !r.leaving && r.revision == detail.revision
    };
    let good = detail.replicas.iter().filter(right).count();
    let wanted = detail.scale as usize;
    let exact = [slots.len(), good, detail.replicas.len()] == [wanted; 3];
    if exact && detail.vacant.is_empty() && detail.wanted == detail.scale {
        return Vec::new();
    }
    let service = &detail.service;
    let claims: Vec<String> = detail.replicas.iter().map(claim).collect();
    vec![format!(
        "{service} should have {wanted} ready replicas of {:.8}, each once: {}",
        detail.revision,
        claims.join(", ")
    )]
}

/// Replicas of services that nobody wants.
fn unwanted(view: &View) -> Vec<String> {
    let known: BTreeSet<_> = view.services.iter().map(|s| &s.service).collect();
    let list = view.replicas.replicas.iter();
    list.filter(|r| !known.contains(&r.service))
        .map(|r| format!("nobody wants {}", claim(r)))
        .collect()
}

/// Whether what the replicas of a host reserve, by the specifications, is more than the host has.
fn overcommitted(view: &View) -> Vec<String> {
    let details = || view.wanted.values().chain(&view.fixed);
    let reserved = |name: &str| {
        let of = |r: &&Replica| r.node_name == name;
        let each = details().map(|d| {
            let count = d.replicas.iter().filter(of).count() as u64;
            let each = d.spec.reservation;
            (each.cpu_millis * count, each.memory * count)
        });
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    let over = view.nodes.iter().filter_map(|node| {
        let (cpu, memory) = reserved(&node.name);
        let has = node.capacity;
        (cpu > has.cpu_millis || memory > has.memory).then(|| {
            format!(
                "{} has {} millis and {} bytes, and its replicas reserve {cpu} and {memory}",
                node.name, has.cpu_millis, has.memory
            )
        })
    });
    over.collect()
}

/// Whether the engines run a container for each server in the process table, and none besides.
fn engines(lab: &Lab) -> Vec<String> {
    let hosts = lab.hosts.iter().filter(|host| host.has_engine());
    let complaint = |host: &Host| {
        let servers = host.processes().into_iter().filter(|pid| contained(*pid));
        let (name, servers) = (host.name(), servers.count());
        match host.containers() {
            Ok(count) if count == servers => None,
            Ok(count) => Some(format!(
                "the engine of {name} runs {count} containers, and {servers} answer in some"
            )),
            Err(error) => Some(format!("the engine of {name}: {error}")),
        }
    };
    hosts.filter_map(complaint).collect()
}

/// Whether exactly the replicas run that are said to, by the process table.
fn processes(lab: &Lab, view: &View) -> Vec<String> {
    let mut said: Vec<(usize, Who)> = Vec::new();
    let mut found: Vec<(usize, Who)> = Vec::new();
    for (at, host) in lab.hosts.iter().enumerate() {
        let own = view.replicas.replicas.iter();
        let own = own.filter(|r| r.node_name == host.name());
        said.extend(own.map(|r| (at, Who::of(r))));
        found.extend(running(host).into_iter().map(|who| (at, who)));
    }
    said.sort();
    found.sort();
    if said == found {
        return Vec::new();
    }
    let only = |a: &[(usize, Who)], b: &[(usize, Who)]| {
        let only = a.iter().filter(|one| !b.contains(one));
        let list: Vec<String> = only.map(|(at, who)| format!("h{at}: {who}")).collect();
        list.join(", ")
    };
    vec![format!(
        "{} replicas are said to run, and {} processes do; only said: [{}]; only running: [{}]",
        said.len(),
        found.len(),
        only(&said, &found),
        only(&found, &said)
    )]
}

/// Whether every replica answers at its own address, and as the one that it should be: to the first
/// host, but a container to its own, for nobody else reaches the network between containers.
fn answers(lab: &Lab, view: &View) -> Vec<String> {
    let mut targets: BTreeMap<usize, Vec<(SocketAddr, Who)>> = BTreeMap::new();
    let mut found = Vec::new();
    for replica in &view.replicas.replicas {
        let named = |host: &Host| host.name() == replica.node_name;
        let host = lab.hosts.iter().position(named).unwrap_or(0);
        let Some(endpoint) = replica.endpoints.first() else {
            found.push(format!("{} has no address", claim(replica)));
            continue;
        };
        let open = endpoint.address.ip() == address(lab, host);
        let from = targets.entry(if open { 0 } else { host }).or_default();
        from.push((endpoint.address, Who::of(replica)));
    }
    for (from, targets) in targets {
        let addresses: Vec<SocketAddr> = targets.iter().map(|(a, _)| *a).collect();
        let said = match call(&lab.network.namespace(from), addresses) {
            Ok(said) => said,
            Err(error) => return vec![error.to_string()],
        };
        for ((address, who), said) in targets.into_iter().zip(said) {
            if said.as_ref().ok() != Some(&who) {
                found.push(format!(
                    "{who} should answer h{from} at {address}: {said:?}"
                ));
            }
        }
    }
    found
}

/// Whether each published port is answered on every host by a replica of its service, and by
/// nobody when there is no such service. A service without replicas is passed over: its port may
/// keep a caller waiting until there is one.
fn ports(lab: &Lab, view: &View) -> Vec<String> {
    let mut found = Vec::new();
    let empty = |service: &usize| view.wanted.get(service).is_some_and(|d| d.scale == 0);
    let asked: Vec<usize> = (0..SERVICES).filter(|service| !empty(service)).collect();
    for at in 0..lab.hosts.len() {
        let ip = IpAddr::V4(address(lab, at));
        let all = asked
            .iter()
            .map(|service| SocketAddr::new(ip, PORT + *service as u16));
        let said = match call(&lab.network.namespace(at), all.collect()) {
            Ok(said) => said,
            Err(error) => return vec![error.to_string()],
        };
        for (service, said) in asked.iter().zip(said) {
            let right = match (view.wanted.get(service), &said) {
                (Some(detail), Ok(who)) => detail.replicas.iter().any(|r| Who::of(r) == *who),
                (None, Err(_)) => true,
                (Some(_), Err(_)) | (None, Ok(_)) => false,
            };
            if !right {
                let name = name(*service);
                found.push(format!("the port of {name} on h{at}: {said:?}"));
            }
        }
    }
    found
}

fn address(lab: &Lab, host: usize) -> Ipv4Addr {
    let address = lab.network.address(host).parse();
    address.unwrap_or(Ipv4Addr::UNSPECIFIED)
}
