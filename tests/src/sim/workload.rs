//! What people do to the simulated cluster, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::{Command, Desired, Rejection};
use dunlin_state::model::{
    Availability, CatchUp, Condition, Constraint, ConstraintOp, Dependency, FailureAction,
    HealthCheck, HealthTest, HttpTest, Job, Mode, PortSpec, PublishMode, Resources, Schedule,
    ServiceKey, ServiceSpec, SpreadRule, UpdateOrder, UpdatePolicy,
};
use rand::RngExt as _;

use super::faults::Fault;
use super::runtime::MISSING_IMAGE;
use super::world::{SECOND, World};

/// Something a person does, at whichever node answers.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Create a service or give it another image.
    Deploy {
        /// Its number.
        service: usize,
        /// Its scale, when given.
        replicas: Option<u32>,
        /// Distinguishes images.
        version: u32,
    },
    /// Deploy a file of services at once.
    Stack {
        /// The number of the first.
        first: usize,
        /// How many.
        count: usize,
        /// The scale of each.
        replicas: u32,
    },
    /// Change its scale.
    Scale {
        /// Its number.
        service: usize,
        /// The new scale.
        replicas: u32,
    },
    /// Remove it for good.
    Remove {
        /// Its number.
        service: usize,
    },
    /// Hand over all work of a host, or take work again.
    Drain {
        /// Which host.
        host: usize,
        /// Whether to drain or to re-activate.
        drained: bool,
    },
}

/// An accepted write on its way.
#[derive(Debug)]
struct Spreading {
    accepted: u64,
    change: Change,
    /// Hosts that were up and reachable when it was accepted, and have not got it.
    missing: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Deployed {
        service: ServiceKey,
        image: String,
        /// A new service gets one replica when nothing is said.
        replicas: u32,
        /// The image that the node knew when it was asked.
        before: Option<String>,
    },
    Scaled {
        service: ServiceKey,
        replicas: u32,
    },
    Removed(ServiceKey),
    /// All of them, in one write.
    Stack(Vec<Self>),
    Other,
}

/// What was asked and what was accepted.
#[derive(Debug, Default)]
pub(super) struct Ops {
    next: u64,
    asked: BTreeMap<u64, (usize, Change)>,
    spreading: Vec<Spreading>,
    /// Which kinds of services people deploy.
    pub(super) variety: Variety,
    /// Whether hosts lose power when they have just accepted a write.
    pub(super) crash_on_accept: bool,
    /// Services whose creation was accepted.
    pub(super) created: BTreeSet<ServiceKey>,
    /// Services whose removal was accepted: nobody deploys them again.
    pub(super) removed: BTreeSet<ServiceKey>,
    /// Scales that were written, by service.
    pub(super) scales: BTreeMap<ServiceKey, Writes>,
    /// Images that were written, by service.
    pub(super) images: BTreeMap<ServiceKey, Writes>,
}

/// Which kinds of services people deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Variety {
    /// Small replicas that run anywhere.
    #[default]
    Plain,
    /// Host ports, constraints, limits per node, one on every node.
    Mixed,
    /// The same, and so large that they hardly fit.
    Large,
    /// Plain ones, and one whose image nobody has.
    Missing,
    /// Updated one or two at a time, stopping or starting first; some updates cannot run and are
    /// rolled back.
    Rolling,
    /// Plain ones that wait for each other.
    Chained,
    /// Jobs, scheduled ones, and services that wait for jobs.
    Jobs,
    /// Plain ones of four priorities and three sizes, more than fit.
    Ranked,
    /// Of which there must never be two.
    Strict,
    /// Their health is checked: of some for traffic and restarts, of others for traffic alone.
    Checked,
}

/// The values that were written to one register.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// All that was asked for, whether or not it was answered.
    asked: BTreeSet<String>,
    accepted: BTreeSet<String>,
    /// Values that the author of an accepted later write knew.
    replaced: BTreeSet<String>,
}

impl Writes {
    /// Whether the register may hold this in the end.
    pub(super) fn may_be(&self, value: &str) -> bool {
        self.was_asked(value) && !self.replaced.contains(value)
    }

    pub(super) fn was_asked(&self, value: &str) -> bool {
        self.asked.contains(value)
    }

    /// Accepted values that no later write has replaced.
    pub(super) fn newest(&self) -> Vec<&String> {
        self.accepted.difference(&self.replaced).collect()
    }

    fn accept(&mut self, value: &str, before: Option<&String>) {
        self.accepted.insert(value.to_owned());
        self.replaced
            .extend(before.filter(|b| *b != value).cloned());
        self.replaced.remove(value);
    }
}

