//! What people do to the simulated cluster, and what becomes of it.

mod specs;

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::{Command, Desired, Rejection};
use dunlin_state::model::{Availability, Quota, Rebalancing, ServiceKey};
use rand::RngExt as _;

use super::check;
use super::faults::Fault;
use super::runtime::MISSING_IMAGE;
use super::world::{SECOND, World};
use specs::spec;
pub(super) use specs::{RIVALS, SMALL_NUMBERS};

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
    /// Bound what all services want together.
    Quota {
        /// Thousandths of a core.
        cpu_millis: Option<u64>,
        /// How many.
        replicas: Option<u64>,
    },
    /// Even out the nodes now.
    Rebalance,
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
    Quota,
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
    /// Plain ones that may want only so much together.
    Bounded,
    /// Plain ones of four priorities and three sizes, more than fit.
    Ranked,
    /// Of which there must never be two.
    Strict,
    /// With volumes of all kinds.
    Volumes,
    /// As many as their load needs.
    Following,
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

    /// The least number that was asked for.
    pub(super) fn least(&self) -> u32 {
        let numbers = self.asked.iter().filter_map(|text| text.parse().ok());
        numbers.min().unwrap_or(1)
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
    check::quota_before(world, host, id);
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
        } => deploy(world, host, number, replicas, version),
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
        Op::Quota {
            cpu_millis,
            replicas,
        } => {
            let quota = Quota {
                cpu_millis,
                replicas,
                memory: None,
            };
            let namespace = "default".to_owned();
            (Change::Quota, Command::SetQuota { namespace, quota })
        }
        Op::Rebalance => {
            let asked = Some(world.hosts[host].now(world.now).wall);
            let rules = Rebalancing {
                asked,
                ..Rebalancing::default()
            };
            (Change::Other, Command::SetRebalancing(rules))
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

/// A service is created, or given another image.
fn deploy(
    world: &World,
    host: usize,
    number: usize,
    replicas: Option<u32>,
    version: u32,
) -> (Change, Command) {
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
        Change::Quota | Change::Other => {}
    }
}

/// A node has answered a write.
pub(super) fn answered(world: &mut World, host: usize, id: u64, result: Result<bool, Rejection>) {
    let Some((_, change)) = world.ops.asked.remove(&id) else {
        world.violation(format!("n{host} answers a write twice"));
        return;
    };
    let wish = match &change {
        Change::Quota => check::QuotaWish::Bounds,
        Change::Scaled { service, replicas } => check::QuotaWish::Scale(service.clone(), *replicas),
        Change::Deployed { .. } | Change::Removed(_) | Change::Stack(_) | Change::Other => {
            check::QuotaWish::Other
        }
    };
    check::quota_after(world, host, id, &result, &wish);
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
        Change::Quota | Change::Other => {}
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
    if matches!(change, Change::Other | Change::Quota | Change::Removed(_)) {
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
        Change::Removed(_) | Change::Quota | Change::Other => true,
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
