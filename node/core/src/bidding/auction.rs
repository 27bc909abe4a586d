//! The auction of one service: what is vacant since when, what was given away, when to ask again.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{NodeId, Slot};

use super::round::LastRound;
use super::turns::TURN_MS;
use super::{RoundId, TAKEOVER_MS};
use crate::cluster::{Cluster, Watch};

/// Milliseconds until an awarded slot counts as vacant again when no claim shows up: a push
/// through the cluster takes a tenth of that.
const PENDING_MS: u64 = 1_500;

/// Milliseconds before the second round for a service that nobody took; doubles with each.
pub(super) const FIRST_BACKOFF_MS: u64 = 250;

/// Milliseconds between rounds for a service that nobody takes. Changes that matter end the wait.
const MAX_BACKOFF_MS: u64 = 5_000;

/// Milliseconds before asking again when the refusals were of a kind that passes by itself.
pub(super) const PASSING_MS: u64 = 100;

/// Milliseconds before asking again when a node is ending replicas to make room: that takes a while.
const MAKING_ROOM_MS: u64 = 1_000;

/// Milliseconds for which a slot counts as given away to a node that has to make room first. It
/// drains connections and waits for programs to end; whoever takes over meanwhile is told so.
const FORCED_PENDING_MS: u64 = 15_000;

/// Milliseconds between two times that others are to make way for one slot: a replica that does not
/// last should not drive out one after the other.
const COOL_DOWN_MS: u64 = 60_000;

/// Rounds in a row that placed nothing before others are asked to make way: one may have met offers
/// that were about to be released.
const PATIENT_ROUNDS: u32 = 2;

/// The state of one service's auction.
#[derive(Debug, Default)]
pub(super) struct Auction {
    /// When the present vacancy began, or last shrank.
    pub(super) vacant_since: Option<u64>,
    pub(super) vacant: usize,
    /// When a node of a better rank was last seen auctioning the service.
    pub(super) better_heard: Option<u64>,
    pub(super) not_before: u64,
    /// Until when larger replicas go first, in this vacancy.
    yielding: Option<u64>,
    /// Rounds in a row that placed nothing.
    pub(super) fruitless: u32,
    pub(super) nudged: u64,
    pub(super) round: Option<RoundId>,
    pub(super) pending: BTreeMap<u32, Pending>,
    /// Whether the next round asks who would make way.
    pub(super) by_force: bool,
    /// When others were last made to make way for a slot.
    forced: BTreeMap<u32, u64>,
    /// The highest epoch given away of each slot in this vacancy: a winner may show up late.
    pub(super) promised: BTreeMap<u32, u64>,
    pub(super) last: Option<LastRound>,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) node: NodeId,
    pub(super) until: u64,
}

impl Auction {
    pub(super) fn note_vacancy(&mut self, vacant: &BTreeSet<u32>, cluster: &Cluster, now: u64) {
        self.pending.retain(|slot, pending| {
            vacant.contains(slot)
                && pending.until > now
                && cluster.standing(pending.node).holds_claims()
        });
        let shrank = vacant.len() < self.vacant;
        self.vacant = vacant.len();
        if vacant.is_empty() {
            self.vacant_since = None;
            self.yielding = None;
            self.promised.clear();
        } else if shrank || self.vacant_since.is_none() {
            self.vacant_since = Some(now);
        }
    }

    /// When a round may start. Later ranks give the earlier ones time, more so when they are known
    /// to be at work.
    pub(super) fn start_at(&self, rank: usize) -> u64 {
        let rank = u64::try_from(rank).unwrap_or(u64::MAX);
        if rank == 0 {
            return self.not_before;
        }
        let since = self.vacant_since.unwrap_or(0);
        let heard = self
            .better_heard
            .map_or(0, |at| at.saturating_add(MAX_BACKOFF_MS));
        let idle_since = since.max(heard);
        let patience = rank.saturating_mul(TAKEOVER_MS);
        self.not_before.max(idle_since.saturating_add(patience))
    }

    /// When a round may start that could start now, but for larger replicas that should have so many
    /// milliseconds to go first. They are given that once in a vacancy, and less when they are done.
    pub(super) fn in_turn(&mut self, wait: u64, now: u64) -> u64 {
        let until = *self.yielding.get_or_insert(now.saturating_add(wait));
        now.saturating_add(wait.min(TURN_MS)).min(until.max(now))
    }

    /// Of these slots, those for which others may make way now.
    pub(super) fn may_force(&self, slots: &[u32], now: u64) -> Vec<u32> {
        let cool = |slot: &u32| {
            let at = self.forced.get(slot);
            at.is_none_or(|at| now.saturating_sub(*at) >= COOL_DOWN_MS)
        };
        slots.iter().copied().filter(cool).collect()
    }

    /// Decides whether the next round should ask who would make way, after one that placed nothing.
    pub(super) fn consider_force(&mut self, was_forced: bool, outranks: bool) {
        self.by_force = !was_forced && outranks && self.fruitless >= PATIENT_ROUNDS;
    }

    /// Writes down that `node` was given `slots`, and with which epochs.
    pub(super) fn promise(
        &mut self,
        slots: &[u32],
        node: NodeId,
        watch: &Watch,
        by_force: bool,
        now: u64,
    ) -> Vec<(Slot, u64)> {
        let until = if by_force {
            self.forced.extend(slots.iter().map(|slot| (*slot, now)));
            now + FORCED_PENDING_MS
        } else {
            now + PENDING_MS
        };
        let mut won = Vec::with_capacity(slots.len());
        for index in slots {
            let slot = Slot::Replica(*index);
            let promised = self.promised.entry(*index).or_default();
            let epoch = watch.highest_epoch(slot).max(*promised).saturating_add(1);
            *promised = epoch;
            self.pending.insert(*index, Pending { node, until });
            won.push((slot, epoch));
        }
        won
    }

    /// Counts a fruitless round; returns the wait before the next in milliseconds.
    pub(super) fn back_off(&mut self, passing: bool, making_room: bool) -> u64 {
        if making_room {
            return MAKING_ROOM_MS;
        }
        if passing {
            return PASSING_MS;
        }
        let doublings = self.fruitless.min(10);
        self.fruitless = self.fruitless.saturating_add(1);
        (FIRST_BACKOFF_MS << doublings).min(MAX_BACKOFF_MS)
    }
}