/// The name of the n-th service.
pub(super) fn service(number: usize) -> ServiceKey {
    // The name is a valid label by construction.
    ServiceKey::new("default", &format!("s{number}")).unwrap_or_else(|e| unreachable!("{e}"))
}

/// Whether replicas of this service can be started anywhere.
pub(super) fn can_run(image: &str) -> bool {
    !image.starts_with(MISSING_IMAGE)
}

/// The first deploy of a plain service.
pub(super) fn deployment(number: usize, replicas: u32) -> Command {
    Command::Deploy {
        service: service(number),
        spec: Box::new(spec(number, 1, Variety::Plain)),
        replicas: Some(replicas),
    }
}

fn spec(number: usize, version: u32, variety: Variety) -> ServiceSpec {
    let missing = variety == Variety::Missing && number % 6 == 5;
    let registry = if missing { MISSING_IMAGE } else { "registry/" };
    let cpu_millis = if variety == Variety::Large {
        2_500
    } else {
        100 + 50 * (number as u64 % 5)
    };
    let mut spec = ServiceSpec {
        image: format!("{registry}s{number}:{version}"),
        ports: vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }],
        reservation: Resources {
            cpu_millis,
            memory: 64 << 20,
            disk: 0,
        },
        ..ServiceSpec::default()
    };
    if number >= RIVALS {
        spec.ports[0].published = Some(RIVALS_PORT);
        return spec;
    }
    match variety {
        Variety::Plain | Variety::Missing => {}
        Variety::Checked => check_health(&mut spec, number),
        Variety::Chained => chain(&mut spec, number),
        Variety::Jobs => work(&mut spec, number),
        Variety::Strict => {}
        Variety::Ranked => rank(&mut spec, number),
        Variety::Rolling => roll(&mut spec, number, version),
        Variety::Mixed | Variety::Large => vary(&mut spec, number),
    }
    spec
}

fn roll(spec: &mut ServiceSpec, number: usize, version: u32) {
    // One in four updates names an image that nobody has; the first does not.
    if version > 1 && (version as usize + number).is_multiple_of(4) {
        spec.image = format!("{MISSING_IMAGE}s{number}:{version}");
    }
    spec.reservation.cpu_millis = 50;
    spec.drain_ms = Some(500);
    spec.update = UpdatePolicy {
        parallelism: 1 + number as u32 % 2,
        order: if number.is_multiple_of(3) {
            UpdateOrder::StartFirst
        } else {
            UpdateOrder::StopFirst
        },
        monitor_ms: 500,
        failure_action: FailureAction::Rollback,
        ..UpdatePolicy::default()
    };
}

/// Two or three fit on a host.
fn rank(spec: &mut ServiceSpec, number: usize) {
    spec.reservation.cpu_millis = 2_000 + 1_000 * (number as u64 % 3);
    spec.policy.priority = 10 * (number as i32 % 4);
    spec.drain_ms = Some(500);
}

/// Of three services the second waits for the first, and the third for both.
fn chain(spec: &mut ServiceSpec, number: usize) {
    let first = number - number % 3;
    let conditions = [Condition::ServiceHealthy, Condition::ServiceStarted];
    let earlier = (first..number).zip(conditions);
    spec.depends_on = earlier
        .map(|(number, condition)| Dependency {
            service: service(number),
            condition,
            required: true,
        })
        .collect();
}

/// Of three services the first is a job, the second one that runs every ten seconds, and the third
/// waits for the first.
fn work(spec: &mut ServiceSpec, number: usize) {
    let mut job = Job {
        completions: 3,
        parallelism: 2,
        retries: 6,
        backoff_ms: 200,
        ..Job::default()
    };
    match number % 3 {
        0 => {}
        1 => {
            job.completions = 1;
            job.schedule = Some(Schedule {
                cron: "*/10 * * * * *".to_owned(),
                catch_up: CatchUp::Last,
                ..Schedule::default()
            });
        }
        _ => {
            spec.depends_on.push(Dependency {
                service: service(number - 2),
                condition: Condition::ServiceCompletedSuccessfully,
                required: true,
            });
            return;
        }
    }
    spec.ports.clear();
    spec.job = Some(Box::new(job));
}

/// Checks quick enough for everything to happen several times in a run.
fn check_health(spec: &mut ServiceSpec, number: usize) {
    let check = HealthCheck {
        test: HealthTest::Http(HttpTest::default()),
        interval_ms: 1_000,
        timeout_ms: 500,
        retries: 2,
        successes: 1 + number as u32 % 2,
        ..HealthCheck::default()
    };
    match number % 3 {
        0 => spec.readiness = Some(check),
        _ => spec.health = Some(check),
    }
}

/// Services from this number on publish one and the same port on all nodes: only one of them can be
/// had, but in a divided cluster.
pub(super) const RIVALS: usize = 1_000_000;

