//! What goes wrong, and when.

use rand::RngExt as _;

use super::check;
use super::network::Weather;
use super::report::Outcome;
use super::runtime::Temper;
use super::workload::{self, Op};
use super::world::{SECOND, World};

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// No faults: people deploy and scale.
    Calm,
    /// Daemons crash, hosts lose power, most come back.
    Crash,
    /// The network splits, also one-way; people change things on all sides.
    Partition,
    /// A fifth of the packets is lost and a third of the nodes stalls. Nothing may move.
    Lossy,
    /// Disks are full; in the end the whole cluster loses power.
    Disk,
    /// Slow pulls, failing starts, lost answers, crashing workloads.
    Runtime,
    /// Wall clocks are wrong and jump.
    Clock,
    /// Nodes are drained and come back while people deploy.
    Drain,
    /// All of it.
    Churn,
    /// One large deploy on many nodes, for speed.
    Scale,
}

impl Scenario {
    /// Those that a run without `--scenario` goes through.
    pub const ALL: [Self; 9] = [
        Self::Calm,
        Self::Crash,
        Self::Partition,
        Self::Lossy,
        Self::Disk,
        Self::Runtime,
        Self::Clock,
        Self::Drain,
        Self::Churn,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Crash => "crash",
            Self::Partition => "partition",
            Self::Lossy => "lossy",
            Self::Disk => "disk",
            Self::Runtime => "runtime",
            Self::Clock => "clock",
            Self::Drain => "drain",
            Self::Churn => "churn",
            Self::Scale => "scale",
        }
    }

    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .chain([Self::Scale])
            .find(|s| s.name() == name)
    }

    fn weather(self) -> Weather {
        match self {
            Self::Lossy => Weather::FOUL,
            Self::Churn => Weather {
                loss: 0.05,
                duplicated: 0.02,
                ..Weather::FOUL
            },
            Self::Calm
            | Self::Crash
            | Self::Partition
            | Self::Disk
            | Self::Runtime
            | Self::Clock
            | Self::Drain
            | Self::Scale => Weather::FAIR,
        }
    }

    fn temper(self) -> Temper {
        match self {
            Self::Runtime | Self::Churn => Temper::MOODY,
            Self::Calm
            | Self::Crash
            | Self::Partition
            | Self::Lossy
            | Self::Disk
            | Self::Clock
            | Self::Drain
            | Self::Scale => Temper::CALM,
        }
    }
}

/// Something that goes wrong, or gets right again.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The daemon dies.
    Kill(usize),
    /// The host loses power.
    PowerOff(usize),
    /// The daemon starts again.
    Start(usize),
    /// These hosts (as bits of their index) are cut off from the others.
    Split(u64),
    /// Packets from one host to all others vanish; the way back works.
    OneWay(usize),
    /// All links are whole again.
    Heal,
    /// The daemon freezes for so many microseconds.
    Stall(usize, u64),
    /// A third of the daemons freezes for half a second to two seconds.
    StallThird,
    /// The disk refuses writes, or takes them again.
    DiskFull(usize, bool),
    /// A workload dies.
    WorkloadDies(usize),
    /// The wall clock jumps by so many milliseconds.
    ClockJump(usize, i64),
    /// All hosts lose power.
    Blackout,
    /// Look at what has been noticed.
    Observe,
}

/// When the first daemon starts and all others have joined.
const FORMED: u64 = 3 * SECOND;
/// Trouble lasts until then.
const TROUBLE_ENDS: u64 = 60 * SECOND;
/// After the trouble, the cluster has so long to come to rest. Crash loops wait up to minutes, and
/// those that were in one need their next attempt.
const REST: u64 = 90 * SECOND;
const OBSERVE_EVERY: u64 = 20_000;

/// Runs a scenario from a seed.
pub fn run(scenario: Scenario, nodes: usize, services: usize, seed: u64) -> Outcome {
    if scenario == Scenario::Scale {
        return run_scale(nodes, services, seed);
    }
    let mut world = World::new(nodes, seed, scenario.weather(), scenario.temper());
    form(&mut world);
    plan_people(&mut world, scenario, services);
    plan_trouble(&mut world, scenario);
    let mut at = FORMED;
    while at < TROUBLE_ENDS {
        world.plan(at, Fault::Observe);
        at += OBSERVE_EVERY;
    }
    world.run_until(TROUBLE_ENDS);
    mend(&mut world);
    rest(&mut world);
    world.finish()
}

/// One deploy of many replicas; the run ends when all answer.
fn run_scale(nodes: usize, services: usize, seed: u64) -> Outcome {
    let mut world = World::new(nodes, seed, Weather::FAIR, Temper::CALM);
    form(&mut world);
    world.run_until(FORMED + 10 * SECOND);
    for service in (0..services).filter(|s| s % 7 != 6) {
        let at = world.now + world.rng.random_range(0..SECOND);
        world.plan_op(
            at,
            Op::Deploy {
                service,
                replicas: Some(10),
                version: 1,
            },
        );
    }
    let deadline = world.now + REST;
    rest_until(&mut world, deadline);
    world.finish()
}

fn form(world: &mut World) {
    for host in 0..world.hosts.len() {
        let through = (host > 0).then(|| world.rng.random_range(0..host));
        world.start(host, through);
        let pause = world.rng.random_range(1_000..20_000);
        let now = world.now;
        world.run_until(now + pause);
    }
    let formed = FORMED.max(world.now);
    world.run_until(formed);
}

