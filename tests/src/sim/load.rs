//! The load on services that follow it: how many connections people have open, and what each node
//! measures of them.

use std::collections::BTreeMap;

use dunlin_core::io::Input;
use dunlin_state::model::{Load, Metric, ServiceKey};
use rand::RngExt as _;

use super::workload::service;
use super::world::{SECOND, World};

/// Connections that one replica shall have.
pub(super) const TARGET: u64 = 100;

/// Most replicas of a service.
pub(super) const MOST: u32 = 6;

/// Thousandths by which what is measured differs from one second to the next.
const NOISE: u64 = 30;

/// How often the load changes before it stays as it is.
const CHANGES: u64 = 4;

/// Microseconds between two measurements.
pub(super) const EVERY: u64 = SECOND;

/// Measurements for which the load stays as it is: many times the windows of those that follow it.
const STAY: u64 = 60;

/// Connections that are open to each service, from a time on.
#[derive(Debug, Default)]
pub(super) struct Loads {
    planned: BTreeMap<(u64, ServiceKey), u64>,
    now: BTreeMap<ServiceKey, u64>,
}

impl Loads {
    /// Connections that are open to a service.
    pub(super) fn of(&self, service: &ServiceKey) -> u64 {
        self.now.get(service).copied().unwrap_or(0)
    }
}

/// Plans the load of all services between two times; after that it stays as it is.
pub(super) fn plan(world: &mut World, services: usize, from: u64, until: u64) {
    for number in 0..services {
        for change in 0..=CHANGES {
            let at = match change {
                0 => from,
                _ => world.rng.random_range(from..until),
            };
            // Nobody, some, or more than is allowed for.
            let connections = match world.rng.random_range(0..4) {
                0 => 0,
                1 => 2 * TARGET * u64::from(MOST),
                _ => world.rng.random_range(1..TARGET * u64::from(MOST)),
            };
            world
                .loads
                .planned
                .insert((at, service(number)), connections);
        }
    }
}

/// Every load changes by several replicas.
pub(super) fn turn(world: &mut World) {
    world.watch.steady = false;
    for connections in world.loads.now.values_mut() {
        let most = TARGET * u64::from(MOST);
        *connections = match *connections < most / 2 {
            true => most - TARGET,
            false => TARGET / 2,
        };
    }
}

/// Every node that runs measures its share. Called each second.
pub(super) fn measure(world: &mut World) {
    while let Some(((at, _), _)) = world.loads.planned.first_key_value()
        && *at <= world.now
    {
        if let Some(((_, service), connections)) = world.loads.planned.pop_first() {
            world.note(format!("{connections} connections to {service}"));
            world.loads.now.insert(service, connections);
        }
    }
    if world.loads.now.is_empty() {
        return;
    }
    let hosts: Vec<usize> = world.hosts.iter().map(|h| h.index).collect();
    let up: Vec<usize> = hosts
        .into_iter()
        .filter(|h| world.hosts[*h].is_up() && world.hosts[*h].stalled_until <= world.now)
        .collect();
    let count = up.len().max(1) as u64;
    for (place, host) in up.into_iter().enumerate() {
        let samples = samples(world, host, place as u64, count);
        world.deliver(host, Input::Measured(samples));
    }
}

/// The connections that come in through one of so many nodes.
fn samples(world: &mut World, host: usize, place: u64, count: u64) -> BTreeMap<ServiceKey, Load> {
    let mut samples = BTreeMap::new();
    let all: Vec<(ServiceKey, u64)> = world.loads.now.clone().into_iter().collect();
    for (service, connections) in all {
        let share = connections / count + u64::from(place < connections % count);
        let noise = world.rng.random_range(0..=2 * NOISE);
        let seen = (share * (1_000 + noise - NOISE)).div_ceil(1_000);
        let engine = world.hosts[host].engine.as_ref();
        let routes = engine.and_then(|e| e.desired().services.get(&service));
        let asleep = routes.is_some_and(|s| s.wakes() && s.replicas == 0);
        let load = Load {
            amounts: [(Metric::Connections, seen)].into(),
            waits: asleep && share > 0,
            ..Load::default()
        };
        samples.insert(service, load);
    }
    samples
}

/// Nothing changes for a minute, and no number of replicas may.
pub(super) fn stay(world: &mut World) {
    // A run ends at its first violation, whatever was planned.
    if !world.outcome.violations.is_empty() {
        return;
    }
    assert!(world.loads.planned.is_empty(), "the load was to stay");
    world.watch.steady = true;
    for _ in 0..STAY {
        let next = world.now + EVERY;
        world.run_until(next);
        measure(world);
    }
}
