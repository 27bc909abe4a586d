//! Which nodes have the data of which volumes, and what follows from that for placement.
//!
//! Nodes tell in their registers what they have; the [`Atlas`] is the index of that, and keeps what
//! was said by nodes that are gone, however long ago. Of several copies one counts, the same
//! everywhere ([`HeldVolume::precedence`]); the others are shown, never used by placement and never
//! deleted. A slot runs where that copy is: other nodes do not bid for it, do not take it and do
//! not start it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_state::model::{
    HeldVolume, NodeId, ServiceKey, ServiceSpec, Slot, SlotId, Version, VolumeId, VolumeScope,
};
use dunlin_state::windows::in_words;
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::liveness::Standing;
use crate::placement::Reason;

/// Who has what.
#[derive(Debug, Default)]
pub(crate) struct Atlas {
    nodes: BTreeMap<NodeId, Entry>,
    copies: BTreeMap<VolumeId, BTreeMap<NodeId, HeldVolume>>,
}

/// What a node has said last.
#[derive(Debug)]
struct Entry {
    name: String,
    version: Version,
    volumes: BTreeSet<VolumeId>,
}

impl Atlas {
    /// Takes a node's word, unless a later one is known. Returns whether anything has changed.
    pub(crate) fn set(
        &mut self,
        node: NodeId,
        version: Version,
        name: &str,
        volumes: &[HeldVolume],
    ) -> bool {
        let known = self.nodes.get(&node);
        if known.is_some_and(|known| known.version > version) {
            return false;
        }
        if known.is_none() && volumes.is_empty() {
            return false;
        }
        let new: BTreeSet<VolumeId> = volumes.iter().map(|held| held.volume.clone()).collect();
        let mut changed = false;
        let old = known.map(|known| known.volumes.clone()).unwrap_or_default();
        for gone in old.difference(&new) {
            changed = true;
            if let Some(copies) = self.copies.get_mut(gone) {
                copies.remove(&node);
                if copies.is_empty() {
                    self.copies.remove(gone);
                }
            }
        }
        for held in volumes {
            let copies = self.copies.entry(held.volume.clone()).or_default();
            changed |= copies.insert(node, held.clone()).as_ref() != Some(held);
        }
        // Kept without volumes as well, so that an older word does not bring them back.
        let entry = Entry {
            name: name.to_owned(),
            version,
            volumes: new,
        };
        self.nodes.insert(node, entry);
        changed
    }

    /// The copy that counts, and who has it.
    pub(crate) fn home(&self, volume: &VolumeId) -> Option<(NodeId, &HeldVolume)> {
        let copies = self.copies.get(volume)?.iter();
        let copies = copies.map(|(node, held)| (*node, held));
        copies.max_by(|a, b| HeldVolume::compare(*a, *b))
    }

    /// The highest generation of any copy; zero when there is none.
    pub(crate) fn generation(&self, volume: &VolumeId) -> u64 {
        let copies = self.copies.get(volume).into_iter().flatten();
        copies.map(|(_, held)| held.generation).max().unwrap_or(0)
    }

    /// Who has a copy of a volume, ordered.
    pub(crate) fn copies_of(&self, volume: &VolumeId) -> impl Iterator<Item = NodeId> {
        let copies = self.copies.get(volume).into_iter().flatten();
        copies.map(|(node, _)| *node)
    }

    /// All copies, by volume and node.
    pub(crate) fn copies(&self) -> impl Iterator<Item = (NodeId, &HeldVolume)> {
        let copies = self.copies.values().flatten();
        copies.map(|(node, held)| (*node, held))
    }

    /// The name of a node that has or had volumes, as it told it last.
    pub(crate) fn name(&self, node: NodeId) -> Option<&str> {
        self.nodes.get(&node).map(|known| known.name.as_str())
    }
}

/// Where the data of a volume is that a slot needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Which volume.
    pub volume: VolumeId,
    /// Who has the data.
    pub node: NodeId,
    /// That node's name.
    pub name: String,
    /// What is known of that node.
    pub keeper: Keeper,
}

/// What is known of the node that has the data of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// It answers.
    Answers,
    /// It has none yet: in a plan, an earlier replica would begin the volume there.
    Begins,
    /// It does not answer.
    Silent {
        /// Since when, in milliseconds since the Unix epoch; `None` when it has not answered since
        /// this node started.
        since: Option<u64>,
    },
    /// It said goodbye.
    Left,
}

