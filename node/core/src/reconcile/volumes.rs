//! The volumes of which this node has data: made before a replica starts, and told to the others.
//!
//! A volume that nobody has is first only *reserved*. Two nodes may do that at once, each unaware of
//! the other, so a reservation settles for a moment, in which the worse of two gives way; and it is
//! on disk before anything can be written to the volume, so that no node ever has data without
//! knowing it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::Now;
use dunlin_state::model::{HeldVolume, MAX_VOLUMES, ServiceSpec, Slot, SlotId, VolumeId};

use super::held::{Held, Stage};
use super::{Effect, Reconciler, World};
use crate::volumes;

/// Milliseconds between reserving a volume and starting what writes to it: ten times what a
/// register takes to every node of a small cluster.
const SETTLE_MS: u64 = 500;

/// Milliseconds until what waits for a volume is looked at again; what changes is told at once.
const LOOK_AGAIN_MS: u64 = 2_000;

/// The volumes of this node.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    own: BTreeMap<VolumeId, Own>,
}

#[derive(Debug)]
struct Own {
    held: HeldVolume,
    /// When nobody else can have reserved it unseen.
    settled_at: u64,
    /// Whether the disk knows that it is here.
    written: bool,
}

/// Why a replica cannot be started yet.
enum Lack {
    /// It has to wait, in these words, until then.
    Wait(String, u64),
    /// It cannot start here at all.
    Elsewhere(String),
}

impl Reconciler {
    /// What an earlier life has recorded.
    pub(crate) fn recover_volumes(&mut self, found: Vec<HeldVolume>) {
        let own = found.into_iter().map(|held| {
            let own = Own {
                settled_at: 0,
                written: true,
                held,
            };
            (own.held.volume.clone(), own)
        });
        self.volumes.own = own.collect();
    }