/// The port that they want.
const RIVALS_PORT: u16 = 9_000;

/// A pattern for the names of the first five hosts.
pub(super) const SMALL_NUMBERS: &str = "^n[0-4]$";

/// Gives each service another trait.
fn vary(spec: &mut ServiceSpec, number: usize) {
    spec.policy.stop_isolated_after_ms = number.is_multiple_of(2).then_some(1_000);
    let zone = |op, value: &str| Constraint::new("node.labels.zone", op, value);
    let constraints = &mut spec.placement.constraints;
    match number % 6 {
        0 if number % 12 == 6 => spec.placement.affinity.push(service(number - 1)),
        0 => spec.placement.anti_affinity.push(service(number + 2)),
        1 => {
            // Two of these services want the same port.
            spec.ports[0].published = Some(8_000 + (number as u16 % 4));
            spec.ports[0].publish_mode = PublishMode::Host;
        }
        3 => {
            spec.mode = Mode::Global;
            spec.reservation.cpu_millis = 100;
            if number % 12 == 9 {
                constraints.push(zone(ConstraintOp::NotEqual, "z0"));
            }
        }
        2 => constraints.push(match number % 24 {
            8 => zone(ConstraintOp::In, "z0, z1"),
            14 => Constraint::new("node.kernel", ConstraintOp::AtLeast, "6.1.10"),
            _ => zone(ConstraintOp::NotEqual, "z2"),
        }),
        4 => constraints.push(match number % 24 {
            10 => Constraint::new("node.hostname", ConstraintOp::Matches, SMALL_NUMBERS),
            16 => zone(ConstraintOp::NotIn, "z0, z2"),
            _ => zone(ConstraintOp::Equal, "z1"),
        }),
        5 if number % 12 == 11 => spec.placement.spread.push(SpreadRule {
            max_skew: Some(1),
            ..SpreadRule::over("node.labels.zone")
        }),
        5 => spec.placement.max_per_node = Some(2),
        _ => {}
    }
}

/// Does it at a random node that is up.
pub(super) fn act(world: &mut World, op: Op) {
    let up: Vec<usize> = world
        .hosts
        .iter()
        .filter(|h| h.is_up())
        .map(|h| h.index)
        .collect();
    if up.is_empty() {
        return;
    }
    let host = up[world.rng.random_range(0..up.len())];
    let (change, commands) = match op {
        Op::Stack {
            first,
            count,
            replicas,
        } => {
            let deploy = |service| Op::Deploy {
                service,
                replicas: Some(replicas),
                version: 1,
            };
            let services = first..first + count;
            let all = services.map(|service| order(world, host, deploy(service)));
            let (changes, commands) = all.unzip();
            (Change::Stack(changes), commands)
        }
        op => {
            let (change, command) = order(world, host, op);
            (change, vec![command])
        }
    };
    remember_asked(&mut world.ops, &change);
    world.note(format!("asks n{host}: {change:?}"));
    world.ops.next += 1;
    let id = world.ops.next;
    world.ops.asked.insert(id, (host, change));
    world.propose(host, id, commands);
}

/// The command for what a person wants, and what it will have changed.
fn order(world: &World, host: usize, op: Op) -> (Change, Command) {
    match op {
        Op::Stack { first, .. } => unreachable!("a file of services from s{first} is taken apart"),
        Op::Deploy {
            service: number,
            replicas,
            version,
        } => {
            let key = service(number);
            let mut spec = Box::new(spec(number, version, world.ops.variety));
            if world.ops.variety == Variety::Strict {
                // Each service has other voters.
                let voters = (0..3).map(|n| world.hosts[(number + n) % world.hosts.len()].id);
                spec.policy.voters = voters.collect();
            }
            let engine = world.hosts[host].engine.as_ref();
            let known = engine.and_then(|e| e.desired().services.get(&key));
            let change = Change::Deployed {
                service: key.clone(),
                image: spec.image.clone(),
                replicas: replicas.unwrap_or(1),
                before: known.map(|s| s.spec.image.clone()),
            };
            let service = key;
            let command = Command::Deploy {
                service,
                spec,
                replicas,
            };
            (change, command)
        }
        Op::Scale {
            service: number,
            replicas,
        } => {
            let service = service(number);
            let change = Change::Scaled {
                service: service.clone(),
                replicas,
            };
            (change, Command::Scale { service, replicas })
        }
        Op::Remove { service: number } => {
            let service = service(number);
            let change = Change::Removed(service.clone());
            (change, Command::Remove { service })
        }
        Op::Drain {
            host: which,
            drained,
        } => {
            let availability = if drained {
                Availability::Drained
            } else {
                Availability::Active
            };
            let node = world.hosts[which].id;
            let command = Command::SetAvailability { node, availability };
            (Change::Other, command)
        }
    }
}

