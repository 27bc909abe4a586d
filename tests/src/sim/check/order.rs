//! Nothing is started before what it depends on was there.

use std::collections::BTreeSet;

use dunlin_core::io::Workload;
use dunlin_state::model::{Condition, NodeReport, Phase, ServiceKey};

use crate::sim::world::World;

/// Remembers whose replicas were ready.
pub(super) fn note_ready(readied: &mut BTreeSet<ServiceKey>, report: &NodeReport) {
    let ready = report
        .claims
        .iter()
        .filter(|c| c.ready && c.phase == Phase::Running);
    for claim in ready {
        if !readied.contains(&claim.slot.service) {
            readied.insert(claim.slot.service.clone());
        }
    }
}

/// No start comes before each dependency was there once. When they fail later, nothing of it
/// matters any more.
pub(in crate::sim) fn start_is_in_order(world: &mut World, host: usize, workload: &Workload) {
    let watch = &world.watch;
    let was_there = |service: &ServiceKey, condition: Condition| match condition {
        Condition::ServiceStarted => watch.started.keys().any(|slot| slot.service == *service),
        Condition::ServiceHealthy => watch.readied.contains(service),
        Condition::ServiceCompletedSuccessfully | Condition::ServiceRolledOut => true,
    };
    let missing = workload
        .spec
        .depends_on
        .iter()
        .find(|d| d.required && !was_there(&d.service, d.condition));
    if let Some(missing) = missing {
        let text = format!(
            "n{host} starts {}, and {} was never seen {}",
            workload.id.slot, missing.service, missing.condition
        );
        world.violation(text);
    }
}