fn plan_people(world: &mut World, scenario: Scenario, services: usize) {
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
    let quiet = matches!(scenario, Scenario::Lossy | Scenario::Crash);
    let edits = if quiet { 0 } else { services * 3 };
    for _ in 0..edits {
        let at = FORMED + 6 * SECOND + world.rng.random_range(0..40 * SECOND);
        let service = world.rng.random_range(0..services);
        let op = if world.rng.random_bool(0.7) {
            Op::Scale {
                service,
                replicas: world.rng.random_range(0..=6),
            }
        } else {
            let version = world.rng.random_range(2..100);
            Op::Deploy {
                service,
                replicas: None,
                version,
            }
        };
        world.plan_op(at, op);
    }
}

fn plan_trouble(world: &mut World, scenario: Scenario) {
    match scenario {
        Scenario::Calm | Scenario::Scale => {}
        Scenario::Crash => plan_crashes(world, 5),
        Scenario::Partition => plan_splits(world),
        Scenario::Lossy => plan_stalls(world),
        Scenario::Disk => plan_disks(world),
        Scenario::Runtime => plan_deaths(world),
        Scenario::Clock => plan_jumps(world),
        Scenario::Drain => plan_drains(world),
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
        let healed = at + world.rng.random_range(2 * SECOND..14 * SECOND);
        world.plan(healed, Fault::Heal);
    }
}

fn plan_stalls(world: &mut World) {
    let mut at = FORMED + 6 * SECOND;
    while at < TROUBLE_ENDS - 4 * SECOND {
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

fn plan_deaths(world: &mut World) {
    for _ in 0..12 {
        let host = some_host(world);
        let at = FORMED + world.rng.random_range(6 * SECOND..50 * SECOND);
        world.plan(at, Fault::WorkloadDies(host));
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
}

/// Makes it so.
pub(super) fn strike(world: &mut World, fault: Fault) {
    if !matches!(fault, Fault::Observe) {
        world.outcome.faults += 1;
        world.note(format!("{fault:?}"));
    }
    match fault {
        Fault::Kill(host) | Fault::PowerOff(host) if !world.hosts[host].is_up() => {}
        Fault::Kill(host) => {
            workload::asker_gone(world, host);
            workload::forget_spreading(world);
            check::watch_crash(world, host, false);
            world.kill(host);
        }
        Fault::PowerOff(host) => {
            workload::asker_gone(world, host);
            workload::forget_spreading(world);
            check::watch_crash(world, host, true);
            world.power_off(host);
        }
        Fault::Start(host) => {
            if !world.hosts[host].is_up() {
                check::forget_crash(world, host);
                world.start(host, None);
            }
        }
        Fault::Split(side) => split(world, side),
        Fault::OneWay(host) => {
            (0..world.hosts.len()).for_each(|to| world.network.cut(host, to));
            cut_off(world);
        }
        Fault::Heal => world.network.heal(),
        Fault::Stall(host, micros) => stall(world, host, micros),
        Fault::StallThird => {
            for host in 0..world.hosts.len() {
                if world.rng.random_bool(1.0 / 3.0) {
                    let micros = world.rng.random_range(SECOND / 2..2 * SECOND);
                    stall(world, host, micros);
                }
            }
        }
        Fault::DiskFull(host, full) => world.hosts[host].disk.full = full,
        Fault::WorkloadDies(host) => {
            let event = world.hosts[host].runtime.crash_one(&mut world.rng);
            if let Some(event) = event {
                world.tell(host, dunlin_core::io::Input::Runtime(event));
            }
        }
        Fault::ClockJump(host, by) => world.hosts[host].skew += by,
        Fault::Blackout => {
            for host in 0..world.hosts.len() {
                workload::asker_gone(world, host);
                world.power_off(host);
            }
            workload::forget_spreading(world);
            check::forget_lost(world);
        }
        Fault::Observe => check::observe(world),
    }
}

fn stall(world: &mut World, host: usize, micros: u64) {
    let until = world.now + micros;
    let stalled = &mut world.hosts[host].stalled_until;
    *stalled = until.max(*stalled);
    workload::forget_spreading(world);
}

fn split(world: &mut World, side: u64) {
    let inside = |host: usize| side >> (host % 64) & 1 == 1;
    for a in 0..world.hosts.len() {
        for b in 0..world.hosts.len() {
            if inside(a) != inside(b) {
                world.network.cut(a, b);
            }
        }
    }
    cut_off(world);
}

/// While links are cut, times mean nothing.
fn cut_off(world: &mut World) {
    world.links_changed();
    workload::forget_spreading(world);
    check::forget_lost(world);
}

/// Everything works again.
fn mend(world: &mut World) {
    world.network.heal();
    world.network.set_weather(Weather::FAIR);
    for host in 0..world.hosts.len() {
        world.hosts[host].disk.full = false;
        world.hosts[host].runtime.set_temper(Temper::CALM);
        if !world.hosts[host].is_up() {
            world.start(host, None);
        }
    }
    for host in 0..world.hosts.len() {
        let now = world.now;
        world.plan_op(
            now,
            Op::Drain {
                host,
                drained: false,
            },
        );
    }
}

fn rest(world: &mut World) {
    let deadline = world.now + REST;
    rest_until(world, deadline);
}

/// Waits until all is as it should be, or the time is up; then what is wrong is a violation.
fn rest_until(world: &mut World, deadline: u64) {
    loop {
        let now = world.now;
        world.run_until(now + SECOND);
        let wrong = check::at_rest(world);
        if wrong.is_empty() || world.outcome.violations.len() > 10 {
            return;
        }
        if world.now >= deadline {
            wrong.into_iter().for_each(|w| world.violation(w));
            return;
        }
    }
}