    /// What this node has data of, ordered.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &HeldVolume> {
        self.volumes.own.values().map(|own| &own.held)
    }

    /// The disk knows of everything that was told it last.
    pub(crate) fn volumes_written(&mut self, world: &World<'_>, now: Now) -> Vec<Effect> {
        for own in self.volumes.own.values_mut() {
            own.written = true;
        }
        let waiting = self.claims.iter().filter(|(_, held)| {
            held.waits_for_volume && matches!(held.stage, Stage::Waiting { .. })
        });
        let waiting: Vec<SlotId> = waiting.map(|(slot, _)| slot.clone()).collect();
        let mut effects = Vec::new();
        for slot in waiting {
            if let Some(held) = self.claims.get_mut(&slot) {
                held.stage = Stage::Waiting { at: now.mono };
            }
            effects.extend(self.run_due(&slot, world, now));
        }
        effects
    }

    /// Reserves the volumes of a slot that nobody has.
    pub(super) fn reserve_volumes(&mut self, slot: &SlotId, world: &World<'_>, now: Now) {
        let Some(spec) = self.claims.get(slot).and_then(|held| held.spec.clone()) else {
            return;
        };
        for mount in &spec.volumes {
            let Some(volume) = mount.volume(slot) else {
                continue;
            };
            let pinned = mount.pinning(slot).is_some();
            let atlas = world.cluster.atlas();
            let full = self.volumes.own.len() >= MAX_VOLUMES;
            let elsewhere = pinned && atlas.home(&volume).is_some();
            if elsewhere || full || self.volumes.own.contains_key(&volume) {
                continue;
            }
            let generation = match slot.slot {
                Slot::Replica(_) => atlas.generation(&volume).saturating_add(1),
                Slot::Node(_) => 1,
            };
            let held = HeldVolume {
                volume: volume.clone(),
                generation,
                used: false,
                since: now.wall,
            };
            let settled_at = now.mono + if pinned { SETTLE_MS } else { 0 };
            let written = false;
            let own = Own {
                held,
                settled_at,
                written,
            };
            self.volumes.own.insert(volume, own);
            self.note_volumes();
        }
    }

    /// Whether a claim cannot be started for want of a volume; then it waits, or is looked at again
    /// at once because it has to go.
    pub(super) fn lacks_volumes(&mut self, slot: &SlotId, world: &World<'_>, now: Now) -> bool {
        self.reserve_volumes(slot, world, now);
        let lack = self.lack(slot, world, now);
        let Some(held) = self.claims.get_mut(slot) else {
            return false;
        };
        held.waits_for_volume = lack.is_some();
        let (why, at) = match lack {
            None => return false,
            Some(Lack::Wait(why, at)) => (why, at),
            Some(Lack::Elsewhere(why)) => {
                self.revisits.set(&slot.service, Some(now.mono));
                (why, now.mono.saturating_add(LOOK_AGAIN_MS))
            }
        };
        held.say(&why);
        held.stage = Stage::Waiting { at };
        true
    }

    fn lack(&self, slot: &SlotId, world: &World<'_>, now: Now) -> Option<Lack> {
        let spec = self.claims.get(slot)?.spec.as_ref()?;
        let SlotId { service, slot: at } = slot;
        let lacks = volumes::lacks(world.cluster, service, spec, *at, self.me);
        if let Some(reason) = lacks.first() {
            return Some(Lack::Elsewhere(reason.to_string()));
        }
        let again = now.mono.saturating_add(LOOK_AGAIN_MS);
        for volume in spec.volumes.iter().filter_map(|mount| mount.volume(slot)) {
            let Some(own) = self.volumes.own.get(&volume) else {
                let why = format!(
                    "this node has the data of {MAX_VOLUMES} volumes, and takes no further one: \
                     remove some with `dunlin volume rm`"
                );
                return Some(Lack::Wait(why, again));
            };
            if own.settled_at > now.mono {
                let why = format!("its volume {volume} is being made");
                return Some(Lack::Wait(why, own.settled_at));
            }
            if !own.written {
                let why = format!("the disk has not taken note of its volume {volume} yet");
                return Some(Lack::Wait(why, again));
            }
        }
        None
    }

    /// A replica runs, or may have run: from now on its volumes hold data.
    pub(super) fn use_volumes(&mut self, slot: &SlotId, world: &World<'_>, now: Now) {
        // One that was adopted may have lost its record with the disk's last writes.
        self.reserve_volumes(slot, world, now);
        let Some(spec) = self.claims.get(slot).and_then(|held| held.spec.clone()) else {
            return;
        };
        let mut changed = false;
        for volume in spec.volumes.iter().filter_map(|mount| mount.volume(slot)) {
            if let Some(own) = self.volumes.own.get_mut(&volume) {
                changed |= !std::mem::replace(&mut own.held.used, true);
            }
        }
        if changed {
            self.note_volumes();
        }
    }

    /// Forgets what was reserved for a slot that is given up and that nothing was written to.
    pub(super) fn unreserve_volumes(&mut self, gone: &Held) {
        let Some(spec) = &gone.spec else { return };
        let slot = &gone.claim.slot;
        let mut unused: BTreeSet<VolumeId> = volumes_of(spec, slot).collect();
        unused.retain(|volume| self.volumes.own.get(volume).is_some_and(|o| !o.held.used));
        if unused.is_empty() {
            return;
        }
        for (slot, held) in &self.claims {
            for volume in held.spec.iter().flat_map(|spec| volumes_of(spec, slot)) {
                unused.remove(&volume);
            }
        }
        for volume in &unused {
            self.volumes.own.remove(volume);
            self.note_volumes();
        }
    }

    /// The volumes of a slot that have data here, which a runtime has to find.
    pub(super) fn expected_volumes(&self, held: &Held) -> BTreeSet<VolumeId> {
        let slot = &held.claim.slot;
        let all = held.spec.iter().flat_map(|spec| volumes_of(spec, slot));
        let used = |volume: &VolumeId| {
            let own = self.volumes.own.get(volume);
            own.is_some_and(|own| own.held.used)
        };
        all.filter(used).collect()
    }

    /// The slots of this node that have the volume, and whether any of it may be running.
    pub(crate) fn users_of(&self, volume: &VolumeId) -> Vec<SlotId> {
        let users = self.claims.iter().filter(|(slot, held)| {
            let spec = held.spec.as_ref();
            held.may_run() && spec.is_some_and(|spec| volumes_of(spec, slot).any(|v| v == *volume))
        });
        users.map(|(slot, _)| slot.clone()).collect()
    }

    /// Data has come from elsewhere, or been begun anew by a person: it takes the place of all
    /// copies that are known.
    pub(crate) fn put_volume(&mut self, volume: VolumeId, known: u64, now: Now) {
        let held = HeldVolume {
            volume: volume.clone(),
            generation: known.saturating_add(1),
            used: true,
            since: now.wall,
        };
        let (settled_at, written) = (0, false);
        let own = Own {
            held,
            settled_at,
            written,
        };
        self.volumes.own.insert(volume, own);
        self.note_volumes();
    }

    /// Data was deleted here. Returns whether there was any.
    pub(crate) fn drop_volume(&mut self, volume: &VolumeId) -> bool {
        let had = self.volumes.own.remove(volume).is_some();
        if had {
            self.note_volumes();
        }
        had
    }

    fn note_volumes(&mut self) {
        self.changes.volumes = true;
        self.changes.report = true;
    }
}

fn volumes_of<'a>(spec: &'a ServiceSpec, slot: &'a SlotId) -> impl Iterator<Item = VolumeId> + 'a {
    spec.volumes.iter().filter_map(|mount| mount.volume(slot))
}
