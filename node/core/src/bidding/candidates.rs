//! Whom to ask for bids.

use std::collections::BTreeSet;

use dunlin_state::desired::Desired;
use dunlin_state::model::{NodeId, Resources, ServiceKey, ServiceSpec, Strategy};
use rand::Rng;

use crate::cluster::Cluster;
use crate::placement::{NodeView, matches_constraints};

/// Up to so many living nodes all are asked: the round trip costs the same, and the choice is best.
const ASK_ALL: usize = 64;

/// Nodes asked in larger clusters for a few slots: the best of 32 random nodes is among the best
/// nine percent with 95 % probability (1 - 0.91^32).
const SAMPLE: usize = 32;

/// Nodes asked at most when many slots are vacant, so that they spread.
const MAX_SAMPLE: usize = 256;

/// Slots of one round when all nodes are asked.
const MAX_SLOTS: usize = 1_024;

/// Who is asked, for how many slots.
pub(super) struct Invitation {
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) slots: usize,
}

/// All living nodes when they are few; else a sample that prefers nodes with much free capacity
/// (with little when packing), drawn among those that satisfy the constraints and have room. This
/// node is always among them.
pub(super) fn invite(
    cluster: &Cluster,
    desired: &Desired,
    service: &ServiceKey,
    spec: &ServiceSpec,
    vacant: usize,
    rng: &mut impl Rng,
) -> Invitation {
    let alive = cluster.alive().len();
    if alive <= ASK_ALL {
        return Invitation {
            nodes: cluster.alive().collect(),
            slots: vacant.min(MAX_SLOTS),
        };
    }
    let matching = cluster
        .alive()
        .filter(|node| may_match(cluster, desired, spec, *node));
    let (roomy, full): (Vec<NodeId>, Vec<NodeId>) =
        matching.partition(|node| has_room(cluster, spec, *node));
    // Registers are some milliseconds old: where none has room, all are asked about it.
    let pool = if roomy.is_empty() { full } else { roomy };
    let size = vacant.clamp(SAMPLE, MAX_SAMPLE).min(pool.len());
    let mut nodes = BTreeSet::from([cluster.me()]);
    // Two random nodes, the better one of them: the power of two choices. The bound on draws only
    // matters when the pool is nearly exhausted.
    for _ in 0..size * 4 {
        if nodes.len() > size {
            break;
        }
        let (Some(a), Some(b)) = (draw(&pool, rng), draw(&pool, rng)) else {
            break;
        };
        let b_is_freer = is_freer(free(cluster, b), free(cluster, a));
        let better = match spec.placement.strategy {
            Strategy::Spread => b_is_freer,
            Strategy::Pack => !b_is_freer,
            Strategy::Random => true,
        };
        nodes.insert(if better { b } else { a });
    }
    // The next in rank hear the call and know that they need not take over.
    nodes.extend(cluster.auctioneers(service));
    let slots = vacant.min(nodes.len());
    Invitation { nodes, slots }
}

/// Whether the node's register admits the constraints; without a register it is asked.
fn may_match(cluster: &Cluster, desired: &Desired, spec: &ServiceSpec, node: NodeId) -> bool {
    if spec.placement.constraints.is_empty() {
        return true;
    }
    cluster.register(node).is_none_or(|register| {
        let view = NodeView::conditions(node, &register.report, cluster.standing(node), desired);
        matches_constraints(spec, &view)
    })
}

/// Whether a replica fits by what the node has reported.
fn has_room(cluster: &Cluster, spec: &ServiceSpec, node: NodeId) -> bool {
    spec.reservation == Resources::ZERO || spec.reservation.fits_in(free(cluster, node).0)
}

fn draw(pool: &[NodeId], rng: &mut impl Rng) -> Option<NodeId> {
    let len = u64::try_from(pool.len()).ok()?;
    let index = rng.next_u64().checked_rem(len)?;
    pool.get(usize::try_from(index).ok()?).copied()
}

/// What a node has free and how many replicas it has, by its register.
fn free(cluster: &Cluster, node: NodeId) -> (Resources, usize) {
    cluster.register(node).map_or((Resources::ZERO, 0), |r| {
        let taken = r.report.claims.iter();
        let taken = taken.fold(Resources::ZERO, |sum, claim| sum.plus(claim.resources));
        (r.report.capacity.minus(taken), r.report.claims.len())
    })
}

/// More CPU decides, then memory, then fewer replicas.
fn is_freer(a: (Resources, usize), b: (Resources, usize)) -> bool {
    let key = |(free, replicas): (Resources, usize)| {
        (free.cpu_millis, free.memory, std::cmp::Reverse(replicas))
    };
    key(a) > key(b)
}
