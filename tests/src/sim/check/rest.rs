//! I1 and I7: what is still wrong when the faults have ended.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_gossip::membership::MemberState;
use dunlin_state::desired::Service;
use dunlin_state::model::{
    Availability, Claim, HostPort, Mode, NodeId, PublishMode, Resources, RunId, ServiceKey, Slot,
    SlotId,
};

use super::times::answering;
use super::volumes;
use crate::sim::node::Host;
use crate::sim::workload::{Variety, can_run};
use crate::sim::world::World;

/// What is still wrong, in words.
pub(in crate::sim) fn at_rest(world: &World) -> Vec<String> {
    let mut wrong = same_views(world);
    wrong.extend(nothing_lost(world));
    wrong.extend(exactly_once(world));
    wrong.extend(routes_are_whole(world));
    wrong.extend(clashes_are_told(world));
    wrong.extend(super::evenness::uneven(world));
    wrong.extend(super::moves::uneven(world));
    wrong.extend(super::quotas::excess_is_told(world));
    wrong.extend(super::jobs::runs_have_ended(world));
    wrong.extend(super::scales::loads_are_followed(world));
    wrong
}

fn same_views(world: &World) -> Vec<String> {
    let up: Vec<_> = world.hosts.iter().filter(|h| h.is_up()).collect();
    let Some(first) = up.first() else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for host in &up[1..] {
        let (Some(a), Some(b)) = (&first.engine, &host.engine) else {
            continue;
        };
        if a.desired() != b.desired() || a.fingerprint() != b.fingerprint() {
            wrong.push(format!(
                "I1: n{} and n{} want different things",
                first.index, host.index
            ));
        }
        for other in &up {
            let (x, y) = (
                a.register(other.id).map(|r| r.version),
                b.register(other.id).map(|r| r.version),
            );
            if x != y {
                wrong.push(format!(
                    "I1: of n{}, n{} knows {x:?} and n{} knows {y:?}",
                    other.index, first.index, host.index
                ));
            }
        }
        if b.members()
            .iter()
            .filter(|m| m.state == MemberState::Alive)
            .count()
            + 1
            != up.len()
        {
            wrong.push(format!("I1: n{} does not see all nodes alive", host.index));
        }
    }
    wrong
}

/// I7: what was accepted is there, unless a later write of the same aspect replaced it.
fn nothing_lost(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    for host in &world.hosts {
        let Some(engine) = &host.engine else { continue };
        let services = &engine.desired().services;
        for service in &world.ops.created {
            if !services.contains_key(service) {
                wrong.push(format!("I7: n{} has lost {service}", host.index));
            }
        }
        for service in &world.ops.removed {
            if services.contains_key(service) {
                wrong.push(format!("I7: n{} has brought back {service}", host.index));
            }
        }
        for (service, writes) in &world.ops.images {
            let image = services.get(service).map(|s| s.spec.image.as_str());
            // A rollback brings back what was replaced.
            let rolls_back = world.ops.variety == Variety::Rolling;
            let may_be =
                |image: &str| writes.may_be(image) || (rolls_back && writes.was_asked(image));
            if image.is_some_and(|image| !may_be(image)) {
                let newest = writes.newest();
                wrong.push(format!(
                    "I7: n{} has {image:?} for {service}, and {newest:?} were accepted",
                    host.index
                ));
            }
        }
        for (service, writes) in &world.ops.scales {
            let replicated = services
                .get(service)
                .filter(|s| s.spec.mode == Mode::Replicated && s.spec.autoscale.is_none());
            let scale = replicated.map(|s| s.replicas.to_string());
            if scale
                .as_deref()
                .is_some_and(|scale| !writes.was_asked(scale))
            {
                wrong.push(format!("I7: n{} made up a scale of {service}", host.index));
            }
        }
    }
    wrong
}

