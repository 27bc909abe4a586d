//! Where the data of volumes is that slots need, and where it would be begun by a plan.
//!
//! A volume that nobody has is made by the first replica that needs it, and all others follow that
//! one. So a plan remembers what it has given away.

use std::collections::BTreeMap;

use dunlin_state::model::{NodeId, ServiceSpec, SlotId, VolumeId};

use crate::cluster::Cluster;
use crate::placement::Reason;
use crate::volumes::{self, Elsewhere, Keeper};

/// A volume that decides where a slot runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePlan {
    /// Which.
    pub volume: VolumeId,
    /// Whose copy decides, or who would make it.
    pub node: NodeId,
    /// That node's name.
    pub name: String,
    /// Whether nobody has it yet.
    pub begins: bool,
    /// Names of nodes that have a copy which does not count.
    pub unused: Vec<String>,
}

/// What a plan knows of volumes.
pub(super) struct Data<'d> {
    cluster: &'d Cluster,
    begun: BTreeMap<VolumeId, NodeId>,
}

impl<'d> Data<'d> {
    pub(super) fn new(cluster: &'d Cluster) -> Self {
        Self {
            cluster,
            begun: BTreeMap::new(),
        }
    }

    /// Data that a slot needs and this node does not have.
    pub(super) fn lacks(&self, slot: &SlotId, spec: &ServiceSpec, node: NodeId) -> Vec<Reason> {
        let mut lacks = volumes::lacks(self.cluster, &slot.service, spec, slot.slot, node);
        for volume in pinning(spec, slot) {
            let Some(begun) = self.begun.get(&volume).filter(|begun| **begun != node) else {
                continue;
            };
            lacks.push(Reason::DataElsewhere(Box::new(Elsewhere {
                volume,
                node: *begun,
                name: self.name(*begun),
                keeper: Keeper::Begins,
            })));
        }
        lacks
    }

    /// The slot goes there, and makes what nobody has.
    pub(super) fn begin(&mut self, slot: &SlotId, spec: &ServiceSpec, node: NodeId) {
        for volume in pinning(spec, slot) {
            if self.cluster.atlas().home(&volume).is_none() {
                self.begun.entry(volume).or_insert(node);
            }
        }
    }

    /// The volumes that decide where a slot goes.
    pub(super) fn of(&self, slot: &SlotId, spec: &ServiceSpec) -> Vec<VolumePlan> {
        let atlas = self.cluster.atlas();
        let decided = pinning(spec, slot).filter_map(|volume| {
            let home = atlas.home(&volume).map(|(node, _)| node);
            let node = home.or_else(|| self.begun.get(&volume).copied())?;
            let copies = atlas.copies_of(&volume).filter(|copy| *copy != node);
            Some(VolumePlan {
                node,
                name: self.name(node),
                begins: home.is_none(),
                unused: copies.map(|copy| self.name(copy)).collect(),
                volume,
            })
        });
        decided.collect()
    }

    fn name(&self, node: NodeId) -> String {
        let register = self.cluster.register(node);
        let name = register.map(|register| register.report.name.as_str());
        let name = name.or_else(|| self.cluster.atlas().name(node));
        name.map_or_else(|| node.short(), str::to_owned)
    }
}

fn pinning(spec: &ServiceSpec, slot: &SlotId) -> impl Iterator<Item = VolumeId> {
    spec.volumes.iter().filter_map(|mount| mount.pinning(slot))
}
