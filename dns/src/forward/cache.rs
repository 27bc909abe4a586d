//! Answers of upstreams, for as long as they say, and no more of them than there is room for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Key;
use super::stored::Stored;

/// Most answers in the cache: more than a host's programs ask for in an hour.
const MAX_ENTRIES: usize = 4_096;

/// Most bytes of answers in the cache.
const MAX_BYTES: usize = 2 * 1_024 * 1_024;

/// The cache. What came first goes first: a cache of this size is seldom full, and what is asked
/// for often comes back with the next question.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Arc<Key>, Entry>,
    /// In the order in which they came, with the number of the entry that is meant.
    order: VecDeque<(Arc<Key>, u64)>,
    bytes: usize,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    stored: Arc<Stored>,
    since: Instant,
    number: u64,
}

impl Cache {
    /// An answer that still holds, and its age.
    pub(super) fn get(&mut self, key: &Key, now: Instant) -> Option<(&Arc<Stored>, Duration)> {
        let entry = self.entries.get(key)?;
        let age = now.saturating_duration_since(entry.since);
        (age < entry.stored.keep).then_some((&entry.stored, age))
    }

    /// Keeps an answer.
    pub(super) fn put(&mut self, key: Arc<Key>, stored: Arc<Stored>, now: Instant) {
        if !stored.is_kept() {
            return;
        }
        self.remove(&key);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.bytes += size(&key, &stored);
        self.order.push_back((key.clone(), number));
        self.entries.insert(
            key,
            Entry {
                stored,
                since: now,
                number,
            },
        );
        while self.entries.len() > MAX_ENTRIES
            || self.bytes > MAX_BYTES
            || self.order.len() > 2 * MAX_ENTRIES
        {
            let Some((oldest, number)) = self.order.pop_front() else {
                return;
            };
            if self
                .entries
                .get(&oldest)
                .is_some_and(|e| e.number == number)
            {
                self.remove(&oldest);
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some((key, old)) = self.entries.remove_entry(key) {
            self.bytes = self.bytes.saturating_sub(size(&key, &old.stored));
        }
    }

    /// How many answers there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn size(key: &Key, stored: &Stored) -> usize {
    key.name.len() + stored.size()
}
