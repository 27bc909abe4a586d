//! Which slots can be auctioned in one round, where data decides who may take them.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{NodeId, ServiceKey, ServiceSpec, Slot};

use crate::cluster::Cluster;
use crate::liveness::Standing;
use crate::volumes;

/// Slots that belong together, and the nodes that have their data; none when it is nowhere yet.
pub(super) struct Group {
    pub(super) slots: Vec<u32>,
    pub(super) homes: BTreeSet<NodeId>,
}

/// Of slots whose data is on different nodes, those of one: where that node answers before others,
/// and each in its turn. Of slots that are to share what nobody has yet, the first.
pub(super) fn together(
    cluster: &Cluster,
    service: &ServiceKey,
    spec: &ServiceSpec,
    slots: Vec<u32>,
    turn: u64,
) -> Group {
    if spec.volumes.is_empty() {
        let homes = BTreeSet::new();
        return Group { slots, homes };
    }
    let mut groups: BTreeMap<BTreeSet<NodeId>, Vec<u32>> = BTreeMap::new();
    for slot in slots {
        let homes = volumes::homes(cluster, service, spec, Slot::Replica(slot));
        groups.entry(homes).or_default().push(slot);
    }
    let answers = |homes: &BTreeSet<NodeId>| {
        let mut homes = homes.iter();
        homes.all(|home| cluster.standing(*home) == Standing::Alive)
    };
    let (near, far): (Vec<_>, Vec<_>) = groups.into_iter().partition(|(h, _)| answers(h));
    let mut groups = if near.is_empty() { far } else { near };
    let len = u64::try_from(groups.len()).unwrap_or(u64::MAX).max(1);
    let index = usize::try_from(turn % len).unwrap_or_default();
    if groups.is_empty() {
        let (slots, homes) = (Vec::new(), BTreeSet::new());
        return Group { slots, homes };
    }
    let (homes, mut slots) = groups.swap_remove(index);
    if volumes::begins_shared(cluster, service, spec) {
        slots.truncate(1);
    }
    Group { slots, homes }
}
