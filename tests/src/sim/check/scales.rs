//! Services that follow their load: within their bounds, never down on what nobody knows, without
//! flapping, and in the end as many as the load needs.

use dunlin_core::liveness::Standing;
use dunlin_state::model::{ScaleStamp, ServiceKey};

use crate::sim::load::TARGET;
use crate::sim::world::World;

/// Changes of a number that a steady load may cause once all faults have ended: down to what two
/// sides of a partition had added up to, and back for what was not known then.
const SETTLING: u32 = 3;

/// What a host has said and acted on last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Last {
    replicas: u32,
    stamp: Option<ScaleStamp>,
}

/// A host has acted: looks at what it wants and what it has decided.
pub(in crate::sim) fn scales(world: &mut World, host: usize) {
    let h = &world.hosts[host];
    let Some(engine) = h.engine.as_ref() else {
        return;
    };
    let mut broken = Vec::new();
    let mut seen = Vec::new();
    for key in engine.followed() {
        let Some(service) = engine.desired().services.get(key) else {
            continue;
        };
        let Some(policy) = service.spec.autoscale.as_deref() else {
            continue;
        };
        let replicas = service.replicas;
        if policy.clamp(replicas) != replicas {
            broken.push(format!("scale: n{host} wants {replicas} replicas of {key}"));
        }
        let own = engine.register(h.id).and_then(|r| r.report.scales.get(key));
        let own = own.filter(|own| own.stamp.author == h.id);
        let before = world.watch.scaled.get(&(host, key.clone())).copied();
        let before = before.unwrap_or(Last {
            replicas,
            stamp: None,
        });
        if let Some(own) = own.filter(|own| Some(own.stamp) > before.stamp) {
            let unknown = engine
                .members()
                .into_iter()
                .any(|member| member.standing == Standing::Suspect);
            if own.replicas < before.replicas && unknown {
                broken.push(format!(
                    "scale: n{host} takes replicas of {key} away, and suspects others"
                ));
            }
            if own.replicas != before.replicas && world.watch.steady {
                let changes = world.watch.rescaled.entry(key.clone()).or_default();
                *changes += 1;
                if *changes > SETTLING {
                    broken.push(format!("scale: {key} flaps under a steady load"));
                }
            }
        }
        let stamp = own.map(|own| own.stamp).max(before.stamp);
        seen.push(((host, key.clone()), Last { replicas, stamp }));
    }
    world.watch.scaled.extend(seen);
    broken.into_iter().for_each(|b| world.violation(b));
}

/// At rest every service that follows its load has as many replicas as that needs.
pub(super) fn loads_are_followed(world: &World) -> Vec<String> {
    let Some(engine) = world.hosts.iter().find_map(|h| h.engine.as_ref()) else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for key in engine.followed() {
        let Some(service) = engine.desired().services.get(key) else {
            continue;
        };
        if !fits_load(
            world,
            key,
            service.replicas,
            service.spec.autoscale.as_deref(),
        ) {
            let connections = world.loads.of(key);
            wrong.push(format!(
                "scale: {key} has {} replicas for {connections} connections",
                service.replicas
            ));
        }
    }
    wrong
}

/// Whether a number is within a step of what the load needs: what is told is coarse, and a tenth
/// more or less changes nothing.
fn fits_load(
    world: &World,
    key: &ServiceKey,
    replicas: u32,
    policy: Option<&dunlin_state::model::Autoscale>,
) -> bool {
    let Some(policy) = policy else { return true };
    let connections = world.loads.of(key);
    if connections == 0 {
        return replicas == policy.min;
    }
    let enough = |thousandths: u64| {
        let needed = (connections * thousandths).div_ceil(TARGET * 1_000);
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        policy.clamp(needed.max(1))
    };
    (enough(800)..=enough(1_250)).contains(&replicas)
}
