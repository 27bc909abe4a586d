//! How well this node itself is doing (after Dadgar et al., "Lifeguard", 2018).
//!
//! A node that stands still, is accused by others, or finds everybody unreachable in a row is more
//! likely ill than they are. Its score rises, and with it all of its deadlines; each answered
//! probe brings it down again.

use dunlin_state::model::NodeId;

use super::codec::STALL_UNIT_MS;

/// A stall of at least this many milliseconds counts double; a busy host is late by less.
const LONG_STALL: u64 = 400;
/// The highest score. Higher protects others more from a node in trouble, and makes that node
/// slower to notice real failures: at 4 everything takes three times as long.
const MAX_SCORE: u8 = 4;

/// The score, and what it is made of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LocalHealth {
    score: u8,
    last_failed: Option<NodeId>,
    /// The longest stall of this stretch of time and of the one before, ms.
    stalls: (u64, u64),
    /// When this stretch of time began, mono ms.
    since: u64,
}

impl LocalHealth {
    /// 0 is healthy.
    pub(super) fn score(&self) -> u8 {
        self.score
    }

    /// A duration as long as this node's health demands: half as much again for each point.
    pub(super) fn stretch(&self, ms: u64) -> u64 {
        ms * (2 + u64::from(self.score)) / 2
    }

    /// A probe was answered in time.
    pub(super) fn probe_answered(&mut self) {
        self.score = self.score.saturating_sub(1);
        self.last_failed = None;
    }

    /// A probe failed. One member that does not answer is that member's trouble; two different
    /// ones in a row may be ours.
    pub(super) fn probe_failed(&mut self, node: NodeId) {
        if self.last_failed.is_some_and(|last| last != node) {
            self.raise(1);
        }
        self.last_failed = Some(node);
    }

    /// Others suspected this node, and it could answer only now.
    pub(super) fn accused(&mut self) {
        self.raise(1);
    }

    /// This process stood still for `ms`.
    pub(super) fn stalled(&mut self, ms: u64, now: u64, memory: u64) {
        self.raise(if ms >= LONG_STALL { 2 } else { 1 });
        self.forget_stalls(now, memory);
        self.stalls.0 = self.stalls.0.max(ms);
    }

    /// What to tell others about stalls of this node in the last one to two `memory`, in
    /// [`STALL_UNIT_MS`], rounded up.
    pub(super) fn stall_report(&mut self, now: u64, memory: u64) -> u8 {
        self.forget_stalls(now, memory);
        let longest = self.stalls.0.max(self.stalls.1);
        u8::try_from(longest.div_ceil(STALL_UNIT_MS)).unwrap_or(u8::MAX)
    }

    fn forget_stalls(&mut self, now: u64, memory: u64) {
        let passed = now.saturating_sub(self.since);
        if passed >= memory {
            let before = if passed < 2 * memory {
                self.stalls.0
            } else {
                0
            };
            self.stalls = (0, before);
            self.since = now;
        }
    }

    fn raise(&mut self, by: u8) {
        self.score = self.score.saturating_add(by).min(MAX_SCORE);
    }
}