/// Where a partition has given a port to two services, every daemon has said so.
fn clashes_are_told(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    for host in &world.hosts {
        let Some(engine) = &host.engine else { continue };
        let told = world.watch.clashes_told.contains(&(host.index, host.life));
        let mut takers: BTreeMap<u16, &ServiceKey> = BTreeMap::new();
        for (key, service) in &engine.desired().services {
            let ports = service.spec.ports.iter();
            for port in ports.filter(|p| p.publish_mode == PublishMode::Ingress) {
                let other = port.published.and_then(|p| takers.insert(p, key));
                if let Some(other) = other.filter(|_| !told) {
                    let index = host.index;
                    wrong.push(format!(
                        "n{index} keeps quiet: {key} and {other} share a port"
                    ));
                }
            }
        }
    }
    wrong
}

/// I1: every wanted slot runs once, or nobody has room for it; nothing else runs.
fn exactly_once(world: &World) -> Vec<String> {
    let Some(engine) = world.hosts.iter().find_map(|h| h.engine.as_ref()) else {
        return Vec::new();
    };
    let mut running: BTreeMap<SlotId, Vec<usize>> = BTreeMap::new();
    for host in world.hosts.iter().filter(|h| h.is_up()) {
        for slot in host.runtime.running() {
            running.entry(slot.clone()).or_default().push(host.index);
        }
    }
    let answering = answering(world, None);
    let mut wrong = Vec::new();
    for (key, service) in &engine.desired().services {
        if let Some(run) = &service.jobs.run {
            // How often its parts run is looked at when they start.
            if run.result.is_none() {
                running.retain(|slot, _| slot.service != *key);
            }
            continue;
        }
        if super::hooks::is_held(service) {
            // What there was before goes on, if there was anything.
            running.retain(|slot, _| slot.service != *key);
            continue;
        }
        for slot in wanted(world, key, service) {
            let hosts = running.remove(&slot).unwrap_or_default();
            let fine = match hosts.as_slice() {
                [] => {
                    !can_run(&service.spec.image)
                        || !slot_has_room(world, service, &slot)
                            && !could_drive_out(world, service, &slot)
                }
                [only] => answering.contains(&slot) && may_stay(world, *only, service, &slot),
                [_, ..] => false,
            };
            if !fine {
                wrong.push(format!("I1: {slot} runs on {hosts:?}"));
            }
        }
    }
    let strays = running.iter();
    wrong.extend(strays.map(|(slot, hosts)| format!("I1: {slot} still runs on {hosts:?}")));
    wrong
}

fn wanted(world: &World, key: &ServiceKey, service: &Service) -> Vec<SlotId> {
    let slots: Vec<Slot> = match service.spec.mode {
        Mode::Replicated => (0..service.wanted_replicas()).map(Slot::Replica).collect(),
        Mode::Global if !service.running => Vec::new(),
        Mode::Global => {
            let hosts = world.hosts.iter().filter(|h| is_active(world, h));
            hosts.map(|h| Slot::Node(h.id)).collect()
        }
    };
    let slot = |slot| SlotId {
        service: key.clone(),
        slot,
    };
    slots.into_iter().map(slot).collect()
}

pub(super) fn availability(world: &World, host: &Host) -> Availability {
    let engine = world.hosts.iter().find_map(|h| h.engine.as_ref());
    let intent = engine.and_then(|e| e.desired().nodes.get(&host.id));
    intent.map_or(Availability::default(), |n| n.availability)
}

pub(super) fn is_active(world: &World, host: &Host) -> bool {
    host.is_up() && availability(world, host) == Availability::Active
}

/// A replica stays on a drained node only while nobody else has room.
fn may_stay(world: &World, host: usize, service: &Service, slot: &SlotId) -> bool {
    let drained = availability(world, &world.hosts[host]) == Availability::Drained;
    !drained || !has_room(world, service, &slot.service)
}

fn slot_has_room(world: &World, service: &Service, slot: &SlotId) -> bool {
    match slot.slot {
        Slot::Replica(_) => {
            let key = &slot.service;
            let mut hosts = world.hosts.iter();
            hosts.any(|h| takes(world, h, service, key) && volumes::admits(world, h, service, slot))
        }
        Slot::Node(node) => world
            .host_of(node)
            .is_some_and(|at| fits(&world.hosts[at], service, &slot.service)),
    }
}

