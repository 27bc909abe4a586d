//! The data of volumes: who has it, and what people do with it.

use dunlin_state::Now;
use dunlin_state::model::{HeldVolume, NodeId, NodeRegister, SlotId, VolumeId};

use super::{Agent, Output, push_reconciled};
use crate::liveness::Standing;

/// Milliseconds before a list of volumes is written again that the disk has refused.
const WRITE_AGAIN_MS: u64 = 5_000;

/// A copy of a volume, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeCopy {
    /// What its node says of it.
    pub held: HeldVolume,
    /// Which node.
    pub node: NodeId,
    /// That node's name.
    pub name: String,
    /// What is believed of its life.
    pub standing: Standing,
    /// Whether this copy is the one that replicas get.
    pub counts: bool,
}

impl Agent {
    /// What a node has said of its volumes, from elsewhere than its present register.
    pub fn learn_volumes(&mut self, register: &NodeRegister, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        if register.node != self.me && self.cluster.learn_volumes(register) {
            self.volumes_changed(now);
            self.settle(now, &mut out);
        }
        out
    }

    /// Everything that may have waited for data, or has to give way to it, is looked at again.
    pub(super) fn volumes_changed(&mut self, now: Now) {
        let desired = &self.desired;
        let uses = |service: &&_| {
            let known = desired.services.get(service);
            known.is_some_and(|known| !known.spec.volumes.is_empty())
        };
        let watched = self.cluster.watched().filter(uses);
        self.dirty.extend(watched.cloned());
        self.auctioneer.nudge(now.mono);
    }

    /// Writes what volumes there are, when it is time.
    pub(super) fn persist_volumes(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.volumes_due.is_some_and(|due| due <= now.mono) {
            self.volumes_due = None;
            let volumes = self.reconciler.volumes().cloned().collect();
            out.push(Output::PersistVolumes(volumes));
        }
    }

    /// The list of volumes that was asked to be written last is on disk, or is not.
    pub fn volumes_written(&mut self, written: bool, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        if written {
            let effects = self.with_world(|r, world| r.volumes_written(world, now));
            push_reconciled(effects, &mut out);
        } else {
            let again = now.mono.saturating_add(WRITE_AGAIN_MS);
            self.volumes_due.get_or_insert(again);
        }
        self.settle(now, &mut out);
        out
    }

    /// Data of a volume has come to this node.
    pub fn put_volume(&mut self, volume: VolumeId, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let known = self.cluster.atlas().generation(&volume);
        self.reconciler.put_volume(volume, known, now);
        self.settle(now, &mut out);
        out
    }

    /// Data of a volume was deleted on this node.
    pub fn drop_volume(&mut self, volume: &VolumeId, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        self.reconciler.drop_volume(volume);
        self.settle(now, &mut out);
        out
    }

    /// Every copy of every volume, by volume and node.
    pub fn volumes(&self) -> Vec<VolumeCopy> {
        let atlas = self.cluster.atlas();
        let copies = atlas.copies().map(|(node, held)| VolumeCopy {
            held: held.clone(),
            node,
            name: atlas.name(node).unwrap_or_default().to_owned(),
            standing: self.cluster.standing(node),
            counts: atlas
                .home(&held.volume)
                .is_some_and(|(home, _)| home == node),
        });
        copies.collect()
    }

    /// The slots on this node that have the volume and may be running.
    pub fn volume_users(&self, volume: &VolumeId) -> Vec<SlotId> {
        self.reconciler.users_of(volume)
    }
}
