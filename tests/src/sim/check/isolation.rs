//! Nodes that are cut off: what they have to stop, and that they stop nothing else for it.

use dunlin_state::model::SlotId;

use super::SECOND;
use crate::sim::world::World;

/// Until a node believes that others are gone, and what it stops then has drained and ended.
const SLACK: u64 = 6 * SECOND;

/// For so long a node may act on having been cut off.
const AFTERMATH: u64 = 5 * SECOND;

/// How a host is placed among the others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cut {
    /// Since when it reaches fewer than half of them in any direction.
    surely: Option<u64>,
    /// When it last reached fewer than half of them both ways.
    maybe: Option<u64>,
}

/// Looks who is cut off, and whether what runs there still may.
pub(super) fn isolation(world: &mut World) {
    let hosts = world.hosts.len();
    for host in 0..hosts {
        let up = |other: &usize| *other == host || world.hosts[*other].is_up();
        let (there, back) = (
            |other: &usize| world.network.carries(host, *other),
            |other: &usize| world.network.carries(*other, host),
        );
        let sees = (0..hosts).filter(up);
        let any = sees.clone().filter(|o| *o == host || there(o) || back(o));
        let both = sees.filter(|o| *o == host || (there(o) && back(o)));
        let (any, both) = (any.count() * 2 < hosts, both.count() * 2 < hosts);
        let now = world.now;
        let cut = world.watch.cuts.entry(host).or_default();
        // A daemon that starts anew counts from there.
        let began = world.hosts[host].started_at;
        cut.surely = any.then(|| cut.surely.unwrap_or(now).max(began));
        cut.maybe = if both { Some(now) } else { cut.maybe };
    }
    let mut broken = Vec::new();
    for host in world.hosts.iter().filter(|h| h.is_up()) {
        let since = world.watch.cuts.get(&host.index).and_then(|cut| cut.surely);
        let (Some(since), Some(engine)) = (since, host.engine.as_ref()) else {
            continue;
        };
        let stalled = host.stalled_until > since;
        let services = &engine.desired().services;
        for slot in host.runtime.running().filter(|_| !stalled) {
            let service = services.get(&slot.service);
            let patience = service.and_then(|s| s.spec.policy.stop_isolated_after_ms);
            if patience.is_some_and(|ms| world.now > since + ms * 1_000 + SLACK) {
                broken.push(format!("n{} is cut off and still runs {slot}", host.index));
            }
        }
    }
    broken.into_iter().for_each(|b| world.violation(b));
}

/// Whether a host may stop this replica because it is, or was a moment ago, cut off.
pub(super) fn may_stop(world: &World, host: usize, slot: &SlotId) -> bool {
    let engine = world.hosts[host].engine.as_ref();
    let service = engine.and_then(|e| e.desired().services.get(&slot.service));
    let stops = service.is_some_and(|s| s.spec.policy.stop_isolated_after_ms.is_some());
    let cut = world.watch.cuts.get(&host).and_then(|cut| cut.maybe);
    stops && cut.is_some_and(|at| world.now.saturating_sub(at) < AFTERMATH)
}