impl Keeper {
    /// What this node knows of another.
    pub(crate) fn of(cluster: &Cluster, node: NodeId) -> Self {
        match cluster.standing(node) {
            Standing::Alive => Self::Answers,
            Standing::Left => Self::Left,
            Standing::Suspect | Standing::Gone => Self::Silent {
                since: cluster.silent_since(node),
            },
        }
    }
}

impl Elsewhere {
    /// What a person can do about it.
    pub(crate) fn fix(&self) -> String {
        let Self { volume, name, .. } = self;
        match self.keeper {
            Keeper::Answers => format!(
                "make room on {name}, or move the data with `dunlin volume export {volume}` and \
                 `dunlin volume import --node`"
            ),
            Keeper::Begins => format!("make room on {name} for all that share the volume"),
            Keeper::Silent { .. } => format!(
                "wait for {name}, bring the data with `dunlin volume import --node`, or begin with \
                 an empty one: `dunlin volume create --force {volume}`"
            ),
            Keeper::Left => format!(
                "let {name} join again, bring the data with `dunlin volume import --node`, or begin \
                 with an empty one: `dunlin volume create {volume}`"
            ),
        }
    }
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { volume, name, .. } = self;
        match self.keeper {
            Keeper::Answers => write!(f, "the data of volume {volume} is on {name}"),
            Keeper::Begins => write!(f, "volume {volume} would be begun on {name}"),
            Keeper::Silent { since: None } => write!(
                f,
                "the data of volume {volume} is on {name}, which does not answer"
            ),
            Keeper::Silent { since: Some(since) } => write!(
                f,
                "the data of volume {volume} is on {name}, which does not answer since {}",
                in_words(since)
            ),
            Keeper::Left => write!(
                f,
                "the data of volume {volume} is on {name}, which has left the cluster"
            ),
        }
    }
}

/// What stands against this slot on this node: data that it needs is on another one.
pub(crate) fn lacks(
    cluster: &Cluster,
    service: &ServiceKey,
    spec: &ServiceSpec,
    slot: Slot,
    node: NodeId,
) -> Vec<Reason> {
    let id = slot_id(service, slot);
    let pinned = spec.volumes.iter().filter_map(|mount| mount.pinning(&id));
    let elsewhere = pinned.filter_map(|volume| {
        let (home, _) = cluster.atlas().home(&volume)?;
        let elsewhere = || Elsewhere {
            name: cluster.atlas().name(home).unwrap_or_default().to_owned(),
            keeper: Keeper::of(cluster, home),
            node: home,
            volume,
        };
        (home != node).then(|| Reason::DataElsewhere(Box::new(elsewhere())))
    });
    elsewhere.collect()
}

/// The nodes that this slot's data is on: it can run only where that is one. Empty when it may run
/// anywhere.
pub(crate) fn homes(
    cluster: &Cluster,
    service: &ServiceKey,
    spec: &ServiceSpec,
    slot: Slot,
) -> BTreeSet<NodeId> {
    if spec.volumes.is_empty() {
        return BTreeSet::new();
    }
    let id = slot_id(service, slot);
    let pinned = spec.volumes.iter().filter_map(|mount| mount.pinning(&id));
    let homes = pinned.filter_map(|volume| Some(cluster.atlas().home(&volume)?.0));
    homes.collect()
}

/// The volume that binds a slot to wherever its data is, if any; the first of several.
pub(crate) fn pin(service: &ServiceKey, spec: &ServiceSpec, slot: Slot) -> Option<VolumeId> {
    let id = slot_id(service, slot);
    spec.volumes.iter().find_map(|mount| mount.pinning(&id))
}

/// Whether replicas share a volume that nobody has yet: one of them makes it, and the others follow.
pub(crate) fn begins_shared(cluster: &Cluster, service: &ServiceKey, spec: &ServiceSpec) -> bool {
    let id = slot_id(service, Slot::Replica(0));
    let mut shared = spec.volumes.iter();
    shared.any(|mount| {
        let volume = mount.pinning(&id);
        let volume = volume.filter(|_| mount.scope == VolumeScope::Node);
        volume.is_some_and(|volume| cluster.atlas().home(&volume).is_none())
    })
}

fn slot_id(service: &ServiceKey, slot: Slot) -> SlotId {
    SlotId {
        service: service.clone(),
        slot,
    }
}
