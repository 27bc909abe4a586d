//! How well a replica would sit on a node that may take it, as one integer.
//!
//! From the greatest part to the smallest: replicas of the same service on the node (when
//! spreading), preferences, load, and a hash that breaks ties alike everywhere. Spreading over
//! labels is not part of it: that depends on other nodes too ([`super::Domains`]).

use dunlin_state::model::{Preferred, ServiceKey, ServiceSpec, Strategy};

use super::{NodeView, facts};
use crate::hashing::{mix, node_hash, service_hash};

/// One replica of the same service on the node outweighs any load: spreading comes first.
const SAME_SERVICE_WEIGHT: i64 = 2_000_000_000_000;

/// Replicas of one service on one node beyond which more make no difference; keeps scores in range.
const MAX_SAME_SERVICE: u32 = 1_000_000;

/// One millionth of load outweighs any tie-break.
const LOAD_WEIGHT: i64 = 1_000_000;

/// A preference of weight 100 weighs as much as a full node.
const PREFERENCE_WEIGHT: i64 = LOAD_WEIGHT * FULL_PPM as i64 / 100;

/// Replicas per core that count as a full node when nothing is reserved: an idle process or
/// container costs about a sixteenth of a core's attention. Only relative sizes matter.
const REPLICAS_PER_CORE: u64 = 16;

/// A full node, in millionths.
const FULL_PPM: u64 = 1_000_000;

/// Comparable between nodes for one service only; higher is better.
pub(super) fn score(spec: &ServiceSpec, service: &ServiceKey, node: &NodeView) -> i64 {
    let hash = mix(node_hash(node.id), service_hash(service));
    let same = node.services.get(service).copied().unwrap_or(0);
    let same = same.min(MAX_SAME_SERVICE);
    let tie = small(hash, LOAD_WEIGHT);
    let load = load_after(spec, node).saturating_mul(LOAD_WEIGHT);
    let strategy = match spec.placement.strategy {
        Strategy::Spread => -(i64::from(same) * SAME_SERVICE_WEIGHT) - load - tie,
        Strategy::Pack => load - tie,
        // As large as load could be. Another replica on the same node draws again.
        Strategy::Random => -small(mix(hash, u64::from(same)), LOAD_WEIGHT * FULL_PPM as i64),
    };
    strategy.saturating_add(preferences(spec, node))
}

fn preferences(spec: &ServiceSpec, node: &NodeView) -> i64 {
    let Wishes { company, node } = wishes(spec, node);
    company
        .saturating_add(node)
        .saturating_mul(PREFERENCE_WEIGHT)
}

/// The weights of the preferences that a node fulfils.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wishes {
    /// Of those for other services there.
    pub(crate) company: i64,
    /// Of those for what the node is.
    pub(crate) node: i64,
}

pub(crate) fn wishes(spec: &ServiceSpec, node: &NodeView) -> Wishes {
    let mut sums = Wishes::default();
    for preference in &spec.placement.preferences {
        let weight = i64::from(preference.weight);
        match &preference.of {
            Preferred::Service(other) if node.services.contains_key(other) => {
                sums.company = sums.company.saturating_add(weight);
            }
            Preferred::Constraint(constraint)
                if constraint.holds(facts::value(constraint.key(), node).as_deref()) =>
            {
                sums.node = sums.node.saturating_add(weight);
            }
            Preferred::Service(_) | Preferred::Constraint(_) => {}
        }
    }
    sums
}

/// How full a node is, in millionths: what it has least left of decides. Unlike scores it is the same
/// for all services.
pub(crate) fn fullness(node: &NodeView) -> u64 {
    let taken = node.committed.plus(node.offered);
    let room = u64::from(node.facts.cpus.max(1)) * REPLICAS_PER_CORE;
    let parts = [
        fraction_ppm(taken.cpu_millis, node.capacity.cpu_millis),
        fraction_ppm(taken.memory, node.capacity.memory),
        fraction_ppm(taken.disk, node.capacity.disk),
        fraction_ppm(u64::from(node.replicas()), room),
    ];
    parts.into_iter().max().unwrap_or(0)
}

/// A hash as a number below `end`.
fn small(hash: u64, end: i64) -> i64 {
    i64::try_from(hash % end.unsigned_abs()).unwrap_or(0)
}

/// How full the node would be with one more replica, in millionths: the weighted mean of what is
/// taken of each resource.
fn load_after(spec: &ServiceSpec, node: &NodeView) -> i64 {
    let taken = node.committed.plus(spec.reservation);
    let room = u64::from(node.facts.cpus.max(1)) * REPLICAS_PER_CORE;
    let weights = spec.placement.weights;
    let parts = [
        (
            weights.cpu,
            fraction_ppm(taken.cpu_millis, node.capacity.cpu_millis),
        ),
        (
            weights.memory,
            fraction_ppm(taken.memory, node.capacity.memory),
        ),
        (weights.disk, fraction_ppm(taken.disk, node.capacity.disk)),
        (
            weights.replicas,
            fraction_ppm(u64::from(node.replicas()) + 1, room),
        ),
    ];
    let total: u64 = parts.iter().map(|(weight, _)| u64::from(*weight)).sum();
    let parts = parts.iter().map(|(weight, part)| u64::from(*weight) * part);
    i64::try_from(parts.sum::<u64>() / total.max(1)).unwrap_or(i64::MAX)
}

fn fraction_ppm(part: u64, whole: u64) -> u64 {
    if part == 0 {
        return 0;
    }
    let ppm = u128::from(part) * u128::from(FULL_PPM) / u128::from(whole.max(1));
    u64::try_from(ppm).unwrap_or(FULL_PPM).min(FULL_PPM)
}
