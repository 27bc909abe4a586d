//! What goes wrong, and when.

use rand::RngExt as _;

use super::{FORMED, Scenario, TROUBLE_ENDS};
use crate::sim::faults::Fault;
use crate::sim::workload::{Op, RIVALS};
use crate::sim::world::{SECOND, World};

pub(super) fn plan_trouble(world: &mut World, scenario: Scenario, ends: u64) {
    match scenario {
        Scenario::Calm | Scenario::Scale | Scenario::Placement => {}
        Scenario::Crash => plan_crashes(world, 5),
        Scenario::Partition => plan_splits(world),
        Scenario::Lossy => plan_stalls(world, ends),
        Scenario::Disk => plan_disks(world),
        Scenario::Runtime => plan_deaths(world),
        Scenario::Health => plan_illness(world),
        Scenario::Rollout
        | Scenario::Jobs
        | Scenario::Ranks
        | Scenario::Autoscale
        | Scenario::Quota
            if world.watch.gentle => {}
        Scenario::Ranks => plan_crashes(world, 3),
        Scenario::Volumes => {
            plan_crashes(world, 3);
            plan_splits(world);
            plan_darkness(world);
        }
        Scenario::Rebalance => plan_joins(world),
        Scenario::Strict => {
            plan_crashes(world, 3);
            plan_splits(world);
            plan_jumps(world);
            plan_stalls(world, ends);
        }
        Scenario::Rollout
        | Scenario::Depend
        | Scenario::Jobs
        | Scenario::Autoscale
        | Scenario::Quota => {
            plan_crashes(world, 3);
            plan_splits(world);
        }
        Scenario::Liar => plan_lies(world),
        Scenario::Clock => plan_jumps(world),
        Scenario::Drain | Scenario::Full => plan_drains(world),
        Scenario::Churn => {
            plan_crashes(world, 3);
            plan_splits(world);
            plan_deaths(world);
            plan_jumps(world);
        }
    }
}

fn some_host(world: &mut World) -> usize {
    let hosts = world.hosts.len();
    world.rng.random_range(0..hosts)
}

/// Nearly half of the hosts come when the others have filled up. Somebody asks for moves, or waits for
/// those that come by themselves.
fn plan_joins(world: &mut World) {
    let hosts = world.hosts.len();
    for host in hosts - (hosts - 1) / 2..hosts {
        world.plan(FORMED, Fault::PowerOff(host));
        let joins = FORMED + world.rng.random_range(14 * SECOND..20 * SECOND);
        world.plan(joins, Fault::Start(host));
    }
    if world.watch.gentle {
        return;
    }
    for n in 0..3 {
        let at = FORMED + (22 + 11 * n) * SECOND + world.rng.random_range(0..4 * SECOND);
        world.plan_op(at, Op::Rebalance);
        let host = some_host(world);
        let fault = match world.rng.random_range(0..4) {
            0 => Fault::Kill(host),
            1 => Fault::WorkloadDies(host),
            2 => Fault::Stall(host, SECOND),
            _ => Fault::PowerOff(host),
        };
        // While replicas are on their way, or shortly before.
        let strikes = at + world.rng.random_range(SECOND..8 * SECOND);
        world.plan(strikes, fault);
        let back = strikes + world.rng.random_range(SECOND..6 * SECOND);
        world.plan(back, Fault::Start(host));
    }
}

fn plan_crashes(world: &mut World, count: u64) {
    for n in 0..count {
        let host = some_host(world);
        let at = FORMED + (8 + 9 * n) * SECOND + world.rng.random_range(0..2 * SECOND);
        let fault = if world.rng.random_bool(0.3) {
            Fault::Kill(host)
        } else {
            Fault::PowerOff(host)
        };
        world.plan(at, fault);
        let back = at + world.rng.random_range(500_000..20 * SECOND);
        world.plan(back, Fault::Start(host));
    }
}

