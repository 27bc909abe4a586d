//! Rollouts, against the truth: how many answer, and how many a bad specification replaces.

use std::collections::BTreeSet;

use dunlin_state::model::{Mode, ServiceKey, Slot, SlotId, UpdateOrder};

use super::times::answering;
use crate::sim::workload::{Variety, can_run};
use crate::sim::world::World;

/// Whether nobody has heard yet that it stops: who has stops its replicas at once.
fn is_wanted_by_all(world: &World, key: &ServiceKey) -> bool {
    let mut engines = world.hosts.iter().filter_map(|h| h.engine.as_ref());
    engines.all(|engine| {
        let service = engine.desired().services.get(key);
        service.is_some_and(|service| service.running)
    })
}

/// Looks at every service that was whole once: no update may take more from it than its policy
/// allows. Only where nothing else goes wrong.
pub(in crate::sim) fn rollouts(world: &mut World) {
    // Who makes way for others, or has little to do, is away for more than its own updates.
    let other = matches!(world.ops.variety, Variety::Ranked | Variety::Following);
    if !world.watch.gentle || other {
        return;
    }
    let Some(engine) = world.hosts.iter().find_map(|h| h.engine.as_ref()) else {
        return;
    };
    let answering = answering(world, None);
    let mut whole = Vec::new();
    let mut broken = Vec::new();
    for (key, service) in &engine.desired().services {
        if service.spec.mode == Mode::Global || !is_wanted_by_all(world, key) {
            continue;
        }
        let wanted = service.wanted_replicas();
        let slots: BTreeSet<SlotId> = (0..wanted)
            .map(|index| SlotId {
                service: key.clone(),
                slot: Slot::Replica(index),
            })
            .collect();
        let up = slots.intersection(&answering).count();
        if up == slots.len() {
            whole.push((key.clone(), wanted));
            continue;
        }
        // Scaled up since: the new slots are still being filled.
        if world.watch.whole.get(key).is_none_or(|size| *size < wanted) {
            continue;
        }
        let at_once = match service.update().order {
            UpdateOrder::StopFirst => service.update().parallelism as usize,
            UpdateOrder::StartFirst => 0,
        };
        if up + at_once < slots.len() {
            let bad = if can_run(&service.spec.image) {
                ""
            } else {
                " by a bad specification"
            };
            broken.push(format!(
                "rollout: {up} of {wanted} slots of {key} answer{bad}, {at_once} may be away"
            ));
        }
    }
    world.watch.whole.extend(whole);
    broken.into_iter().for_each(|b| world.violation(b));
}
