//! An ordered map that is copied in part when it changes.
//!
//! Each change of the route table makes a new index, while readers still hold the old one. Copying
//! a thousand services for a change of one would make every change cost as much as a start, so the
//! map is split, and only the shards that change are copied.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Shards of a map: with thousands of keys, few tens in each, and copying all the pointers takes
/// about a microsecond. A power of two.
const SHARDS: usize = 256;

/// A map from bytes, cheap to clone and to change after that.
#[derive(Debug, Clone)]
pub(super) struct Shards<V> {
    shards: Vec<Arc<BTreeMap<Box<[u8]>, V>>>,
}

impl<V: Clone> Shards<V> {
    pub(super) fn new() -> Self {
        Self {
            shards: vec![Arc::default(); SHARDS],
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        self.shards.get(shard(key))?.get(key)
    }

    /// The entry of a key, for a change. Copies its shard if somebody else holds it.
    pub(super) fn change(&mut self, key: &[u8], change: impl FnOnce(&mut Option<V>)) {
        let Some(shard) = self.shards.get_mut(shard(key)) else {
            return;
        };
        let map = Arc::make_mut(shard);
        let mut value = map.remove(key);
        change(&mut value);
        if let Some(value) = value {
            map.insert(key.into(), value);
        }
    }
}

/// FNV-1a: short keys, chosen by people who may deploy services, not by those who ask for names.
fn shard<K: Borrow<[u8]> + ?Sized>(key: &K) -> usize {
    let hash = key
        .borrow()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    // The low bits of FNV are the weaker ones.
    usize::try_from(hash >> 32).unwrap_or_default() % SHARDS
}
