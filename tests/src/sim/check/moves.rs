//! Replicas that are moved to even out hosts: never twice for the same reason, never back, one of a
//! service at a time; and what is even in the end.
//!
//! That a replica which is moved is not missed, and that its new host may run it, are rules of all
//! replicas.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_core::io::WorkloadId;
use dunlin_state::model::{Claim, Mode, ServiceKey, Slot, SlotId};

use crate::sim::node::Host;
use crate::sim::workload::Variety;
use crate::sim::world::{SECOND, World};

/// A replica that has moved by itself stays for so long, by the clocks of hosts that keep time.
const RESTS: u64 = 600 * SECOND;

/// From a node's taking a slot to the start of its replica, at most, where nothing goes wrong.
const TO_START: u64 = 5 * SECOND;

/// Of moves that nobody has asked for, so many are made in three quarters of the pace of one. Two hosts
/// may decide before they hear of each other.
const AT_A_TIME: (usize, u64) = (2, 15 * SECOND);

/// By so much the old host has to be fuller, as a share of what it has: a little less than daemons ask
/// for, since others may decide at the same time.
const LEAST_GAIN: f64 = 0.08;

/// What was moved.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Where each slot was moved from, and when.
    left: BTreeMap<SlotId, Vec<(usize, u64)>>,
    /// When its replica was last started anew.
    taken: BTreeMap<SlotId, u64>,
    /// When the latest moves were made.
    recent: Vec<u64>,
}

/// The claim of a slot on a host.
fn claim<'a>(host: &'a Host, slot: &SlotId) -> Option<&'a Claim> {
    let register = host.engine.as_ref()?.register(host.id)?;
    register.report.claims.iter().find(|c| c.slot == *slot)
}

/// Whether a start takes over from that holder.
pub(super) fn is_moved_from(world: &World, host: usize, holder: usize, id: &WorkloadId) -> bool {
    let from = claim(&world.hosts[host], &id.slot).and_then(|c| c.moved_from);
    from == Some(world.hosts[holder].id)
}

/// A replica starts; if it is one that was moved, it should have been.
pub(in crate::sim) fn move_is_worth_it(world: &mut World, host: usize, id: &WorkloadId) {
    let now = world.now;
    let taken = match id.attempt {
        0 => world.watch.moves.taken.insert(id.slot.clone(), now),
        _ => None,
    };
    let own = claim(&world.hosts[host], &id.slot);
    let from = own.filter(|_| id.attempt == 0).and_then(|c| c.moved_from);
    let Some(from) = from.and_then(|from| world.host_of(from)) else {
        return;
    };
    if claim(&world.hosts[from], &id.slot).is_none() {
        return;
    }
    world.outcome.rebalanced += 1;
    let mut broken = Vec::new();
    let (most, within) = AT_A_TIME;
    let recent = &mut world.watch.moves.recent;
    recent.retain(|at| now - at < within);
    recent.push(now);
    if recent.len() > most && world.watch.gentle {
        broken.push("is moved while many others are".to_owned());
    }
    let left = world.watch.moves.left.entry(id.slot.clone()).or_default();
    if left.iter().any(|(before, _)| *before == host) && world.watch.gentle {
        broken.push("comes back to where it was".to_owned());
    }
    let last = left.last().map(|(_, at)| *at);
    left.push((from, now));
    // Three requests and, long after the last of them, one by itself.
    if left.len() > 4 {
        broken.push(format!("is moved for the {}th time", left.len()));
    }
    if last.is_some_and(|at| now - at < RESTS) && world.watch.gentle {
        broken.push("is moved again and has not rested".to_owned());
    }
    if taken.is_some_and(|at| now - at + TO_START < RESTS) && world.watch.gentle {
        broken.push("is moved soon after its start".to_owned());
    }
    if crowds(world, from, host, &id.slot.service) {
        broken.push("comes to a host that has more of its service".to_owned());
    }
    if world.watch.gentle && !is_worth_it(world, from, host, &id.slot.service) {
        broken.push("is moved for nothing".to_owned());
    }
    let others = on_their_way(world, &id.slot);
    if others > 0 && world.watch.gentle {
        broken.push(format!(
            "is moved, and so are {others} others of its service"
        ));
    }
    for what in broken {
        world.violation(format!("n{from} to n{host}: {} {what}", id.slot));
    }
}

