//! Kinds of runs, from the first start to the last look.

mod people;
mod trouble;

use std::time::Instant;

use rand::RngExt as _;

use super::check;
use super::faults::Fault;
use super::herd;
use super::load;
use super::network::Weather;
use super::report::Outcome;
use super::runtime::Temper;
use super::workload::{Op, Variety};
use super::world::{SECOND, World};
use people::plan_people;
use trouble::plan_trouble;

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
    /// Hardly anything fits, and nodes are drained.
    Full,
    /// Workloads run and answer nobody for a while, or die.
    Health,
    /// Specifications follow each other, some of which cannot run; in half of the runs nodes die and
    /// the network splits meanwhile.
    Rollout,
    /// A member lies. Nothing may move for it.
    Liar,
    /// Services wait for each other, while nodes die and the network splits.
    Depend,
    /// Jobs and schedules; in half of the runs nodes die and the network splits meanwhile.
    Jobs,
    /// Services of different priorities want more than there is; in half of the runs nodes die
    /// meanwhile.
    Ranks,
    /// Nodes join a cluster that is at work, and replicas are moved to them; in half of the runs nodes
    /// die meanwhile, the others go on for long enough to see everything come to rest.
    Rebalance,
    /// What services may want together is bounded, and the bound is changed; in half of the runs one
    /// change follows the other, in the others the network splits and nodes die.
    Quota,
    /// Of no service there may ever be two, while nodes die, freeze and are cut off, and clocks jump.
    Strict,
    /// Data stays where it is, while nodes die, the network splits, and in the end all lose power.
    Volumes,
    /// Services follow their load, down to no replica; in half of the runs nodes die and the network
    /// splits meanwhile.
    Autoscale,
    /// All of it.
    Churn,
    /// One large deploy on many nodes, for speed.
    Scale,
    /// The same by the machines that place alone, on more nodes.
    Placement,
}

