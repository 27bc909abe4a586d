//! When enough of the cluster is known to act on what is *not* there.
//!
//! A node that has just started knows its own claims and nobody else's: to it, everything looks
//! vacant. Two things therefore wait until others were heard, or surely are not there: starting
//! claims of an earlier life (others may have taken them over), and auctioning vacant slots.

use dunlin_state::Now;
use dunlin_state::desired::Desired;
use dunlin_state::model::Resources;

use super::{Agent, Output, push_reconciled};
use crate::bidding::Floor;
use crate::cluster::Cluster;

/// Milliseconds that a node which had peers listens for them before it starts its own claims
/// again. A node without a network starts its work after this.
const BOOT_LISTEN_MS: u64 = 2_000;

/// Milliseconds between the first register of another node and starting own claims: the rest of
/// the registers come in the same answer or the next.
const FIRST_REGISTER_MS: u64 = 200;

/// Milliseconds that a node which had peers listens before it auctions what looks vacant. Longer
/// than for its own claims: a mistake here starts replicas that run elsewhere.
const AUCTION_LISTEN_MS: u64 = 5_000;

/// Milliseconds after the first register of another node from which auctions are held, if the
/// registers of all living members are there.
const AUCTION_SETTLE_MS: u64 = 500;

/// Milliseconds that auctions wait for the register of a member that has just appeared; its
/// claims are unknown until then.
const INCOMPLETE_PATIENCE_MS: u64 = 3_000;

/// What has been heard since the start.
#[derive(Debug)]
pub(super) struct Opening {
    /// When claims of an earlier life start at the latest; `None` once they have.
    gate_at: Option<u64>,
    /// When auctions begin at the latest.
    auctions_at: u64,
    /// Since when the register of some living member is missing.
    incomplete_since: Option<u64>,
    /// When waiting for something ends and services should be looked at again.
    recheck_at: Option<u64>,
    /// More than the capacity was recovered from an earlier life.
    excess: Option<Resources>,
}

impl Opening {
    pub(super) fn new(peers_known: bool, now: u64) -> Self {
        let listen = |ms: u64| if peers_known { now + ms } else { now };
        let auctions_at = listen(AUCTION_LISTEN_MS);
        Self {
            gate_at: Some(listen(BOOT_LISTEN_MS)),
            auctions_at,
            incomplete_since: None,
            recheck_at: Some(auctions_at),
            excess: None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.gate_at.into_iter().chain(self.recheck_at).min()
    }

    /// A register of another node has arrived.
    pub(super) fn heard_register(&mut self, now: u64) {
        if let Some(gate) = &mut self.gate_at {
            *gate = (*gate).min(now + FIRST_REGISTER_MS);
        }
        if self.auctions_at > now + AUCTION_SETTLE_MS {
            self.auctions_at = now + AUCTION_SETTLE_MS;
            self.recheck_at = Some(self.auctions_at);
        }
    }

    /// Whether a capacity below what is committed is older than this life: the host was given
    /// less since. Nothing new is taken until it fits again.
    pub(super) fn may_exceed(&self, committed: Resources) -> bool {
        self.excess.is_some_and(|excess| committed.fits_in(excess))
    }

    pub(super) fn allow_excess(&mut self, committed: Resources) {
        self.excess = Some(committed);
    }
}

impl Agent {
    /// Starts claims of an earlier life, and looks at all services again, when it is time.
    pub(super) fn try_open(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.opening.gate_at.is_some_and(|at| at <= now.mono) {
            self.opening.gate_at = None;
            let effects = self.with_world(|r, world| r.open_gate(world, now));
            push_reconciled(effects, out);
        }
        self.note_completeness(now);
        if self.opening.recheck_at.is_some_and(|at| at <= now.mono) {
            self.opening.recheck_at = None;
            self.dirty.extend(self.cluster.watched().cloned());
        }
    }

    /// Keeps track of members whose registers have not arrived.
    pub(super) fn note_completeness(&mut self, now: Now) {
        let since = self.opening.incomplete_since;
        match (self.cluster.is_complete(), since) {
            (true, Some(_)) => {
                self.opening.incomplete_since = None;
                self.opening.recheck_at = Some(now.mono.max(self.opening.auctions_at));
            }
            (false, None) => {
                self.opening.incomplete_since = Some(now.mono);
                let patience = now.mono + INCOMPLETE_PATIENCE_MS;
                let at = self
                    .opening
                    .recheck_at
                    .map_or(patience, |at| at.min(patience));
                self.opening.recheck_at = Some(at);
            }
            (false, Some(since)) => {
                let patience = since + INCOMPLETE_PATIENCE_MS;
                if self.opening.recheck_at.is_none() && patience > now.mono {
                    self.opening.recheck_at = Some(patience);
                }
            }
            (true, None) => {}
        }
    }

    /// Whether vacancies can be told from ignorance.
    pub(super) fn is_floor_open(&self, now: Now) -> bool {
        let patient = self
            .opening
            .incomplete_since
            .is_none_or(|since| now.mono >= since + INCOMPLETE_PATIENCE_MS);
        now.mono >= self.opening.auctions_at && patient && self.desired_known && !self.leaving
    }
}

pub(super) fn floor<'a>(cluster: &'a Cluster, desired: &'a Desired, open: bool) -> Floor<'a> {
    Floor {
        cluster,
        desired,
        open,
    }
}
