//! Which changes have been seen lately.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

/// Changes remembered. A push reaches everyone within a second or two, so this covers thousands
/// of changes per second; forgetting one costs decoding it again.
const CAPACITY: usize = 8_192;

/// A bounded set of hashes that forgets the oldest.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hashes: BTreeSet<[u8; 16]>,
    order: VecDeque<[u8; 16]>,
}

impl Seen {
    pub(super) fn contains(&self, change: &Bytes) -> bool {
        self.hashes.contains(&hash(change))
    }

    pub(super) fn insert(&mut self, change: &Bytes) {
        let hash = hash(change);
        if !self.hashes.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
    }

    /// Forgets everything: the document has been replaced.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn hash(change: &Bytes) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(change).as_bytes()[..16]);
    hash
}