fn remember_asked(ops: &mut Ops, change: &Change) {
    match change {
        Change::Deployed {
            service,
            image,
            replicas,
            ..
        } => {
            let writes = ops.images.entry(service.clone()).or_default();
            writes.asked.insert(image.clone());
            let writes = ops.scales.entry(service.clone()).or_default();
            writes.asked.insert(replicas.to_string());
        }
        Change::Scaled { service, replicas } => {
            let writes = ops.scales.entry(service.clone()).or_default();
            writes.asked.insert(replicas.to_string());
        }
        Change::Removed(service) => {
            // It may happen from now on, whatever the answer will be.
            ops.created.remove(service);
        }
        Change::Stack(changes) => changes.iter().for_each(|c| remember_asked(ops, c)),
        Change::Other => {}
    }
}

/// A node has answered a write.
pub(super) fn answered(world: &mut World, host: usize, id: u64, result: Result<bool, Rejection>) {
    let Some((_, change)) = world.ops.asked.remove(&id) else {
        world.violation(format!("n{host} answers a write twice"));
        return;
    };
    match result {
        Ok(changed) => {
            world.note(format!("n{host} accepts {change:?}"));
            accept(&mut world.ops, &change);
            if changed {
                start_spreading(world, host, change);
            }
            if world.ops.crash_on_accept && world.rng.random_bool(0.3) {
                lose_power(world, host);
            }
        }
        Err(rejection) => world.note(format!("n{host} refuses {change:?}: {rejection}")),
    }
}

fn accept(ops: &mut Ops, change: &Change) {
    match change {
        Change::Deployed {
            service,
            image,
            before,
            ..
        } => {
            ops.created.insert(service.clone());
            let writes = ops.images.entry(service.clone()).or_default();
            writes.accept(image, before.as_ref());
        }
        Change::Scaled { service, replicas } => {
            let writes = ops.scales.entry(service.clone()).or_default();
            writes.accept(&replicas.to_string(), None);
        }
        Change::Removed(service) => {
            ops.removed.insert(service.clone());
        }
        Change::Stack(changes) => changes.iter().for_each(|c| accept(ops, c)),
        Change::Other => {}
    }
}

/// Power is lost just when a write was acknowledged: the worst moment.
fn lose_power(world: &mut World, host: usize) {
    let at = world.now + world.rng.random_range(0..2_000);
    world.plan(at, Fault::PowerOff(host));
    let back = at + world.rng.random_range(SECOND..4 * SECOND);
    world.plan(back, Fault::Start(host));
}

fn start_spreading(world: &mut World, host: usize, change: Change) {
    if matches!(change, Change::Other | Change::Removed(_)) {
        return;
    }
    let missing: BTreeSet<usize> = world
        .hosts
        .iter()
        .filter(|h| h.is_up() && h.index != host && world.network.connects(h.index, host))
        .filter(|h| h.stalled_until <= world.now)
        .map(|h| h.index)
        .collect();
    world.ops.spreading.push(Spreading {
        accepted: world.now,
        change,
        missing,
    });
    let hosts: Vec<usize> = world.hosts.iter().map(|h| h.index).collect();
    hosts.into_iter().for_each(|h| spread(world, h));
}

/// A node's desired state has changed: which writes have arrived?
pub(super) fn spread(world: &mut World, host: usize) {
    let Some(engine) = world.hosts[host].engine.as_ref() else {
        return;
    };
    let desired = engine.desired();
    let now = world.now;
    let mut done = Vec::new();
    world.ops.spreading.retain_mut(|spreading| {
        if has(desired, &spreading.change) {
            spreading.missing.remove(&host);
        }
        if spreading.missing.is_empty() {
            done.push(now - spreading.accepted);
        }
        !spreading.missing.is_empty()
    });
    world.outcome.propagation.extend(done);
}

fn has(desired: &Desired, change: &Change) -> bool {
    let service = |key| desired.services.get(key);
    match change {
        Change::Deployed {
            service: key,
            image,
            ..
        } => service(key).is_some_and(|s| s.spec.image == *image),
        Change::Scaled {
            service: key,
            replicas,
        } => service(key).is_some_and(|s| s.replicas == *replicas),
        Change::Stack(changes) => changes.iter().all(|change| has(desired, change)),
        Change::Removed(_) | Change::Other => true,
    }
}

/// Writes that a fault or a later write has overtaken are not measured.
pub(super) fn forget_spreading(world: &mut World) {
    world.ops.spreading.clear();
}

/// A daemon is gone: what it had not answered may or may not have happened.
pub(super) fn asker_gone(world: &mut World, host: usize) {
    world.ops.asked.retain(|_, (asked, _)| *asked != host);
}
