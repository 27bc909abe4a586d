//! What the services of a namespace may want together: nothing is accepted beyond it where one change
//! follows the other, nothing that fits is refused, nobody is stopped for it, and what is over is told.

use std::collections::BTreeMap;

use dunlin_state::desired::{Desired, Rejection};
use dunlin_state::model::{Mode, ServiceKey};

use crate::sim::workload::Variety;
use crate::sim::world::World;

/// The namespace of everything that simulated people deploy.
const NAMESPACE: &str = "default";

/// What is wanted of everything that a quota bounds, summed in other words than the daemon's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Wanted {
    cpu_millis: u64,
    replicas: u64,
    /// By service.
    scales: BTreeMap<ServiceKey, u32>,
}

/// What is asked for, as far as quotas care.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::sim) enum QuotaWish {
    /// Other bounds.
    Bounds,
    /// Another scale.
    Scale(ServiceKey, u32),
    /// Anything else.
    Other,
}

/// Whether another scale is within all bounds, or less than before.
fn fits(desired: &Desired, before: &Wanted, wish: &QuotaWish) -> bool {
    let QuotaWish::Scale(key, replicas) = wish else {
        return false;
    };
    let Some(service) = desired.services.get(key) else {
        return false;
    };
    let had = before.scales.get(key).copied().unwrap_or(0);
    let each = service.spec.reservation.cpu_millis;
    let then = Wanted {
        cpu_millis: before.cpu_millis + u64::from(*replicas) * each - u64::from(had) * each,
        replicas: before.replicas + u64::from(*replicas) - u64::from(had),
        scales: BTreeMap::new(),
    };
    *replicas <= had || exceeded(desired, &then).is_empty()
}

/// How things stood when something was asked for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    before: BTreeMap<u64, Wanted>,
}

fn wanted(desired: &Desired) -> Wanted {
    let mut sum = Wanted::default();
    for (key, service) in &desired.services {
        if key.namespace() != NAMESPACE || !service.running {
            continue;
        }
        let count = match service.spec.mode {
            Mode::Replicated => service.replicas,
            Mode::Global => 1,
        };
        sum.replicas += u64::from(count);
        sum.cpu_millis += u64::from(count) * service.spec.reservation.cpu_millis;
        sum.scales.insert(key.clone(), count);
    }
    sum
}

/// The bounds that are exceeded, as pairs of what is wanted and what is allowed.
fn exceeded(desired: &Desired, wanted: &Wanted) -> Vec<(u64, u64)> {
    let Some(quota) = desired.quotas.get(NAMESPACE) else {
        return Vec::new();
    };
    let bounds = [
        (wanted.cpu_millis, quota.cpu_millis),
        (wanted.replicas, quota.replicas),
    ];
    let over = bounds.into_iter().filter_map(|(wanted, bound)| {
        let bound = bound.filter(|bound| wanted > *bound)?;
        Some((wanted, bound))
    });
    over.collect()
}

fn is_of_interest(world: &World) -> bool {
    world.ops.variety == Variety::Bounded && world.watch.gentle
}

/// Something is asked for.
pub(in crate::sim) fn quota_before(world: &mut World, host: usize, id: u64) {
    if !is_of_interest(world) {
        return;
    }
    let engine = world.hosts[host].engine.as_ref();
    let before = engine.map(|e| wanted(e.desired())).unwrap_or_default();
    world.watch.quotas.before.insert(id, before);
}

/// It was accepted or refused. Only where one change follows the other: what is asked for in two places
/// at once may exceed a quota together.
pub(in crate::sim) fn quota_after(
    world: &mut World,
    host: usize,
    id: u64,
    result: &Result<bool, Rejection>,
    wish: &QuotaWish,
) {
    let Some(before) = world.watch.quotas.before.remove(&id) else {
        return;
    };
    let Some(engine) = world.hosts[host].engine.as_ref() else {
        return;
    };
    let desired = engine.desired();
    let after = wanted(desired);
    let more = after.cpu_millis > before.cpu_millis || after.replicas > before.replicas;
    let over = exceeded(desired, &after);
    let mut broken = Vec::new();
    match result {
        Ok(_) if *wish == QuotaWish::Bounds && after != before => {
            broken.push(format!("n{host} changes scales for a quota: {before:?}"));
        }
        Ok(_) if more && !over.is_empty() => {
            broken.push(format!("n{host} accepts {over:?} of its quota"));
        }
        Err(Rejection::OverQuota { excess, .. }) if fits(desired, &before, wish) => {
            broken.push(format!(
                "n{host} refuses {wish:?} for {excess:?}, and it fits"
            ));
        }
        Ok(_) | Err(_) => {}
    }
    world.outcome.refused += u64::from(matches!(result, Err(Rejection::OverQuota { .. })));
    broken.into_iter().for_each(|b| world.violation(b));
}

/// At rest every daemon says which quota is exceeded, and no service has become smaller for it.
pub(super) fn excess_is_told(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    if world.ops.variety != Variety::Bounded {
        return wrong;
    }
    for host in &world.hosts {
        let Some(engine) = &host.engine else { continue };
        let desired = engine.desired();
        let over = !exceeded(desired, &wanted(desired)).is_empty();
        let mut services = desired.services.keys();
        let Some(first) = services.find(|key| key.namespace() == NAMESPACE) else {
            continue;
        };
        let told = engine
            .explain(first)
            .is_some_and(|e| e.summary.contains("over its quota"));
        if told != over {
            wrong.push(format!("n{} says over its quota: {told}", host.index));
        }
    }
    wrong
}