fn plan_splits(world: &mut World) {
    for n in 0..3 {
        let at = FORMED + (7 + 16 * n) * SECOND + world.rng.random_range(0..2 * SECOND);
        let fault = if world.rng.random_bool(0.25) {
            Fault::OneWay(some_host(world))
        } else {
            Fault::Split(
                world
                    .rng
                    .random_range(1..(1 << world.hosts.len().min(60)) - 1),
            )
        };
        world.plan(at, fault);
        for rival in 0..2 {
            // Wherever the two ask, they want the same port.
            let service = RIVALS + 2 * n as usize + rival;
            let (replicas, version) = (Some(1), 1);
            let deploy = Op::Deploy {
                service,
                replicas,
                version,
            };
            world.plan_op(at + SECOND, deploy);
        }
        let healed = at + world.rng.random_range(2 * SECOND..14 * SECOND);
        world.plan(healed, Fault::Heal);
    }
}

fn plan_stalls(world: &mut World, ends: u64) {
    let mut at = FORMED + 6 * SECOND;
    while at + 4 * SECOND < ends {
        world.plan(at, Fault::StallThird);
        at += world.rng.random_range(2 * SECOND..5 * SECOND);
    }
}

fn plan_disks(world: &mut World) {
    for _ in 0..4 {
        let host = some_host(world);
        let at = FORMED + world.rng.random_range(6 * SECOND..30 * SECOND);
        world.plan(at, Fault::DiskFull(host, true));
        let freed = at + world.rng.random_range(SECOND..8 * SECOND);
        world.plan(freed, Fault::DiskFull(host, false));
    }
    world.plan(TROUBLE_ENDS - 10 * SECOND, Fault::Blackout);
    for host in 0..world.hosts.len() {
        let at = TROUBLE_ENDS - 10 * SECOND + world.rng.random_range(SECOND..6 * SECOND);
        world.plan(at, Fault::Start(host));
    }
}

/// All hosts lose power, and one does not come back before the trouble ends.
fn plan_darkness(world: &mut World) {
    world.plan(TROUBLE_ENDS - 20 * SECOND, Fault::Blackout);
    let missing = some_host(world);
    for host in (0..world.hosts.len()).filter(|host| *host != missing) {
        let at = TROUBLE_ENDS - 20 * SECOND + world.rng.random_range(SECOND..4 * SECOND);
        world.plan(at, Fault::Start(host));
    }
}

fn plan_deaths(world: &mut World) {
    for _ in 0..12 {
        let host = some_host(world);
        let at = FORMED + world.rng.random_range(6 * SECOND..50 * SECOND);
        world.plan(at, Fault::WorkloadDies(host));
    }
}

fn plan_illness(world: &mut World) {
    for _ in 0..40 {
        let host = some_host(world);
        let at = FORMED + world.rng.random_range(6 * SECOND..52 * SECOND);
        let micros = world.rng.random_range(SECOND / 10..12 * SECOND);
        world.plan(at, Fault::Sicken(host, micros));
    }
    plan_deaths(world);
}

fn plan_lies(world: &mut World) {
    let liar = some_host(world);
    world.corrupt(liar);
    for _ in 0..30 {
        let at = world.rng.random_range(FORMED + 6 * SECOND..TROUBLE_ENDS);
        world.plan(at, Fault::Lie(liar));
    }
}

fn plan_jumps(world: &mut World) {
    for _ in 0..8 {
        let host = some_host(world);
        let at = world.rng.random_range(FORMED..TROUBLE_ENDS);
        let by = world.rng.random_range(-86_400_000..86_400_000);
        world.plan(at, Fault::ClockJump(host, by));
    }
}

fn plan_drains(world: &mut World) {
    for n in 0..4 {
        let host = some_host(world);
        let at = FORMED + (7 + 10 * n) * SECOND;
        world.plan_op(
            at,
            Op::Drain {
                host,
                drained: true,
            },
        );
        let back = at + world.rng.random_range(3 * SECOND..20 * SECOND);
        world.plan_op(
            back,
            Op::Drain {
                host,
                drained: false,
            },
        );
    }
    // This one is still drained when the cluster has come to rest, and must be empty then.
    let host = some_host(world);
    let drained = true;
    world.plan_op(TROUBLE_ENDS - 4 * SECOND, Op::Drain { host, drained });
}