/// Replicas of a service on a host, but for one slot.
fn others_there(host: &Host, slot: Option<&SlotId>, service: &ServiceKey) -> usize {
    let register = host.engine.as_ref().and_then(|e| e.register(host.id));
    let claims = register.into_iter().flat_map(|r| &r.report.claims);
    let other = |c: &&Claim| c.slot.service == *service && Some(&c.slot) != slot && !c.leaving;
    claims.filter(other).count()
}

/// Whether one replica less here and one more there is a gain: of a service that has two more here, or
/// of a host that is much fuller. The replica itself is claimed on both.
fn is_worth_it(world: &World, from: usize, to: usize, service: &ServiceKey) -> bool {
    let count = |host: usize| others_there(&world.hosts[host], None, service);
    let crowded = count(from) > count(to);
    crowded || full(&world.hosts[from]) >= full(&world.hosts[to]) + LEAST_GAIN
}

/// What of a host is taken: of its eight cores, or of room for sixteen replicas.
fn full(host: &Host) -> f64 {
    let register = host.engine.as_ref().and_then(|e| e.register(host.id));
    let claims = register.into_iter().flat_map(|r| &r.report.claims);
    let (count, cpu) = claims.fold((0.0, 0.0), |(count, cpu), claim| {
        (count + 1.0, cpu + claim.resources.cpu_millis as f64)
    });
    f64::max(cpu / 8_000.0, count / 16.0)
}

/// Whether the new host has more replicas of the service than the old one keeps. Services that are
/// spread over zones may want that.
fn crowds(world: &World, from: usize, to: usize, service: &ServiceKey) -> bool {
    let engine = world.hosts[to].engine.as_ref();
    let known = engine.and_then(|e| e.desired().services.get(service));
    let spread = known.is_some_and(|s| !s.spec.placement.spread.is_empty());
    let count = |host: usize| others_there(&world.hosts[host], None, service);
    // The replica itself is claimed on both.
    !spread && world.watch.gentle && count(to) > count(from)
}

/// Other slots of the service that have two hosts because they are moved.
fn on_their_way(world: &World, slot: &SlotId) -> usize {
    let mut slots = BTreeSet::new();
    for host in &world.hosts {
        let register = host.engine.as_ref().and_then(|e| e.register(host.id));
        for claim in register.into_iter().flat_map(|r| &r.report.claims) {
            let from = claim.moved_from.and_then(|from| world.host_of(from));
            let under_way = !claim.ready
                && claim.slot.service == slot.service
                && claim.slot != *slot
                && from.is_some_and(|from| self::claim(&world.hosts[from], &claim.slot).is_some());
            if under_way {
                slots.insert(claim.slot.clone());
            }
        }
    }
    slots.len()
}

/// Services of which one host has two replicas more than another, where all fit everywhere and there
/// was time for it.
pub(super) fn uneven(world: &World) -> Vec<String> {
    let slow = world.watch.gentle && world.ops.variety == Variety::Plain;
    let engine = world.hosts.iter().find_map(|h| h.engine.as_ref());
    let Some(engine) = engine.filter(|_| slow && world.now > RESTS) else {
        return Vec::new();
    };
    let services = engine.desired().services.iter();
    let placed = services.filter(|(_, s)| s.spec.mode == Mode::Replicated);
    let mut wrong = Vec::new();
    for (key, _) in placed {
        let running = |host: &Host| {
            let slots = host.runtime.running();
            let numbered = |slot: &&SlotId| matches!(slot.slot, Slot::Replica(_));
            slots.filter(|s| s.service == *key).filter(numbered).count()
        };
        let counts: Vec<usize> = world.hosts.iter().map(running).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        if most > least.map(|least| least + 1).as_ref() {
            wrong.push(format!("{key} has {counts:?} replicas on the hosts"));
        }
    }
    wrong
}
