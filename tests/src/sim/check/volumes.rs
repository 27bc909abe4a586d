//! A slot with a volume never runs where its data is not, unless there was none anywhere.
//!
//! What data truly exists is on the simulated hosts and outlives everything. Two rules: a node never
//! begins with an empty volume of which it knows another copy; and of a volume that was made before
//! any trouble began, nobody ever makes a second one, whatever he knows.

use std::collections::BTreeSet;

use dunlin_core::io::Workload;
use dunlin_state::desired::Service;
use dunlin_state::model::{SlotId, VolumeId};

use crate::sim::node::Host;
use crate::sim::scenario::QUIET_UNTIL;
use crate::sim::world::World;

/// A replica is about to be started: is its data here?
pub(in crate::sim) fn start_has_its_data(world: &mut World, host: usize, workload: &Workload) {
    let slot = &workload.id.slot;
    let h = &world.hosts[host];
    let mut broken = Vec::new();
    for volume in workload.spec.volumes.iter().filter_map(|m| m.pinning(slot)) {
        if h.runtime.data_since(&volume).is_some() {
            continue;
        }
        let mut others = world.hosts.iter().filter(|other| other.index != host);
        let old = others.find(|other| {
            let since = other.runtime.data_since(&volume);
            since.is_some_and(|since| since < QUIET_UNTIL)
        });
        if let Some(old) = old {
            let at = old.index;
            broken.push(format!("without the data of {volume}, which is on n{at}"));
        }
        if knows_elsewhere(h, &volume) {
            broken.push(format!(
                "without the data of {volume}, and knows where it is"
            ));
        }
    }
    for volume in &workload.volumes {
        if h.runtime.data_since(volume).is_none() {
            broken.push(format!("with {volume}, of which it never had data"));
        }
    }
    for what in broken {
        world.violation(format!("n{host} starts {slot} {what}"));
    }
}

fn knows_elsewhere(host: &Host, volume: &VolumeId) -> bool {
    let copies = host.engine.as_ref().map(|e| e.volumes());
    let mut copies = copies.into_iter().flatten();
    copies.any(|copy| copy.held.volume == *volume && copy.node != host.id && copy.held.used)
}

/// Whether a host may run a slot as far as data goes, by what all nodes agree on at rest.
pub(super) fn admits(world: &World, host: &Host, service: &Service, slot: &SlotId) -> bool {
    let (_, spec) = service.target(slot.slot);
    let pinned: BTreeSet<VolumeId> = spec
        .volumes
        .iter()
        .filter_map(|m| m.pinning(slot))
        .collect();
    let Some(engine) = world.hosts.iter().find_map(|h| h.engine.as_ref()) else {
        return false;
    };
    let copies = engine.volumes();
    let mut counting = copies.iter().filter(|copy| copy.counts);
    counting.all(|copy| !pinned.contains(&copy.held.volume) || copy.node == host.id)
}
