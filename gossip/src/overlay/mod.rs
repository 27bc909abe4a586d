//! Which members to keep a control connection with.
//!
//! A small cluster keeps a full mesh: every fact is then one hop away. Beyond [`FULL_MESH`] peers a
//! member keeps about [`TARGET`] of them, its neighbours on seeded rings (see `rings`), so that
//! both ends want the same edge and the graph stays connected whatever single edge breaks. When
//! rings coincide or neighbours do not answer, a member tops up to [`MIN`] with the peers whose
//! edges rank first; above [`MAX`] it drops the worst edges that it does not want, slowly.
//!
//! To avoid that both ends dial at once, the smaller key dials first and the other gives
//! it two seconds. Who is alive is membership's word; this machine only chooses.

mod rings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::Now;
use dunlin_state::model::NodeId;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use rings::{Rings, edge_rank};

/// Up to this many peers everyone is connected with everyone: at about 100 kB per connection a
/// mesh costs less than 2 MB, and facts need one hop.
pub const FULL_MESH: usize = 16;
/// Connections a member aims for beyond that: two on each of six rings.
pub const TARGET: usize = 2 * rings::RINGS;
/// Fewer working connections than this are topped up: with 8 the loss of a third of the peers at
/// once still leaves every member several ways out.
pub const MIN: usize = 8;
/// More connections than this are pruned. The room above [`TARGET`] keeps two members whose views
/// differ from dialing and dropping each other in turns.
pub const MAX: usize = 16;

/// Milliseconds that the greater key waits for the smaller one to dial: several round trips of a
/// slow path, and short against the seconds in which a missing edge matters.
const GRACE_MS: u64 = 2_000;
/// The first dial is spread over this many milliseconds, so that a member that hears of a whole
/// cluster at once does not dial neighbours that the next datagram makes strangers.
const SETTLE_MS: u64 = 50;
/// Milliseconds a dial may take before it counts as failed.
const DIAL_MS: u64 = 5_000;
/// Milliseconds before the second attempt; doubles with each failure.
const BACKOFF_MIN_MS: u64 = 500;
/// Milliseconds between attempts at most. A healed partition is noticed within this time.
const BACKOFF_MAX_MS: u64 = 15_000;
/// Failures in a row after which a neighbour no longer counts as a working edge.
const FAILURES_TO_REPLACE: u32 = 2;
/// Milliseconds between two prunings: slow, so that views settle before edges are cut.
const PRUNE_MS: u64 = 1_000;
/// Milliseconds a connection lives before it may be pruned.
const PRUNE_AGE_MS: u64 = 10_000;
/// Milliseconds after which a connection with somebody who is no member is closed. Long, because
/// over a connection that still works a member wrongly believed gone refutes it.
const STRANGER_MS: u64 = 60_000;

/// What the overlay may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Membership believes this node alive (or merely suspects it).
    Alive(NodeId),
    /// Membership believes it gone.
    Gone(NodeId),
    /// A control connection is up, whoever dialed.
    Connected(NodeId),
    /// It is gone.
    Disconnected(NodeId),
}

/// What the overlay wants done. Both are harmless when already so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Dial; answered by [`Input::Connected`] or by silence.
    Connect(NodeId),
    /// Close the connection.
    Disconnect(NodeId),
}

/// An attempt to reach a wanted peer that is not connected.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// Mono milliseconds of the next dial, or of the verdict on the running one.
    due: u64,
    /// Whether a dial is running.
    dialing: bool,
    /// In a row.
    failures: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Overlay {
    me: NodeId,
    rng: ChaCha8Rng,
    rings: Rings,
    alive: BTreeSet<NodeId>,
    /// Connected peers and since when (mono milliseconds).
    connected: BTreeMap<NodeId, u64>,
    wanted: BTreeSet<NodeId>,
    attempts: BTreeMap<NodeId, Attempt>,
    next_prune: u64,
    /// The answer of [`Self::poll_timeout`], which is asked after every packet.
    due: Option<u64>,
}

