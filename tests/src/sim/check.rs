//! The rules, checked while the cluster runs and after it has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_core::io::WorkloadId;
use dunlin_gossip::membership::MemberState;
use dunlin_state::model::{
    Availability, HostPort, NodeId, NodeRegister, Phase, Resources, Slot, SlotId, beats,
};

use super::workload::can_run;
use super::world::World;

/// What is being waited for.
#[derive(Debug, Default)]
pub struct Watch {
    /// Crashed nodes that somebody still believes in, with the time of the crash.
    crashed: BTreeMap<NodeId, u64>,
    /// Slots that were lost in a crash, with its time.
    lost: BTreeMap<SlotId, u64>,
    /// Whether a replica that moves is a fault: nothing has died.
    pub(super) nothing_may_move: bool,
}

/// I4: what a node has promised fits into what it has.
pub(super) fn capacity(world: &mut World, host: usize) {
    let h = &world.hosts[host];
    let Some(register) = h.engine.as_ref().and_then(|e| e.register(h.id)) else {
        return;
    };
    let report = &register.report;
    let sum = report
        .claims
        .iter()
        .fold(Resources::ZERO, |sum, c| sum.plus(c.resources));
    let mut ports: BTreeSet<HostPort> = BTreeSet::new();
    let twice = report
        .claims
        .iter()
        .flat_map(|c| &c.host_ports)
        .find(|p| !ports.insert(**p));
    let slots: BTreeSet<&SlotId> = report.claims.iter().map(|c| &c.slot).collect();
    let mut broken = Vec::new();
    if !sum.fits_in(report.capacity) {
        broken.push(format!(
            "I4: n{host} has promised {sum:?} of {:?}",
            report.capacity
        ));
    }
    if let Some(port) = twice {
        broken.push(format!("I4: n{host} has promised port {} twice", port.port));
    }
    if slots.len() != report.claims.len() {
        broken.push(format!("n{host} claims a slot twice"));
    }
    broken.into_iter().for_each(|b| world.violation(b));
}

/// I2: a running replica is stopped for a reason that the node can show.
pub(super) fn stop_is_justified(
    world: &mut World,
    host: usize,
    id: &WorkloadId,
    before: Option<&Arc<NodeRegister>>,
) {
    let was_serving = before.is_some_and(|register| {
        register.report.claims.iter().any(|c| {
            c.slot == id.slot && c.epoch == id.epoch && c.ready && c.phase == Phase::Running
        })
    });
    let truly_answers = world.hosts[host]
        .runtime
        .answering(world.now)
        .any(|(w, _)| w == id);
    if was_serving && truly_answers && !justified(world, host, id, before) {
        world.violation(format!(
            "I2: n{host} stops {} epoch {} for no reason",
            id.slot, id.epoch
        ));
    }
}

fn justified(
    world: &World,
    host: usize,
    id: &WorkloadId,
    before: Option<&Arc<NodeRegister>>,
) -> bool {
    let h = &world.hosts[host];
    let (Some(engine), Some(before)) = (h.engine.as_ref(), before) else {
        return true;
    };
    let desired = engine.desired();
    let Some(service) = desired.services.get(&id.slot.service) else {
        return true;
    };
    let wanted = match id.slot.slot {
        Slot::Replica(index) => index < service.wanted_replicas(),
        Slot::Node(node) => node == h.id && service.running,
    };
    let Some(own) = before.report.claims.iter().find(|c| c.slot == id.slot) else {
        return true;
    };
    let drained = desired
        .nodes
        .get(&h.id)
        .is_some_and(|n| n.availability == Availability::Drained);
    let beaten = engine.observed().filter(|r| r.node != h.id).any(|r| {
        r.report.claims.iter().any(|c| {
            c.slot == id.slot
                && c.ready
                && c.phase == Phase::Running
                && beats((&r.node, c), (&h.id, own)).is_gt()
        })
    });
    !wanted || own.revision != service.revision || drained || beaten
}

/// A host has gone down: who will notice, and who takes over?
pub(super) fn watch_crash(world: &mut World, host: usize, with_workloads: bool) {
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
    for slot in held.difference(&elsewhere) {
        world.watch.lost.insert(slot.clone(), world.now);
    }
}

/// A host is back, or a fault makes measuring meaningless.
pub(super) fn forget_crash(world: &mut World, host: usize) {
    let node = world.hosts[host].id;
    world.watch.crashed.remove(&node);
}

/// Slots are no longer expected soon: the network is cut, or people have changed their minds.
pub(super) fn forget_lost(world: &mut World) {
    world.watch.lost.clear();
    world.watch.crashed.clear();
}

/// Looks who has noticed what.
pub(super) fn observe(world: &mut World) {
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
    routes(world);
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
fn answering(world: &World, except: Option<usize>) -> BTreeSet<SlotId> {
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

/// I1 and I7, after the faults have ended: what is still wrong.
pub(super) fn at_rest(world: &World) -> Vec<String> {
    let mut wrong = same_views(world);
    wrong.extend(nothing_lost(world));
    wrong.extend(exactly_once(world));
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
        if a.desired() != b.desired() {
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

fn nothing_lost(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    for host in &world.hosts {
        let Some(engine) = &host.engine else { continue };
        let desired = engine.desired();
        for service in &world.ops.created {
            if !desired.services.contains_key(service) {
                wrong.push(format!("I7: n{} has lost {service}", host.index));
            }
        }
        for (service, accepted) in &world.ops.images {
            let image = desired.services.get(service).map(|s| s.spec.image.clone());
            let known = image.as_ref().is_none_or(|i| accepted.contains(i));
            if !known && !world.ops.unanswered {
                wrong.push(format!(
                    "I7: n{} has made up {image:?} for {service}",
                    host.index
                ));
            }
        }
    }
    wrong
}

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
        let able = can_run(&service.spec.image);
        for index in 0..service.wanted_replicas() {
            let slot = SlotId {
                service: key.clone(),
                slot: Slot::Replica(index),
            };
            let hosts = running.remove(&slot).unwrap_or_default();
            let fine = if able {
                hosts.len() == 1 && answering.contains(&slot)
            } else {
                true
            };
            if !fine {
                wrong.push(format!("I1: {slot} runs on {hosts:?}"));
            }
        }
    }
    wrong.extend(
        running
            .iter()
            .map(|(slot, hosts)| format!("I1: {slot} still runs on {hosts:?}")),
    );
    wrong
}
