//! Which replica gets the next connection. Pure: time and chance are arguments.
//!
//! Each connection goes [`Balancer::pick`], then [`Balancer::connected`] or [`Balancer::failed`],
//! and in the end always [`Balancer::closed`]. A replica that cannot be connected to is *ejected*:
//! it is offered no connection for a while. Then one connection tries it (*probation*), whose
//! outcome decides for all. Ejection is a preference and never an outage: when nobody else is
//! left, ejected replicas are offered too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use dunlin_state::model::{NodeId, Slot};

/// Milliseconds for which the first failed connect ejects a replica. Membership takes 1 to 2 s to
/// notice a dead node, so ejection bridges about that time and then the table itself drops it.
pub const EJECTION: u64 = 1_000;

/// Most milliseconds of an ejection. Each further failure doubles it up to here; longer would keep
/// a replica idle long after it has recovered.
pub const MAX_EJECTION: u64 = 30_000;

/// How a replica is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest open connections.
    LeastConnections,
    /// The one with fewer open connections of two drawn at random: nearly as even as the fewest of
    /// all, and proxies that do not know of each other do not all rush to the same replica
    /// (Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001).
    #[default]
    RandomOfTwo,
}

/// A port of a replica. A replica that restarts at another address is another target, with no
/// failures to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its slot.
    pub slot: Slot,
    /// The node that runs it.
    pub node: NodeId,
    /// Where it answers.
    pub address: SocketAddr,
}

/// Chooses among the ready replicas of one port of one service.
#[derive(Debug, Default)]
pub struct Balancer {
    policy: Policy,
    targets: BTreeMap<Target, State>,
    /// Whom round robin chose last. It may be gone; the next after it still is well-defined.
    last: Option<Target>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the route table offers it. Others stay until their connections have closed, so that
    /// one that comes back is not taken for idle.
    listed: bool,
    open: u32,
    health: Health,
}

#[derive(Debug, Clone, Copy, Default)]
enum Health {
    #[default]
    Good,
    Ejected {
        until: u64,
        failures: u32,
    },
    /// One connection tries it.
    Probation {
        failures: u32,
    },
}

impl Balancer {
    /// Without targets.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }

    /// Takes over who is ready now. Counts and ejections of those that stay are kept.
    pub fn update(&mut self, ready: impl IntoIterator<Item = Target>) {
        for state in self.targets.values_mut() {
            state.listed = false;
        }
        for target in ready {
            self.targets.entry(target).or_default().listed = true;
        }
        self.targets.retain(|_target, s| s.listed || s.open > 0);
    }

    /// Chooses a target that is not in `tried` and counts a connection for it. `entropy` is any
    /// uniformly random number; `now` is in milliseconds of a clock that never goes back.
    pub fn pick(&mut self, tried: &BTreeSet<Target>, entropy: u64, now: u64) -> Option<Target> {
        let candidates = |fit: &dyn Fn(&State) -> bool| -> Vec<(Target, u32)> {
            self.targets
                .iter()
                .filter(|(target, state)| state.listed && !tried.contains(target) && fit(state))
                .map(|(target, state)| (*target, state.open))
                .collect()
        };
        let mut from = candidates(&|state| state.health.admits(now));
        if from.is_empty() {
            from = candidates(&|_any| true);
        }
        let chosen = self.choose(&from, entropy)?;
        self.last = Some(chosen);
        if let Some(state) = self.targets.get_mut(&chosen) {
            state.open = state.open.saturating_add(1);
            if let Health::Ejected { failures, .. } = state.health {
                state.health = Health::Probation { failures };
            }
        }
        Some(chosen)
    }

    fn choose(&self, from: &[(Target, u32)], entropy: u64) -> Option<Target> {
        let (high, low) = (entropy >> 32, entropy & 0xffff_ffff);
        let draw = |random: u64, of: usize| ((random * of as u64) >> 32) as usize;
        let at = |index: usize| from.get(index).map(|(target, _)| *target);
        match self.policy {
            Policy::RoundRobin => {
                let next = from.iter().position(|(t, _)| Some(*t) > self.last);
                at(next.unwrap_or(0))
            }
            Policy::LeastConnections => {
                // The search begins anywhere, so that ties do not all go to the first.
                let start = draw(low, from.len());
                let (before, after) = from.split_at(start.min(from.len()));
                let around = after.iter().chain(before);
                around.min_by_key(|(_, open)| *open).map(|(t, _)| *t)
            }
            Policy::RandomOfTwo if from.len() < 2 => at(0),
            Policy::RandomOfTwo => {
                let first = draw(low, from.len());
                let second = (first + 1 + draw(high, from.len() - 1)) % from.len();
                let (a, b) = (from.get(first)?, from.get(second)?);
                Some(if b.1 < a.1 { b.0 } else { a.0 })
            }
        }
    }

    /// The connection to a picked target stands: its failures are forgotten.
    pub fn connected(&mut self, target: &Target) {
        if let Some(state) = self.targets.get_mut(target) {
            state.health = Health::Good;
        }
    }

    /// A picked target could not be connected to: it is ejected. The time varies by a quarter with `entropy`, so that proxies do not try it all at once.
    pub fn failed(&mut self, target: &Target, entropy: u64, now: u64) {
        if let Some(state) = self.targets.get_mut(target) {
            let failures = state.health.failures().saturating_add(1);
            let doubled = EJECTION.saturating_mul(1 << (failures - 1).min(16));
            let time = doubled.min(MAX_EJECTION);
            let until = now.saturating_add(time - time / 4 + entropy % (time / 2));
            state.health = Health::Ejected { until, failures };
        }
    }

    /// A connection is over: it ended, failed, or was given up before its outcome was known.
    pub fn closed(&mut self, target: &Target) {
        let Some(state) = self.targets.get_mut(target) else {
            return;
        };
        if let Health::Probation { failures } = state.health {
            // Nothing has been learnt: the next connection may try.
            state.health = Health::Ejected { until: 0, failures };
        }
        state.open = state.open.saturating_sub(1);
        if !state.listed && state.open == 0 {
            self.targets.remove(target);
        }
    }

    /// Connections that a target has open or in the making.
    pub fn open(&self, target: &Target) -> u32 {
        self.targets.get(target).map_or(0, |state| state.open)
    }
}

impl Health {
    fn admits(self, now: u64) -> bool {
        match self {
            Self::Good => true,
            Self::Ejected { until, .. } => until <= now,
            Self::Probation { .. } => false,
        }
    }

    fn failures(self) -> u32 {
        match self {
            Self::Good => 0,
            Self::Ejected { failures, .. } | Self::Probation { failures } => failures,
        }
    }
}

#[cfg(test)]
mod tests;
