//! Which directory belongs to which attempt.
//!
//! Service and namespace are DNS labels and the rest are numbers or a node's id, so no part of a
//! path is text that somebody else chose freely.

use std::fs;
use std::path::{Path, PathBuf};

use dunlin_core::io::WorkloadId;
use dunlin_state::model::{Slot, SlotId};
use tracing::warn;

use super::{Inner, is_held};
use crate::supervisor::Paths;

/// Dead attempts of a slot whose logs are kept, should the engine not remove them.
const KEEP_DEAD: usize = 3;

impl Inner {
    /// The directory of all attempts of a service.
    pub(super) fn service_directory(&self, slot: &SlotId) -> PathBuf {
        self.workloads
            .join(slot.service.namespace())
            .join(slot.service.name())
    }

    /// The directory of an attempt.
    pub(super) fn directory(&self, id: &WorkloadId) -> PathBuf {
        self.service_directory(&id.slot).join(name(id))
    }

    /// A plain file name that no other attempt on this node has.
    pub(super) fn leaf(id: &WorkloadId) -> String {
        let service = &id.slot.service;
        // Labels hold no dots, so different services never share a name.
        format!("{}.{}.{}", service.namespace(), service.name(), name(id))
    }

    /// Epoch and attempt of each attempt of a slot on this node, oldest first.
    pub(super) fn attempts(&self, slot: &SlotId) -> Vec<(u64, u32)> {
        let Ok(entries) = fs::read_dir(self.service_directory(slot)) else {
            return Vec::new();
        };
        let wanted = slot_name(&slot.slot);
        let mut found: Vec<(u64, u32)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?.file_name();
                let (slot, epoch, attempt) = parse_name(entry.to_str()?)?;
                (slot == wanted).then_some((epoch, attempt))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Deletes what a dead attempt left behind.
    pub(super) fn remove(&self, id: &WorkloadId) {
        let directory = self.directory(id);
        if !directory.exists() {
            return;
        }
        match is_held(&Paths::new(&directory)) {
            Ok(false) => {}
            Ok(true) => {
                warn!(slot = %id.slot, "not removed: this attempt still runs");
                return;
            }
            Err(error) => {
                warn!(slot = %id.slot, %error, "cannot tell whether this attempt still runs");
                return;
            }
        }
        delete(&directory);
        self.tidy(&id.slot);
    }

    /// Deletes old dead attempts of a slot, so that a crash loop fills no disk.
    pub(super) fn prune(&self, slot: &SlotId) {
        let mut dead: Vec<PathBuf> = self
            .attempts(slot)
            .into_iter()
            .map(|(epoch, attempt)| {
                self.directory(&WorkloadId {
                    slot: slot.clone(),
                    epoch,
                    attempt,
                })
            })
            .filter(|directory| Paths::new(directory).exit().exists())
            .collect();
        dead.truncate(dead.len().saturating_sub(KEEP_DEAD));
        for directory in dead {
            delete(&directory);
        }
    }

    /// Removes the directories of a service and a namespace that have nothing left.
    fn tidy(&self, slot: &SlotId) {
        let service = self.service_directory(slot);
        let _ = fs::remove_dir(&service);
        if let Some(namespace) = service.parent() {
            let _ = fs::remove_dir(namespace);
        }
    }
}

/// Deletes an attempt's directory.
pub(super) fn delete(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        warn!(path = %directory.display(), %error, "cannot delete what an attempt left behind");
    }
}

fn slot_name(slot: &Slot) -> String {
    match slot {
        Slot::Replica(index) => index.to_string(),
        // In full: two nodes with one data directory would be wrong, but never mixed up.
        Slot::Node(node) => node.to_string(),
    }
}

fn name(id: &WorkloadId) -> String {
    format!("{}-{}-{}", slot_name(&id.slot.slot), id.epoch, id.attempt)
}

fn parse_name(name: &str) -> Option<(&str, u64, u32)> {
    let mut parts = name.splitn(3, '-');
    let slot = parts.next()?;
    Some((
        slot,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    ))
}