/// Whether replicas that are worth less are in the way.
fn could_drive_out(world: &World, service: &Service, slot: &SlotId) -> bool {
    match slot.slot {
        Slot::Replica(_) => super::ranks::could_drive_out(world, service, &slot.service),
        Slot::Node(_) => false,
    }
}

/// Whether some node could take one more replica.
pub(super) fn has_room(world: &World, service: &Service, key: &ServiceKey) -> bool {
    let mut hosts = world.hosts.iter();
    hosts.any(|h| takes(world, h, service, key))
}

fn takes(world: &World, host: &Host, service: &Service, key: &ServiceKey) -> bool {
    is_active(world, host)
        && fits(host, service, key)
        && super::evenness::allows(world, host, service, key)
}

/// Judged by what the node itself reports, in fewer words than the daemon does it.
pub(super) fn fits(host: &Host, service: &Service, key: &ServiceKey) -> bool {
    fits_beside(host, service, key, |_| true)
}

/// The same, beside those claims alone that stay.
pub(super) fn fits_beside(
    host: &Host,
    service: &Service,
    key: &ServiceKey,
    stays: impl Fn(&Claim) -> bool + Copy,
) -> bool {
    let spec = &service.spec;
    let report = host.engine.as_ref().and_then(|e| e.register(host.id));
    let Some(report) = report.map(|r| &r.report) else {
        return false;
    };
    let matches = super::placed::matches(host, spec);
    let claims = report.claims.iter().filter(|c| stays(c));
    let taken = claims
        .clone()
        .fold(Resources::ZERO, |sum, c| sum.plus(c.resources));
    let room = taken.plus(spec.reservation).fits_in(report.capacity);
    let mut ports: BTreeSet<HostPort> = BTreeSet::new();
    ports.extend(claims.clone().flat_map(|c| c.host_ports.iter().copied()));
    let free = spec.host_ports().all(|port| !ports.contains(&port));
    let here = claims.clone().filter(|c| c.slot.service == *key).count();
    let below = spec
        .placement
        .max_per_node
        .is_none_or(|max| here < max as usize);
    let services = host.engine.as_ref().map(|e| &e.desired().services);
    let meets = claims.clone().any(|c| {
        let other = &c.slot.service;
        let theirs = services.and_then(|s| s.get(other));
        spec.placement.anti_affinity.contains(other)
            || theirs.is_some_and(|s| s.spec.placement.anti_affinity.contains(key))
    });
    let follows = |other: &ServiceKey| claims.clone().any(|c| c.slot.service == *other);
    let followed = spec.placement.affinity.iter().all(follows);
    matches && room && free && below && !meets && followed
}

/// I6, the other way round: at rest, every node offers all that answers and nothing else.
fn routes_are_whole(world: &World) -> Vec<String> {
    let mut truth: BTreeSet<(SlotId, NodeId)> = BTreeSet::new();
    for host in world.hosts.iter().filter(|h| h.is_up()) {
        let slots = host.runtime.answering(world.now);
        let lasting = slots.filter(|(id, _)| RunId::of_service(&id.slot.service).is_none());
        truth.extend(lasting.map(|(id, _)| (id.slot.clone(), host.id)));
    }
    let mut wrong = Vec::new();
    for host in world.hosts.iter() {
        let Some(engine) = &host.engine else { continue };
        let mut offered = BTreeSet::new();
        for (service, route) in engine.route_table().services {
            for backend in route.backends {
                let service = service.clone();
                let slot = SlotId {
                    service,
                    slot: backend.slot,
                };
                offered.insert((slot, backend.node));
            }
        }
        let index = host.index;
        let missing = truth.difference(&offered);
        wrong.extend(missing.map(|(slot, _)| format!("I6: n{index} does not offer {slot}")));
        let extra = offered.difference(&truth);
        wrong.extend(extra.map(|(slot, _)| format!("I6: n{index} offers {slot}, which is dead")));
    }
    wrong
}
