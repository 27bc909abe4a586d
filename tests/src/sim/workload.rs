//! What people do to the simulated cluster, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::{Command, Rejection};
use dunlin_state::model::{Availability, PortSpec, Resources, ServiceKey, ServiceSpec};
use rand::RngExt as _;

use super::runtime::MISSING_IMAGE;
use super::world::World;

/// Something a person does, at whichever node answers.
#[derive(Debug, Clone)]
pub enum Op {
    /// Create a service or give it another image.
    Deploy {
        /// Its number.
        service: usize,
        /// Its scale, when given.
        replicas: Option<u32>,
        /// Distinguishes images.
        version: u32,
    },
    /// Change its scale.
    Scale {
        /// Its number.
        service: usize,
        /// The new scale.
        replicas: u32,
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
    Deployed { service: ServiceKey, image: String },
    Scaled { service: ServiceKey, replicas: u32 },
    Other,
}

/// What was asked and what was accepted.
#[derive(Debug, Default)]
pub struct Ops {
    next: u64,
    asked: BTreeMap<u64, (usize, Change)>,
    spreading: Vec<Spreading>,
    /// Services whose creation was accepted: they exist for ever.
    pub(super) created: BTreeSet<ServiceKey>,
    /// Scales that were accepted, by service.
    pub(super) scales: BTreeMap<ServiceKey, BTreeSet<u32>>,
    /// Images that were accepted, by service.
    pub(super) images: BTreeMap<ServiceKey, BTreeSet<String>>,
    /// Whether some write was asked for and never answered.
    pub(super) unanswered: bool,
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

fn image(number: usize, version: u32) -> String {
    // Every seventh service names an image that nobody has.
    let registry = if number % 7 == 6 {
        MISSING_IMAGE
    } else {
        "registry/"
    };
    format!("{registry}s{number}:{version}")
}

fn spec(number: usize, version: u32) -> ServiceSpec {
    ServiceSpec {
        image: image(number, version),
        ports: vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }],
        reservation: Resources {
            cpu_millis: 100 + 50 * (number as u64 % 5),
            memory: 64 << 20,
            disk: 0,
        },
        ..ServiceSpec::default()
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
    let (change, command) = match op {
        Op::Deploy {
            service: number,
            replicas,
            version,
        } => {
            let key = service(number);
            let spec = Box::new(spec(number, version));
            let change = Change::Deployed {
                service: key.clone(),
                image: spec.image.clone(),
            };
            (
                change,
                Command::Deploy {
                    service: key,
                    spec,
                    replicas,
                },
            )
        }
        Op::Scale {
            service: number,
            replicas,
        } => {
            let key = service(number);
            let change = Change::Scaled {
                service: key.clone(),
                replicas,
            };
            (
                change,
                Command::Scale {
                    service: key,
                    replicas,
                },
            )
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
            (
                Change::Other,
                Command::SetAvailability { node, availability },
            )
        }
    };
    world.note(format!("asks n{host}: {change:?}"));
    world.ops.next += 1;
    let id = world.ops.next;
    world.ops.asked.insert(id, (host, change));
    world.propose(host, id, vec![command]);
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
            accept(world, &change);
            if changed {
                start_spreading(world, host, change);
            }
        }
        Err(rejection) => world.note(format!("n{host} refuses {change:?}: {rejection}")),
    }
}

fn accept(world: &mut World, change: &Change) {
    let ops = &mut world.ops;
    match change {
        Change::Deployed { service, image } => {
            ops.created.insert(service.clone());
            ops.images
                .entry(service.clone())
                .or_default()
                .insert(image.clone());
        }
        Change::Scaled { service, replicas } => {
            ops.scales
                .entry(service.clone())
                .or_default()
                .insert(*replicas);
        }
        Change::Other => {}
    }
}

fn start_spreading(world: &mut World, host: usize, change: Change) {
    if matches!(change, Change::Other) {
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
    let has = |change: &Change| match change {
        Change::Deployed { service, image } => desired
            .services
            .get(service)
            .is_some_and(|s| s.spec.image == *image),
        Change::Scaled { service, replicas } => desired
            .services
            .get(service)
            .is_some_and(|s| s.replicas == *replicas),
        Change::Other => true,
    };
    let now = world.now;
    let mut done = Vec::new();
    world.ops.spreading.retain_mut(|spreading| {
        if has(&spreading.change) {
            spreading.missing.remove(&host);
        }
        if spreading.missing.is_empty() {
            done.push(now - spreading.accepted);
        }
        !spreading.missing.is_empty()
    });
    world.outcome.propagation.extend(done);
}

/// Writes that a fault or a later write has overtaken are not measured.
pub(super) fn forget_spreading(world: &mut World) {
    world.ops.spreading.clear();
}

/// A daemon is gone: what it had not answered may or may not have happened.
pub(super) fn asker_gone(world: &mut World, host: usize) {
    let before = world.ops.asked.len();
    world.ops.asked.retain(|_, (asked, _)| *asked != host);
    world.ops.unanswered |= world.ops.asked.len() != before;
}
