//! I5: of what must never run twice there are never two.

use std::collections::BTreeMap;

use dunlin_core::io::Input;
use dunlin_state::model::SlotId;

use crate::sim::workload::Variety;
use crate::sim::world::World;

/// Lets runtimes kill what has outlived its lease, and counts what is left.
pub(super) fn singletons(world: &mut World) {
    if world.ops.variety != Variety::Strict {
        return;
    }
    let now = world.now;
    for host in 0..world.hosts.len() {
        for event in world.hosts[host].runtime.end_leases(now) {
            world.tell(host, Input::Runtime(event));
        }
    }
    let mut alive: BTreeMap<SlotId, Vec<usize>> = BTreeMap::new();
    for host in &world.hosts {
        for id in host.runtime.alive(now) {
            alive.entry(id.slot.clone()).or_default().push(host.index);
        }
    }
    let twice = alive.into_iter().filter(|(_, hosts)| hosts.len() > 1);
    let broken: Vec<String> = twice
        .map(|(slot, hosts)| format!("I5: {slot} runs on {hosts:?}"))
        .collect();
    broken.into_iter().for_each(|b| world.violation(b));
}
