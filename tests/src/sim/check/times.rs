//! How long it takes until a crash is noticed, lost slots are back, and routes are right.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_gossip::membership::MemberState;
use dunlin_state::model::{NodeId, Phase, Slot, SlotId};

use crate::sim::scenario::OBSERVE_EVERY;
use crate::sim::workload::Variety;
use crate::sim::world::{SECOND, World};

/// A lost slot answers again within so many microseconds, where nothing but crashes goes wrong.
const REPLACED_WITHIN: u64 = 12 * SECOND;
/// A route to a replica that does not answer is gone after so many microseconds.
const ROUTES_WITHIN: u64 = 5 * SECOND;
/// Routes are looked at so rarely, because that takes long.
const LOOK_AT_ROUTES: u64 = SECOND / 4;
/// With fewer daemons than this, nothing is promised.
const MIN_UP: usize = 3;

/// A host has gone down: who will notice, and who takes over?
pub(in crate::sim) fn watch_crash(world: &mut World, host: usize, with_workloads: bool) {
    let node = world.hosts[host].id;
    world.watch.crashed.insert(node, world.now);
    if !with_workloads {
        return;
    }
    let held: BTreeSet<SlotId> = world.hosts[host]
        .runtime
        .answering(world.now)
        .map(|(id, _)| id.slot.clone())
        .collect();
    let elsewhere = answering(world, Some(host));
    // The place of a daemon service on a dead host is nobody else's.
    let moves = |slot: &&SlotId| matches!(slot.slot, Slot::Replica(_));
    for slot in held.difference(&elsewhere).filter(moves) {
        world.watch.lost.entry(slot.clone()).or_insert(world.now);
    }
}

/// A host is back, or a fault makes measuring meaningless.
pub(in crate::sim) fn forget_crash(world: &mut World, host: usize) {
    let node = world.hosts[host].id;
    world.watch.crashed.remove(&node);
}

/// Slots are no longer expected soon: the network is cut, or people have changed their minds.
pub(in crate::sim) fn forget_lost(world: &mut World) {
    world.watch.lost.clear();
    world.watch.crashed.clear();
}

/// Looks who has noticed what.
pub(in crate::sim) fn observe(world: &mut World) {
    super::strict::singletons(world);
    if world.ops.variety == Variety::Mixed {
        super::isolation::isolation(world);
    }
    let now = world.now;
    let believed = |world: &World, node: NodeId| {
        world
            .hosts
            .iter()
            .filter_map(|h| h.engine.as_ref())
            .any(|engine| {
                engine.members().iter().any(|m| {
                    m.id.node == node
                        && matches!(m.state, MemberState::Alive | MemberState::Suspect)
                })
            })
    };
    let noticed: Vec<NodeId> = world
        .watch
        .crashed
        .keys()
        .copied()
        .filter(|node| !believed(world, *node))
        .collect();
    for node in noticed {
        if let Some(at) = world.watch.crashed.remove(&node) {
            world.outcome.detection.push(now - at);
        }
    }
    if !world.watch.lost.is_empty() {
        let answering = answering(world, None);
        let mut replaced = Vec::new();
        world.watch.lost.retain(|slot, at| {
            let back = answering.contains(slot);
            if back {
                replaced.push(now - *at);
            }
            !back
        });
        world.outcome.replacement.extend(replaced);
    }
    overdue(world);
    super::rollouts(world);
    if now % LOOK_AT_ROUTES < OBSERVE_EVERY {
        routes(world);
        dead_routes(world);
    }
}

/// Slots that were lost and nobody has taken over in good time.
fn overdue(world: &mut World) {
    let up = world.hosts.iter().filter(|h| h.is_up()).count();
    if !world.watch.fair || !world.watch.epochs_are_kept || up < MIN_UP {
        return;
    }
    let now = world.now;
    let late: Vec<SlotId> = world
        .watch
        .lost
        .iter()
        .filter(|(_, at)| **at + REPLACED_WITHIN < now)
        .map(|(slot, _)| slot.clone())
        .collect();
    for slot in late {
        world.watch.lost.remove(&slot);
        if is_wanted_and_able(world, &slot) {
            world.violation(format!("I1: {slot} was lost and is not back"));
        }
    }
}

fn is_wanted_and_able(world: &World, slot: &SlotId) -> bool {
    let Some(engine) = world.hosts.iter().find_map(|h| h.engine.as_ref()) else {
        return false;
    };
    let service = engine.desired().services.get(&slot.service);
    service.is_some_and(|service| match slot.slot {
        Slot::Replica(index) => {
            index < service.wanted_replicas()
                && super::rest::has_room(world, service, &slot.service)
        }
        Slot::Node(_) => false,
    })
}

/// I6 against the truth: routes to what does not answer end soon.
fn dead_routes(world: &mut World) {
    let mut stale = BTreeMap::new();
    for host in world
        .hosts
        .iter()
        .filter(|h| h.started_at + ROUTES_WITHIN <= world.now)
    {
        let Some(engine) = &host.engine else { continue };
        for (service, route) in &engine.route_table().services {
            for backend in &route.backends {
                let slot = SlotId {
                    service: service.clone(),
                    slot: backend.slot,
                };
                let there = world.host_of(backend.node).map(|at| &world.hosts[at]);
                let fine =
                    there.is_some_and(|h| h.runtime.answering_since(&slot, world.now).is_some());
                if !fine {
                    let key = (host.index, slot, backend.node);
                    let since = world.watch.stale.get(&key).copied();
                    stale.insert(key, since.unwrap_or(world.now));
                }
            }
        }
    }
    let late: Vec<String> = stale
        .iter()
        .filter(|(_, since)| **since + ROUTES_WITHIN < world.now)
        .map(|((host, slot, _), _)| format!("I6: n{host} still offers {slot}, which is dead"))
        .collect();
    world.watch.stale = stale;
    if world.watch.fair {
        late.into_iter().for_each(|l| world.violation(l));
    }
}

/// I6: nobody is offered a replica that the node knows not to be ready.
fn routes(world: &mut World) {
    let mut broken = Vec::new();
    for host in &world.hosts {
        let Some(engine) = host.engine.as_ref() else {
            continue;
        };
        let table = engine.route_table();
        for (service, route) in &table.services {
            for backend in &route.backends {
                let register = engine.register(backend.node);
                let fine = register.is_some_and(|r| {
                    r.report.claims.iter().any(|c| {
                        c.slot.service == *service
                            && c.slot.slot == backend.slot
                            && c.ready
                            && c.phase == Phase::Running
                    })
                });
                let down = engine
                    .members()
                    .iter()
                    .any(|m| m.id.node == backend.node && m.state != MemberState::Alive);
                if !fine || down {
                    broken.push(format!(
                        "I6: n{} offers {service}.{}",
                        host.index, backend.slot
                    ));
                }
            }
        }
    }
    broken.into_iter().for_each(|b| world.violation(b));
}

/// Slots that answer somewhere, on hosts whose daemon runs.
pub(in crate::sim) fn answering(world: &World, except: Option<usize>) -> BTreeSet<SlotId> {
    world
        .hosts
        .iter()
        .filter(|h| h.is_up() && Some(h.index) != except)
        .flat_map(|h| {
            h.runtime
                .answering(world.now)
                .map(|(id, _)| id.slot.clone())
        })
        .collect()
}
