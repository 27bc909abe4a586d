//! Replicas that are to be even over the zones of their hosts, counted by what truly runs.

use std::collections::BTreeMap;

use dunlin_state::desired::Service;
use dunlin_state::model::{ServiceKey, Slot};

use super::rest::is_active;
use crate::sim::node::Host;
use crate::sim::world::World;

/// By how many replicas zones may differ, where a service says so.
fn max_skew(service: &Service) -> Option<u32> {
    let mut rules = service.spec.placement.spread.iter();
    rules.find(|rule| rule.key == "node.labels.zone")?.max_skew
}

/// Slots of a service that run, by zone; zones in which no host takes anything are left out.
fn zones(world: &World, key: &ServiceKey) -> BTreeMap<String, Vec<Slot>> {
    let mut zones: BTreeMap<String, Vec<Slot>> = BTreeMap::new();
    for host in world.hosts.iter().filter(|h| is_active(world, h)) {
        zones.entry(host.zone()).or_default();
    }
    for host in world.hosts.iter().filter(|h| h.is_up()) {
        let running = host.runtime.running().filter(|slot| slot.service == *key);
        if let Some(slots) = zones.get_mut(&host.zone()) {
            slots.extend(running.map(|slot| slot.slot));
        }
    }
    zones
}

/// Whether one more replica on a host would be even enough.
pub(super) fn allows(world: &World, host: &Host, service: &Service, key: &ServiceKey) -> bool {
    let Some(max) = max_skew(service) else {
        return true;
    };
    let zones = zones(world, key);
    let fewest = zones.values().map(Vec::len).min().unwrap_or(0);
    let here = zones.get(&host.zone()).map_or(0, Vec::len);
    here < fewest + max as usize
}

/// Services that are less even than they ask for. Only where no host comes or goes: replicas that
/// run are not moved for this.
pub(super) fn uneven(world: &World) -> Vec<String> {
    let engine = world.hosts.iter().find_map(|h| h.engine.as_ref());
    let Some(engine) = engine.filter(|_| world.watch.spreads) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for (key, service) in &engine.desired().services {
        let Some(max) = max_skew(service) else {
            continue;
        };
        let zones = zones(world, key);
        let counts: Vec<usize> = zones.values().map(Vec::len).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        if most > least.map(|least| least + max as usize).as_ref() {
            wrong.push(format!(
                "{key} has {counts:?} in the zones, which may differ by {max}"
            ));
        }
    }
    wrong
}
