//! Which replica gets the next connection. Pure: time and chance are arguments.
//!
//! Each connection goes [`Balancer::pick`], then [`Balancer::connected`] or [`Balancer::failed`],
//! and in the end always [`Balancer::closed`]. A replica that cannot be connected to, or that ends
//! [`STRIKES`] connections in a row without having said anything, is *ejected*: it is offered no
//! connection for a while. Then one connection tries it (*probation*), whose outcome decides for
//! all. Ejection is a preference and never an outage: when nobody else is left, ejected replicas
//! are offered too. A bound on connections is no preference: a replica that has as many as it may
//! have gets none, and the connection waits ([`Pick::Full`]).

mod access;
mod choose;
mod health;
mod limit;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

pub use dunlin_state::model::Balance as Policy;
use dunlin_state::model::{Locality, NodeId, Slot};

pub use access::admits;
pub use choose::{goes_aside, source_hash};
pub use health::{EJECTION, Health, MAX_EJECTION, STRIKES};
pub use limit::{Limiter, MAX_SOURCES};

/// Microseconds below which latencies count as equal: what a local connect takes on a busy host.
/// Without it, two replicas of the same host would be told apart by noise.
const LATENCY_FLOOR: u32 = 200;

/// Milliseconds in which a latency that is not measured again loses half of its weight. A replica
/// that was slow once has to be tried again some time.
const LATENCY_HALF_LIFE: u64 = 5_000;

/// A port of a replica. A replica that restarts at another address is another target, with no
/// failures to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its slot.
    pub slot: Slot,
    /// The node that runs it.
    pub node: NodeId,
    /// The epoch of its claim.
    pub epoch: u64,
    /// Where it answers, seen from its node.
    pub address: SocketAddr,
}

/// How far a replica is from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Distance {
    /// On this node.
    Node,
    /// In this node's zone.
    Zone,
    /// Anywhere.
    #[default]
    Far,
}

/// A target with what else matters for the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub target: Target,
    /// Its share where shares are weighted.
    pub weight: u16,
    /// How far it is.
    pub distance: Distance,
}

impl From<Target> for Candidate {
    fn from(target: Target) -> Self {
        Self {
            target,
            weight: 1,
            distance: Distance::default(),
        }
    }
}

/// What a balancer goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// How to choose.
    pub policy: Policy,
    /// Whom to prefer.
    pub prefer: Locality,
    /// Most open connections of one target.
    pub max_connections: Option<u32>,
    /// Most connections that wait.
    pub max_pending: Option<u32>,
}

/// A connection that looks for a target.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Targets that have failed it already.
    pub tried: &'a BTreeSet<Target>,
    /// Only targets of this slot, if one is named.
    pub only: Option<Slot>,
    /// Any uniformly random number.
    pub entropy: u64,
    /// A number made of the client's address, the same for each of its connections.
    pub source: u64,
    /// Milliseconds of a clock that never goes back.
    pub now: u64,
}

impl Ask<'_> {
    fn wants(&self, target: &Target) -> bool {
        self.only.is_none_or(|slot| slot == target.slot)
    }
}

/// What came of looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// This one; it counts as a connection.
    Chosen(Target),
    /// There are some, and each has as many connections as it may have.
    Full,
    /// There is none that has not been tried.
    Nobody,
}

/// Chooses among the ready replicas of one port of one service.
#[derive(Debug, Default)]
pub struct Balancer {
    rules: Rules,
    targets: BTreeMap<Target, State>,
    /// Whom round robin chose last. It may be gone; the next after it still is well-defined.
    last: Option<Target>,
    pending: u32,
    ejections: u64,
}

#[derive(Debug, Default)]
struct State {
    /// Whether the route table offers it. Others stay until their connections have closed, so that
    /// one that comes back is not taken for idle.
    listed: bool,
    weight: u16,
    distance: Distance,
    open: u32,
    health: Health,
    /// Smoothed microseconds that connecting took, and when that was last measured.
    latency: u32,
    measured: u64,
    /// Credit of weighted round robin.
    credit: i64,
}

/// A target as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetView {
    /// Which.
    pub target: Target,
    /// Whether the route table offers it; if not, its last connections are ending.
    pub listed: bool,
    /// Connections open or in the making.
    pub open: u32,
    /// Smoothed microseconds that connecting took; 0 when it was never measured.
    pub latency: u32,
    /// Whether it is offered, and if not until when.
    pub health: Health,
    /// How far it is.
    pub distance: Distance,
    /// Its share where shares are weighted.
    pub weight: u16,
}

impl Balancer {
    /// Without targets.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// Goes by other rules from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Takes over who is ready now. Counts and ejections of those that stay are kept.
    pub fn update(&mut self, ready: impl IntoIterator<Item = Candidate>) {
        for state in self.targets.values_mut() {
            state.listed = false;
        }
        for candidate in ready {
            let state = self.targets.entry(candidate.target).or_default();
            state.listed = true;
            state.weight = candidate.weight;
            state.distance = candidate.distance;
        }
        self.targets.retain(|_target, s| s.listed || s.open > 0);
    }