impl Scenario {
    /// Those that a run without `--scenario` goes through.
    pub const ALL: [Self; 21] = [
        Self::Calm,
        Self::Crash,
        Self::Partition,
        Self::Lossy,
        Self::Disk,
        Self::Runtime,
        Self::Clock,
        Self::Drain,
        Self::Full,
        Self::Health,
        Self::Rollout,
        Self::Liar,
        Self::Depend,
        Self::Jobs,
        Self::Ranks,
        Self::Strict,
        Self::Volumes,
        Self::Churn,
        Self::Autoscale,
        Self::Rebalance,
        Self::Quota,
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
            Self::Full => "full",
            Self::Health => "health",
            Self::Rollout => "rollout",
            Self::Liar => "liar",
            Self::Depend => "depend",
            Self::Jobs => "jobs",
            Self::Ranks => "ranks",
            Self::Rebalance => "rebalance",
            Self::Quota => "quota",
            Self::Strict => "strict",
            Self::Volumes => "volumes",
            Self::Autoscale => "autoscale",
            Self::Churn => "churn",
            Self::Scale => "scale",
            Self::Placement => "placement",
        }
    }

    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .chain([Self::Scale, Self::Placement])
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
            | Self::Full
            | Self::Health
            | Self::Rollout
            | Self::Depend
            | Self::Jobs
            | Self::Ranks
            | Self::Rebalance
            | Self::Quota
            | Self::Strict
            | Self::Volumes
            | Self::Autoscale
            | Self::Liar
            | Self::Scale
            | Self::Placement => Weather::FAIR,
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
            | Self::Full
            | Self::Health
            | Self::Rollout
            | Self::Depend
            | Self::Jobs
            | Self::Ranks
            | Self::Rebalance
            | Self::Quota
            | Self::Strict
            | Self::Volumes
            | Self::Autoscale
            | Self::Liar
            | Self::Scale
            | Self::Placement => Temper::CALM,
        }
    }

    fn variety(self) -> Variety {
        match self {
            Self::Calm | Self::Lossy | Self::Liar | Self::Scale | Self::Placement => Variety::Plain,
            Self::Crash
            | Self::Partition
            | Self::Clock
            | Self::Disk
            | Self::Drain
            | Self::Churn => Variety::Mixed,
            Self::Full => Variety::Large,
            Self::Runtime => Variety::Missing,
            Self::Health => Variety::Checked,
            Self::Rollout => Variety::Rolling,
            Self::Depend => Variety::Chained,
            Self::Jobs => Variety::Jobs,
            Self::Ranks => Variety::Ranked,
            // Of the half in which nothing dies, see below.
            Self::Rebalance => Variety::Mixed,
            Self::Quota => Variety::Bounded,
            Self::Strict => Variety::Strict,
            Self::Volumes => Variety::Volumes,
            Self::Autoscale => Variety::Following,
        }
    }

    /// What holds in this scenario beyond what always holds.
    fn set_rules(self, world: &mut World) {
        let watch = &mut world.watch;
        watch.nothing_may_move = matches!(self, Self::Lossy | Self::Liar);
        watch.fair = match self {
            Self::Calm
            | Self::Crash
            | Self::Disk
            | Self::Runtime
            | Self::Clock
            | Self::Drain
            | Self::Full
            | Self::Health
            | Self::Liar
            | Self::Scale
            | Self::Placement => true,
            Self::Partition
            | Self::Lossy
            | Self::Rollout
            | Self::Depend
            | Self::Jobs
            | Self::Ranks
            | Self::Rebalance
            | Self::Quota
            | Self::Strict
            | Self::Volumes
            | Self::Autoscale
            | Self::Churn => false,
        };
        watch.no_gaps = match self {
            Self::Calm
            | Self::Clock
            | Self::Drain
            | Self::Full
            | Self::Liar
            | Self::Scale
            | Self::Placement => true,
            Self::Crash
            | Self::Partition
            | Self::Lossy
            | Self::Disk
            | Self::Runtime
            | Self::Health
            | Self::Rollout
            | Self::Depend
            | Self::Jobs
            | Self::Ranks
            | Self::Rebalance
            | Self::Quota
            | Self::Strict
            | Self::Volumes
            | Self::Autoscale
            | Self::Churn => false,
        };
        watch.spreads = self == Self::Calm;
        // When all nodes lose power, nobody remembers the claims of those that stay down.
        watch.epochs_are_kept = !matches!(self, Self::Disk | Self::Volumes);
        world.ops.variety = self.variety();
        let halved = matches!(
            self,
            Self::Rollout
                | Self::Jobs
                | Self::Ranks
                | Self::Autoscale
                | Self::Rebalance
                | Self::Quota
        );
        world.watch.gentle = halved && world.rng.random_bool(0.5);
        if self == Self::Rebalance && world.watch.gentle {
            world.ops.variety = Variety::Plain;
            world.watch.no_gaps = true;
        }
        world.ops.crash_on_accept = self == Self::Disk;
    }
}

/// When the first daemon starts and all others have joined.
const FORMED: u64 = 3 * SECOND;
/// Nothing goes wrong before then.
pub(super) const QUIET_UNTIL: u64 = FORMED + 5 * SECOND;
/// Trouble lasts until then.
const TROUBLE_ENDS: u64 = 60 * SECOND;
/// Where replicas are moved by themselves, which they are only after they have rested: several times
/// what one move needs.
const SLOWLY_ENDS: u64 = 1_500 * SECOND;
/// After the trouble, the cluster has so long to come to rest. Crash loops wait up to minutes, and
/// those that were in one need their next attempt.
const REST: u64 = 90 * SECOND;
/// Replicas of each service in the scenario for speed.
const REPLICAS: u32 = 10;
/// Services that are deployed in one file there.
const STACK: usize = 20;
/// Messages of which one is encoded in the scenario for speed.
const ENCODE_EVERY: u64 = 64;
/// How often is looked who has noticed what, in microseconds: the resolution of what is measured.
pub(super) const OBSERVE_EVERY: u64 = 20_000;

