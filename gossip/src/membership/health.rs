//! How well this node itself is doing (after Dadgar et al., "Lifeguard", 2018).
//!
//! A node that stands still, is accused by others, or finds everybody unreachable in a row is more
//! likely ill than they are. Its score rises, and with it all of its deadlines; each answered
//! probe brings it down again.

use dunlin_state::model::NodeId;

use super::codec::STALL_UNIT_MS;
use super::profile::MAX_STRETCH;

/// A stall raises the score by this much: the next two answered probes take it back.
const STALL_WEIGHT: u8 = 2;
/// The highest score.
const MAX_SCORE: u8 = (MAX_STRETCH - 1) as u8;

/// The score, and what it is made of.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LocalHealth {
    score: u8,
    last_failed: Option<NodeId>,
    /// The longest recent stall, ms, and when it ended.
    stall: Option<(u64, u64)>,
}

impl LocalHealth {
    /// 0 is healthy.
    pub(super) fn score(&self) -> u8 {
        self.score
    }

    /// A duration as long as this node's health demands.
    pub(super) fn stretch(&self, ms: u64) -> u64 {
        ms * (1 + u64::from(self.score))
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
        self.raise(STALL_WEIGHT);
        if ms >= self.recent_stall(now, memory) {
            self.stall = Some((ms, now));
        }
    }

    /// What to tell others about stalls of this node, in [`STALL_UNIT_MS`], rounded up.
    pub(super) fn stall_report(&self, now: u64, memory: u64) -> u8 {
        let units = self.recent_stall(now, memory).div_ceil(STALL_UNIT_MS);
        u8::try_from(units).unwrap_or(u8::MAX)
    }

    fn recent_stall(&self, now: u64, memory: u64) -> u64 {
        match self.stall {
            Some((ms, at)) if now.saturating_sub(at) < memory => ms,
            Some(_) | None => 0,
        }
    }

    fn raise(&mut self, by: u8) {
        self.score = self.score.saturating_add(by).min(MAX_SCORE);
    }
}