    /// Chooses a target and counts a connection for it.
    pub fn pick(&mut self, ask: &Ask<'_>) -> Pick {
        let mut from = self.candidates(ask, |state| state.health.admits(ask.now));
        if from.is_empty() {
            from = self.candidates(ask, |_any| true);
        }
        if from.is_empty() {
            let untried =
                |(t, s): (&Target, &State)| s.listed && ask.wants(t) && !ask.tried.contains(t);
            return match self.targets.iter().any(untried) {
                true => Pick::Full,
                false => Pick::Nobody,
            };
        }
        let Some(chosen) = self.choose(&from, ask) else {
            return Pick::Nobody;
        };
        self.last = Some(chosen);
        if let Some(state) = self.targets.get_mut(&chosen) {
            state.open = state.open.saturating_add(1);
            state.health.chosen(ask.now);
        }
        Pick::Chosen(chosen)
    }

    /// Those that may be chosen, of the nearest kind there is if nearness counts.
    fn candidates(&self, ask: &Ask<'_>, fit: impl Fn(&State) -> bool) -> Vec<Target> {
        let most = self.rules.max_connections.unwrap_or(u32::MAX);
        let may = |(target, state): &(&Target, &State)| {
            let asked = ask.wants(target) && !ask.tried.contains(*target);
            state.listed && state.open < most && asked && fit(state)
        };
        let rank = |state: &State| match self.rules.prefer {
            Locality::Any => Distance::Far,
            Locality::Node => state.distance,
            Locality::Zone => state.distance.max(Distance::Zone),
        };
        let nearest = self.targets.iter().filter(may).map(|(_, s)| rank(s)).min();
        let targets = self.targets.iter().filter(may);
        targets
            .filter(|(_, state)| Some(rank(state)) == nearest)
            .map(|(target, _)| *target)
            .collect()
    }

    /// The connection to a picked target stands, after so many microseconds.
    pub fn connected(&mut self, target: &Target, micros: u32, now: u64) {
        if let Some(state) = self.targets.get_mut(target) {
            let before = state.decayed(now);
            // A quarter of each measurement: some outliers do not turn the choice around.
            let smoothed = match state.latency {
                0 => u64::from(micros),
                _ => (u64::from(before) * 3 + u64::from(micros)) / 4,
            };
            state.latency = u32::try_from(smoothed).unwrap_or(u32::MAX).max(1);
            state.measured = now;
            state.health.connected();
        }
    }

    /// A picked target could not be connected to: it is ejected. The time varies by a quarter with
    /// `entropy`, so that proxies do not try it all at once.
    pub fn failed(&mut self, target: &Target, entropy: u64, now: u64) {
        if let Some(state) = self.targets.get_mut(target) {
            self.ejections += u64::from(state.health.failed(entropy, now));
        }
    }

    /// A connection that stood has told whether its target works: it answered something, or ended
    /// without a byte.
    pub fn judged(&mut self, target: &Target, answered: bool, entropy: u64, now: u64) {
        if let Some(state) = self.targets.get_mut(target) {
            self.ejections += u64::from(state.health.judged(answered, entropy, now));
        }
    }

    /// A connection is over: it ended, failed, or was given up before its outcome was known.
    pub fn closed(&mut self, target: &Target) {
        let Some(state) = self.targets.get_mut(target) else {
            return;
        };
        state.health.closed();
        state.open = state.open.saturating_sub(1);
        if !state.listed && state.open == 0 {
            self.targets.remove(target);
        }
    }

    /// Whether one more connection may wait; if so it counts until [`Self::waited`].
    pub fn wait(&mut self) -> bool {
        let may = self
            .rules
            .max_pending
            .is_none_or(|most| self.pending < most);
        self.pending += u32::from(may);
        may
    }

    /// A connection waits no longer.
    pub fn waited(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    /// Connections that wait.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// How often a target has been ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    /// Connections that a target has open or in the making.
    pub fn open(&self, target: &Target) -> u32 {
        self.targets.get(target).map_or(0, |state| state.open)
    }

    /// Whether the route table offers a target.
    pub fn is_listed(&self, target: &Target) -> bool {
        self.targets.get(target).is_some_and(|state| state.listed)
    }

    /// Whether anyone is offered.
    pub fn has_targets(&self) -> bool {
        self.targets.values().any(|state| state.listed)
    }

    /// All targets, ordered.
    pub fn views(&self, now: u64) -> impl Iterator<Item = TargetView> + '_ {
        self.targets.iter().map(move |(target, state)| TargetView {
            target: *target,
            listed: state.listed,
            open: state.open,
            latency: state.latency,
            health: state.health.at(now),
            distance: state.distance,
            weight: state.weight,
        })
    }
}

impl State {
    fn decayed(&self, now: u64) -> u32 {
        let halves = now.saturating_sub(self.measured) / LATENCY_HALF_LIFE;
        self.latency.checked_shr(halves.min(32) as u32).unwrap_or(0)
    }

    /// What one more connection here would cost.
    fn cost(&self, now: u64) -> u64 {
        let latency = self.decayed(now).max(LATENCY_FLOOR);
        u64::from(latency) * (u64::from(self.open) + 1)
    }
}

#[cfg(test)]
mod tests;