/// Runs a scenario from a seed. `hours` stretches the trouble where the scenario has no end of
/// its own: in [`Scenario::Lossy`].
pub fn run(
    scenario: Scenario,
    nodes: usize,
    services: usize,
    seed: u64,
    hours: Option<f64>,
) -> Outcome {
    match scenario {
        Scenario::Scale => return run_scale(nodes, services, seed),
        Scenario::Placement => return herd::run(nodes, services, REPLICAS, STACK, seed),
        Scenario::Calm
        | Scenario::Crash
        | Scenario::Partition
        | Scenario::Lossy
        | Scenario::Disk
        | Scenario::Runtime
        | Scenario::Clock
        | Scenario::Drain
        | Scenario::Full
        | Scenario::Health
        | Scenario::Rollout
        | Scenario::Liar
        | Scenario::Depend
        | Scenario::Jobs
        | Scenario::Ranks
        | Scenario::Rebalance
        | Scenario::Quota
        | Scenario::Strict
        | Scenario::Volumes
        | Scenario::Autoscale
        | Scenario::Churn => {}
    }
    let mut world = World::new(nodes, seed, scenario.weather(), scenario.temper());
    scenario.set_rules(&mut world);
    form(&mut world);
    let stretched = hours.filter(|_| scenario == Scenario::Lossy);
    let usual = match scenario == Scenario::Rebalance && world.watch.gentle {
        true => SLOWLY_ENDS,
        false => TROUBLE_ENDS,
    };
    let ends = stretched.map_or(usual, |h| FORMED + (h * 3_600.0 * SECOND as f64) as u64);
    plan_people(&mut world, scenario, services);
    plan_trouble(&mut world, scenario, ends);
    if scenario == Scenario::Autoscale {
        load::plan(
            &mut world,
            services,
            FORMED + 4 * SECOND,
            TROUBLE_ENDS - 10 * SECOND,
        );
    }
    let mut at = FORMED;
    while at < ends && world.outcome.violations.is_empty() {
        world.run_until(at);
        check::observe(&mut world);
        if at.is_multiple_of(load::EVERY) {
            load::measure(&mut world);
        }
        at += OBSERVE_EVERY;
    }
    world.run_until(ends);
    world.ops.crash_on_accept = false;
    mend(&mut world);
    rest(&mut world);
    undrain(&mut world);
    rest(&mut world);
    if scenario == Scenario::Autoscale {
        load::stay(&mut world);
        rest(&mut world);
        lose_one(&mut world);
    }
    world.finish()
}

/// One deploy of many replicas; the run ends when all answer.
fn run_scale(nodes: usize, services: usize, seed: u64) -> Outcome {
    let mut world = World::new(nodes, seed, Weather::FAIR, Temper::CALM);
    world.encode_every = ENCODE_EVERY;
    Scenario::Scale.set_rules(&mut world);
    form(&mut world);
    let formed = world.now + 10 * SECOND;
    world.run_until(formed);
    for first in (0..services).step_by(STACK) {
        let at = world.now + world.rng.random_range(0..SECOND);
        let stack = Op::Stack {
            first,
            count: STACK.min(services - first),
            replicas: REPLICAS,
        };
        world.plan_op(at, stack);
    }
    // What forming took is not counted.
    world.outcome.control.clear();
    let began = Instant::now();
    let deadline = world.now + REST;
    let wanted = services * REPLICAS as usize;
    while world.answering() < wanted && world.now < deadline {
        let soon = world.now + SECOND / 20;
        world.run_until(soon);
    }
    world.outcome.placing_s = began.elapsed().as_secs_f64();
    let (nodes, simulated) = (
        world.hosts.len(),
        (world.now - formed) as f64 / SECOND as f64,
    );
    world.note(format!(
        "all {wanted} slots answer on {nodes} nodes after {simulated:.2} s"
    ));
    let control = std::mem::take(&mut world.outcome.control);
    rest_until(&mut world, deadline);
    world.outcome.control = control;
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

/// Everything works again.
fn mend(world: &mut World) {
    world.network.heal();
    world.network.set_weather(Weather::FAIR);
    for host in 0..world.hosts.len() {
        world.hosts[host].disk.full = false;
        world.hosts[host].runtime.set_temper(Temper::CALM);
        world.hosts[host].runtime.cure();
        if !world.hosts[host].is_up() {
            world.start(host, None);
        }
    }
}

/// A host that may have decided until now is gone for good, and the load of all services is another
/// one from then on.
fn lose_one(world: &mut World) {
    if world.watch.gentle || !world.outcome.violations.is_empty() {
        return;
    }
    let (now, host) = (world.now, world.rng.random_range(0..world.hosts.len()));
    world.plan(now, Fault::PowerOff(host));
    load::turn(world);
    rest(world);
}

/// All nodes take work again.
fn undrain(world: &mut World) {
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
        load::measure(world);
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
