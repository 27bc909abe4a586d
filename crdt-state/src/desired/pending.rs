//! Changes that cannot be applied yet, and those that never will be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::engine::{Hash, Incoming};

/// Changes that wait for others. Pushes overtake each other by a few changes; whoever lacks more
/// gets it by anti-entropy, in order.
const MAX_PENDING: usize = 512;

/// Bytes of waiting changes.
const MAX_PENDING_BYTES: usize = 4 * 1024 * 1024;

/// Refused changes that are remembered. An attacker can push older ones out, which costs us
/// another inspection and nothing else.
const MAX_QUARANTINED: usize = 1024;

/// Changes whose predecessors have not arrived.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    changes: BTreeMap<Hash, Incoming>,
    order: VecDeque<Hash>,
    bytes: usize,
}

impl Pending {
    /// Whether this change waits already.
    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.changes.contains_key(hash)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Keeps a change, at the cost of the one that has waited longest when there are too many.
    pub(super) fn push(&mut self, change: Incoming) {
        let hash = change.hash;
        let bytes = change.bytes.len();
        if self.changes.insert(hash, change).is_none() {
            self.order.push_back(hash);
            self.bytes += bytes;
        }
        while self.changes.len() > MAX_PENDING || self.bytes > MAX_PENDING_BYTES {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.drop_change(&oldest);
        }
    }

    /// Takes the changes whose predecessors are `known`.
    pub(super) fn take_ready(&mut self, known: impl Fn(&Hash) -> bool) -> Vec<Incoming> {
        let ready: Vec<Hash> = self
            .order
            .iter()
            .filter(|hash| {
                let change = self.changes.get(*hash);
                change.is_some_and(|c| c.deps.iter().all(&known))
            })
            .copied()
            .collect();
        ready
            .iter()
            .filter_map(|hash| self.drop_change(hash))
            .collect()
    }

    /// Changes that others wait for and that are not here. To ask for what is `known` would never
    /// end: a peer that has it sends it each time.
    pub(super) fn wanted(&self, known: impl Fn(&Hash) -> bool) -> BTreeSet<Hash> {
        let deps = self.changes.values().flat_map(|c| c.deps.iter().copied());
        deps.filter(|dep| !self.changes.contains_key(dep) && !known(dep))
            .collect()
    }

    /// Forgets everything: another document has taken the place of ours.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn drop_change(&mut self, hash: &Hash) -> Option<Incoming> {
        let change = self.changes.remove(hash)?;
        self.order.retain(|other| other != hash);
        self.bytes = self.bytes.saturating_sub(change.bytes.len());
        Some(change)
    }
}

/// Hashes of bytes that have been refused, so that they are not tried again.
#[derive(Debug, Clone, Default)]
pub(super) struct Quarantine {
    hashes: BTreeSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Quarantine {
    /// Remembers these bytes.
    pub(super) fn insert(&mut self, bytes: &[u8]) {
        let hash = *blake3::hash(bytes).as_bytes();
        if self.hashes.insert(hash) {
            self.order.push_back(hash);
        }
        while self.order.len() > MAX_QUARANTINED {
            if let Some(oldest) = self.order.pop_front() {
                self.hashes.remove(&oldest);
            }
        }
    }

    /// The short name of these bytes, if they have been refused before.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<String> {
        let hash = blake3::hash(bytes);
        let found = self.hashes.contains(hash.as_bytes());
        found.then(|| data_encoding::HEXLOWER.encode(&hash.as_bytes()[..8]))
    }
}