impl Overlay {
    /// An overlay of nobody but `me`. `seed` decides the jitter.
    pub fn new(me: NodeId, seed: u64) -> Self {
        let mut rings = Rings::default();
        rings.insert(me);
        Self {
            me,
            rng: ChaCha8Rng::seed_from_u64(seed),
            rings,
            alive: BTreeSet::new(),
            connected: BTreeMap::new(),
            wanted: BTreeSet::new(),
            attempts: BTreeMap::new(),
            next_prune: 0,
            due: None,
        }
    }

    /// Takes news and says what to do.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Alive(node)
            | Input::Gone(node)
            | Input::Connected(node)
            | Input::Disconnected(node)
                if node == self.me => {}
            Input::Alive(node) => {
                if self.alive.insert(node) {
                    self.rings.insert(node);
                    self.attempts.remove(&node);
                }
            }
            Input::Gone(node) => {
                if self.alive.remove(&node) {
                    self.rings.remove(node);
                    // Its time as a stranger starts now.
                    self.connected
                        .entry(node)
                        .and_modify(|since| *since = now.mono);
                }
            }
            Input::Connected(node) => {
                self.connected.entry(node).or_insert(now.mono);
                self.attempts.remove(&node);
            }
            Input::Disconnected(node) => {
                if self.connected.remove(&node).is_some() {
                    self.schedule_retry(node, 1, now.mono);
                }
            }
        }
        self.step(now.mono)
    }

    /// Mono milliseconds at which [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.due
    }

    /// Dials, gives up and prunes what is due. Harmless when early.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Effect> {
        match self.due {
            Some(due) if due <= now.mono => self.step(now.mono),
            Some(_) | None => Vec::new(),
        }
    }

    /// The peers that are connected now.
    pub fn connected(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.connected.keys().copied()
    }

    /// Whether a connection with `node` is up.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.connected.contains_key(&node)
    }

    /// The peers this member wants a connection with now.
    pub fn wanted(&self) -> &BTreeSet<NodeId> {
        &self.wanted
    }

    fn step(&mut self, mono: u64) -> Vec<Effect> {
        self.choose();
        self.sync_attempts(mono);
        let mut effects = self.dial(mono);
        effects.extend(self.prune(mono));
        let attempt = self.attempts.values().map(|a| a.due).min();
        self.due = attempt.into_iter().chain(self.prune_due()).min();
        effects
    }

    /// Recomputes who is wanted: the neighbours, and when too few of them work, the best others.
    fn choose(&mut self) {
        if self.alive.len() <= FULL_MESH {
            self.wanted.clone_from(&self.alive);
            return;
        }
        let mut wanted = self.rings.neighbours(self.me);
        let working = wanted.iter().filter(|node| self.works(**node)).count();
        let missing = MIN.saturating_sub(working);
        if missing > 0 {
            let mut others: Vec<(bool, u64, NodeId)> = self
                .alive
                .iter()
                .filter(|node| !wanted.contains(*node) && self.works(**node))
                // One that is connected anyway is as good as any and costs nothing.
                .map(|node| (!self.is_connected(*node), edge_rank(self.me, *node), *node))
                .collect();
            others.sort_unstable();
            wanted.extend(others.into_iter().take(missing).map(|(_, _, node)| node));
        }
        self.wanted = wanted;
    }

    /// Whether `node` is connected or may still turn out to be reachable.
    fn works(&self, node: NodeId) -> bool {
        self.attempts
            .get(&node)
            .is_none_or(|attempt| attempt.failures < FAILURES_TO_REPLACE)
    }

    /// Starts an attempt for everyone wanted and missing. Attempts at others are kept only while
    /// they remember failures of a member, so that a bad peer is not picked again at once.
    fn sync_attempts(&mut self, mono: u64) {
        let (wanted, alive) = (&self.wanted, &self.alive);
        self.attempts.retain(|node, attempt| {
            let lapsed = attempt.failures == 0 || mono >= attempt.due;
            wanted.contains(node) || (alive.contains(node) && !lapsed)
        });
        for node in &self.wanted {
            if self.connected.contains_key(node) || self.attempts.contains_key(node) {
                continue;
            }
            let head_start = if self.me < *node { 0 } else { GRACE_MS };
            let due = mono + head_start + self.rng.random_range(0..=SETTLE_MS);
            let attempt = Attempt {
                due,
                dialing: false,
                failures: 0,
            };
            self.attempts.insert(*node, attempt);
        }
    }

    fn dial(&mut self, mono: u64) -> Vec<Effect> {
        let due = |(_, attempt): &(&NodeId, &Attempt)| mono >= attempt.due;
        let due: Vec<(NodeId, Attempt)> = self
            .attempts
            .iter()
            .filter(due)
            .map(|(node, attempt)| (*node, *attempt))
            .collect();
        let mut effects = Vec::new();
        for (node, attempt) in due {
            if attempt.dialing {
                self.schedule_retry(node, attempt.failures.saturating_add(1), mono);
            } else {
                let due = mono + DIAL_MS;
                self.attempts.insert(
                    node,
                    Attempt {
                        due,
                        dialing: true,
                        ..attempt
                    },
                );
                effects.push(Effect::Connect(node));
            }
        }
        effects
    }

    /// Waits before the next dial: doubling, and between half and all of it, so that the members
    /// that lost the same peer do not come back in step. The greater key waits the grace on top.
    fn schedule_retry(&mut self, node: NodeId, failures: u32, mono: u64) {
        let doublings = failures.saturating_sub(1).min(10);
        let ceiling = (BACKOFF_MIN_MS << doublings).min(BACKOFF_MAX_MS);
        let wait = self.rng.random_range(ceiling / 2..=ceiling);
        let grace = if self.me < node { 0 } else { GRACE_MS };
        let due = mono + wait + grace;
        self.attempts.insert(
            node,
            Attempt {
                due,
                dialing: false,
                failures,
            },
        );
    }

    /// When a connection may be cut next, if any is to be.
    fn prune_due(&self) -> Option<u64> {
        let stranger = self
            .connected
            .iter()
            .filter(|(node, _)| !self.alive.contains(*node))
            .map(|(_, since)| since + STRANGER_MS);
        let excess = self.connected.len() > MAX && self.alive.len() > FULL_MESH;
        let surplus = self
            .connected
            .iter()
            .filter(|(node, _)| excess && !self.wanted.contains(*node))
            .map(|(_, since)| since + PRUNE_AGE_MS);
        let first = stranger.chain(surplus).min()?;
        Some(first.max(self.next_prune))
    }

    /// Cuts one connection when one is due: a stranger's, else the worst edge above [`MAX`].
    fn prune(&mut self, mono: u64) -> Option<Effect> {
        if self.prune_due().is_none_or(|due| mono < due) {
            return None;
        }
        let old = |since: u64, age: u64| mono >= since + age;
        let stranger = self
            .connected
            .iter()
            .find(|(node, since)| !self.alive.contains(*node) && old(**since, STRANGER_MS))
            .map(|(node, _)| *node);
        let surplus = || {
            self.connected
                .iter()
                .filter(|(node, since)| !self.wanted.contains(*node) && old(**since, PRUNE_AGE_MS))
                .max_by_key(|(node, _)| edge_rank(self.me, **node))
                .map(|(node, _)| *node)
        };
        let victim = stranger.or_else(surplus)?;
        self.next_prune = mono + PRUNE_MS;
        // The shell's `Disconnected` follows; until then the age keeps it from being cut twice.
        self.connected.insert(victim, mono);
        Some(Effect::Disconnect(victim))
    }
}
