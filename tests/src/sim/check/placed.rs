//! Where replicas are started: conditions of their services, judged against the hosts themselves
//! and in other words than the daemon's.

use std::collections::BTreeSet;

use dunlin_core::io::Workload;
use dunlin_state::model::{
    Availability, Claim, Constraint, ConstraintOp, HostPort, Mode, ServiceKey, ServiceSpec, Slot,
    SlotId,
};

use super::{rest, starts};
use crate::sim::node::Host;
use crate::sim::workload::SMALL_NUMBERS;
use crate::sim::world::World;

/// A slot is started here for the first time under its claim: may it?
pub(in crate::sim) fn start_is_allowed(world: &mut World, host: usize, workload: &Workload) {
    let id = &workload.id;
    if id.attempt > 0 {
        return;
    }
    // An update starts anew what was awarded long ago, when other nodes held other things.
    let award = (id.slot.clone(), id.epoch, host);
    let fresh = world.watch.awards.insert(award);
    let mut broken = Vec::new();
    let h = &world.hosts[host];
    if !matches(h, &workload.spec) {
        broken.push("its constraints do not hold there".to_owned());
    }
    broken.extend(crowd(h, workload));
    broken.extend(company(h, workload));
    broken.extend(ports(h, workload));
    broken.extend(mode(h, workload));
    if fresh && world.watch.spreads && could_have_spread(world, host, workload) {
        broken.push("another replica runs there, and other nodes have none".to_owned());
    }
    if fresh && world.watch.spreads {
        broken.extend(follows(h, workload));
    }
    for what in broken {
        world.violation(format!("n{host} starts {}: {what}", id.slot));
    }
}

/// Whether all constraints of a service hold on a host.
pub(super) fn matches(host: &Host, spec: &ServiceSpec) -> bool {
    let constraints = &spec.placement.constraints;
    constraints.iter().all(|c| holds(host, c))
}

/// Knows what simulated people ask for; anything else does not hold, which somebody will notice.
fn holds(host: &Host, constraint: &Constraint) -> bool {
    let value = constraint.value();
    match (constraint.key(), constraint.op()) {
        ("node.labels.zone", ConstraintOp::Equal) => host.zone() == value,
        ("node.labels.zone", ConstraintOp::NotEqual) => host.zone() != value,
        ("node.labels.zone", ConstraintOp::In) => value.split(", ").any(|v| host.zone() == v),
        ("node.labels.zone", ConstraintOp::NotIn) => value.split(", ").all(|v| host.zone() != v),
        ("node.hostname", ConstraintOp::Matches) => value == SMALL_NUMBERS && host.index < 5,
        ("node.kernel", ConstraintOp::AtLeast) => {
            let patch = value
                .strip_prefix("6.1.")
                .and_then(|p| p.parse::<usize>().ok());
            patch.is_some_and(|patch| host.kernel_patch() >= patch)
        }
        _ => false,
    }
}

/// At most so many replicas of the service, this one included. Slots beyond the scale that the node
/// knows of are about to stop.
fn crowd(host: &Host, workload: &Workload) -> Option<String> {
    let max = workload.spec.placement.max_per_node? as usize;
    let service = &workload.id.slot.service;
    let known = host.engine.as_ref()?.desired().services.get(service)?;
    let wanted = known.wanted_replicas();
    let stays = |slot: &SlotId| match slot.slot {
        Slot::Replica(index) => slot.service == *service && index < wanted,
        Slot::Node(_) => false,
    };
    let slots = staying(host).filter(|c| stays(&c.slot)).count();
    (slots > max).then(|| format!("it holds {slots} of the service, and {max} are allowed"))
}

/// Slots that a host claims of such services.
fn held(host: &Host, of: impl Fn(&ServiceKey) -> bool) -> usize {
    staying(host).filter(|c| of(&c.slot.service)).count()
}

/// A host's claims but those that it is giving up: these are nobody's company any more. What stops
/// and is not given up starts again in its place.
fn staying(host: &Host) -> impl Iterator<Item = &Claim> {
    let register = host.engine.as_ref().and_then(|e| e.register(host.id));
    let claims = register.into_iter().flat_map(|r| &r.report.claims);
    claims.filter(|c| !c.leaving)
}

/// No service that this one refuses, and none that refuses this one.
fn company(host: &Host, workload: &Workload) -> Option<String> {
    let me = &workload.id.slot.service;
    let services = &host.engine.as_ref()?.desired().services;
    let unwanted = |other: &ServiceKey| {
        let refuses = |spec: &ServiceSpec, who| spec.placement.anti_affinity.contains(who);
        refuses(&workload.spec, other) || services.get(other).is_some_and(|s| refuses(&s.spec, me))
    };
    let other = staying(host).find(|claim| unwanted(&claim.slot.service))?;
    Some(format!("{} is there, and they shall not meet", other.slot))
}

/// Every service that this one follows is there. Only where nothing else moves: what was there at
/// the award may have left before the start.
fn follows(host: &Host, workload: &Workload) -> Option<String> {
    let there = |other: &&ServiceKey| held(host, |service| service == *other) > 0;
    let mut followed = workload.spec.placement.affinity.iter();
    let missing = followed.find(|other| !there(other))?;
    Some(format!("no replica of {missing} is there"))
}

/// The host's ports are free in truth.
fn ports(host: &Host, workload: &Workload) -> Option<String> {
    let wanted: BTreeSet<HostPort> = workload.spec.host_ports().collect();
    let others = host.runtime.host_ports(&workload.id);
    let twice = others.into_iter().find(|port| wanted.contains(port))?;
    Some(format!("port {} is in use", twice.port))
}

/// A service for every node has one slot on each, and others have numbered ones.
fn mode(host: &Host, workload: &Workload) -> Option<String> {
    let fits = match (workload.spec.mode, workload.id.slot.slot) {
        (Mode::Global, Slot::Node(node)) => node == host.id,
        (Mode::Replicated, Slot::Replica(_)) => true,
        (Mode::Global, Slot::Replica(_)) | (Mode::Replicated, Slot::Node(_)) => false,
    };
    (!fits).then(|| "the slot is not one of this node".to_owned())
}

/// Whether a replica joins another one although a node without any could take it.
fn could_have_spread(world: &World, host: usize, workload: &Workload) -> bool {
    let service = &workload.id.slot.service;
    let engine = world.hosts[host].engine.as_ref();
    let Some(known) = engine.and_then(|e| e.desired().services.get(service)) else {
        return false;
    };
    // Slots beyond the scale are about to stop.
    let wanted = known.wanted_replicas();
    let stays = |slot: &SlotId| match slot.slot {
        Slot::Replica(index) => slot.service == *service && index < wanted,
        Slot::Node(_) => false,
    };
    let claims = staying(&world.hosts[host]);
    let known_to_stay = |slot: &SlotId| !starts::was_given_up(world, host, slot);
    let mut others =
        claims.filter(|c| stays(&c.slot) && c.slot != workload.id.slot && known_to_stay(&c.slot));
    if others.next().is_none() {
        return false;
    }
    let active = |h: &&Host| rest::availability(world, h) == Availability::Active;
    let up = world.hosts.iter().filter(|h| h.is_up()).filter(active);
    let places = up.clone().filter(|h| matches(h, &known.spec)).count();
    // With fewer places than replicas, some have to share, and awards to others may be on their way.
    let mut free = up.filter(|h| held(h, |o| o == service) == 0 && rest::fits(h, known, service));
    wanted as usize <= places && free.next().is_some()
}
