//! What people ask for, and when.

use rand::RngExt as _;

use super::{FORMED, Scenario};
use crate::sim::workload::Op;
use crate::sim::world::{SECOND, World};

/// What people do where it is bounded: all of it before the trouble ends.
const BOUNDED_OPS: usize = 50;

pub(super) fn plan_people(world: &mut World, scenario: Scenario, services: usize) {
    if scenario == Scenario::Quota {
        return plan_bounded(world, services);
    }
    for service in 0..services {
        let at = FORMED + world.rng.random_range(0..2 * SECOND);
        let replicas = Some(world.rng.random_range(1..=6));
        world.plan_op(
            at,
            Op::Deploy {
                service,
                replicas,
                version: 1,
            },
        );
    }
    let quiet = matches!(scenario, Scenario::Lossy | Scenario::Crash | Scenario::Liar);
    let quiet = quiet || scenario == Scenario::Rebalance;
    let edits = if quiet { 0 } else { services * 3 };
    if !quiet && services > 1 {
        // Only the last one is removed, and nobody edits it.
        let at = FORMED + world.rng.random_range(8 * SECOND..40 * SECOND);
        let service = services;
        let replicas = Some(2);
        world.plan_op(
            FORMED + 3 * SECOND,
            Op::Deploy {
                service,
                replicas,
                version: 1,
            },
        );
        world.plan_op(at, Op::Remove { service });
    }
    // What has no replicas holds up those that wait for it, as it should.
    let least = u32::from(scenario == Scenario::Depend);
    for edit in 0..edits {
        let at = FORMED + 6 * SECOND + world.rng.random_range(0..40 * SECOND);
        let service = world.rng.random_range(0..services);
        let op = if world.rng.random_bool(0.6) {
            Op::Scale {
                service,
                replicas: world.rng.random_range(least..=6),
            }
        } else {
            // Every image is written once, so that it tells the write.
            let version = u32::try_from(edit).unwrap_or(u32::MAX) + 2;
            Op::Deploy {
                service,
                replicas: None,
                version,
            }
        };
        world.plan_op(at, op);
    }
}

/// People deploy and scale up to a bound that somebody changes. Where nothing goes wrong, one after the
/// other, with time for each change to reach everybody.
fn plan_bounded(world: &mut World, services: usize) {
    let mut at = FORMED;
    for n in 0..BOUNDED_OPS {
        at += if world.watch.gentle {
            SECOND
        } else {
            world.rng.random_range(0..2 * SECOND)
        };
        let service = n % services.max(1);
        let replicas = world.rng.random_range(0..=6);
        let version = u32::try_from(n).unwrap_or(u32::MAX) + 1;
        let op = match world.rng.random_range(0..10) {
            _ if n < services => Op::Deploy {
                service,
                replicas: Some(replicas),
                version,
            },
            0..=2 => Op::Quota {
                cpu_millis: Some(world.rng.random_range(500..5_000)),
                replicas: Some(world.rng.random_range(3..20)),
            },
            3 => Op::Quota {
                cpu_millis: None,
                replicas: None,
            },
            4..=7 => Op::Scale { service, replicas },
            _ => Op::Deploy {
                service,
                replicas: Some(replicas),
                version,
            },
        };
        world.plan_op(at, op);
    }
}
