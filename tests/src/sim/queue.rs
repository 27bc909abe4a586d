//! Virtual time: events in the order in which they are due.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Events by due time in microseconds; those due together keep the order in which they were pushed.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, E>,
    pushed: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            pushed: 0,
        }
    }

    pub(super) fn push(&mut self, at: u64, event: E) {
        self.pushed += 1;
        self.heap.push(Reverse((at, self.pushed)));
        self.events.insert(self.pushed, event);
    }

    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at, number)) = self.heap.pop()?;
        self.events.remove(&number).map(|event| (at, event))
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}
