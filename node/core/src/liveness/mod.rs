//! When is a node so surely dead that its work may start elsewhere?
//!
//! Membership's *down* is a rumour: a peer that only some nodes cannot reach, or one that was
//! stopped for two seconds, is called down too. Starting its replicas a second time is costly, so
//! this machine asks for three agreeing witnesses before it calls a node [`Standing::Gone`]:
//! membership says down, this node's own probe over the reliable path failed, and nothing at all
//! was heard from it for [`SILENCE_MS`] after the
//! first doubt. A goodbye ([`Standing::Left`]) needs no witness, and any
//! sign of life takes a verdict back at once.
//!
//! A process that was itself stopped sees everybody silent. After such a stall
//! ([`Liveness::stalled`]) all evidence of silence is void and has to be gathered again.
//!
//! A node whose register is known but which membership has never mentioned (after a restart of
//! the whole cluster, say) gets the same treatment as one that is down: probed, and given up when
//! it stays silent.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dunlin_gossip::membership::{MemberEvent, MemberId, MemberState};
use dunlin_state::model::NodeId;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Milliseconds of silence before a node that membership calls down is given up. Longer than any
/// scheduling hiccup of a healthy host, short against the seconds that a start elsewhere takes.
pub const SILENCE_MS: u64 = 2_000;

/// Milliseconds between two probes of a node in doubt: two of them fit into the silence.
const PROBE_INTERVAL_MS: u64 = 800;

/// Milliseconds after which an unanswered probe has failed. The shell promises an answer within a
/// second; the rest is its own scheduling.
const PROBE_TIMEOUT_MS: u64 = 1_200;

/// Milliseconds between probes of a node that is gone, to notice that only membership's path to
/// it is broken. Rare, because there may be many of them.
const GONE_PROBE_INTERVAL_MS: u64 = 10_000;

/// Milliseconds that a node unknown to membership gets to appear there before it is doubted: a
/// node that joins hears registers before it hears of all members.
const UNKNOWN_GRACE_MS: u64 = 3_000;

/// What this node acts on, as opposed to what membership rumours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It answers.
    Alive,
    /// In doubt: gets no traffic and no new work, keeps what it has.
    Suspect,
    /// Given up: its claims are void.
    Gone,
    /// It said goodbye: its claims are void.
    Left,
}

impl Standing {
    /// Whether the node's claims count.
    pub fn holds_claims(self) -> bool {
        match self {
            Self::Alive | Self::Suspect => true,
            Self::Gone | Self::Left => false,
        }
    }
}

/// What the judge wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Ask the node over the reliable path; answer with [`Liveness::probed`].
    Probe {
        /// Whom.
        node: NodeId,
        /// Its membership address.
        address: SocketAddr,
    },
    /// A node's standing has changed.
    Changed {
        /// Whose.
        node: NodeId,
        /// To what.
        standing: Standing,
    },
}

/// When membership last had a first-hand sign of life of a node, in milliseconds of the monotonic
/// clock: its datagrams do not pass through this machine.
pub type Heard<'a> = &'a dyn Fn(NodeId) -> Option<u64>;

/// The judge of life and death.
#[derive(Debug)]
pub struct Liveness {
    me: NodeId,
    nodes: BTreeMap<NodeId, Entry>,
    /// The earliest [`Entry::due`], so that a quiet cluster costs nothing.
    next_due: Option<u64>,
}

#[derive(Debug)]
struct Entry {
    belief: Belief,
    standing: Standing,
    address: Option<SocketAddr>,
    /// When it was last heard, or when that count was started anew.
    heard: u64,
    /// When membership began to doubt it. Members of a quiet cluster hear nothing of each other
    /// for seconds, so silence before anyone asked is no evidence.
    doubted: u64,
    /// When the probe went out that is not answered yet.
    probing: Option<u64>,
    /// Whether a probe has failed since it was last heard.
    unreachable: bool,
    /// When the last probe went out since it was last a living member.
    last_probe: Option<u64>,
    /// When to look at it again.
    due: Option<u64>,
}

/// What membership says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belief {
    Member(MemberState),
    /// Only its register is known, since this instant.
    Unknown {
        since: u64,
    },
}

impl Liveness {
    /// A judge on node `me`, which is always alive to itself.
    pub fn new(me: NodeId) -> Self {
        Self {
            me,
            nodes: BTreeMap::new(),
            next_due: None,
        }
    }

    /// The standing of a node; one nobody has spoken of is in doubt.
    pub fn standing(&self, node: NodeId) -> Standing {
        if node == self.me {
            return Standing::Alive;
        }
        self.nodes
            .get(&node)
            .map_or(Standing::Suspect, |e| e.standing)
    }

    /// Membership has changed its mind.
    pub fn member(&mut self, event: MemberEvent, heard: Heard<'_>, now: u64) -> Vec<Effect> {
        let (id, state) = match event {
            MemberEvent::Alive(id) => (id, MemberState::Alive),
            MemberEvent::Suspect(id) => (id, MemberState::Suspect),
            MemberEvent::Down(id) => (id, MemberState::Down),
            MemberEvent::Left(id) => (id, MemberState::Left),
        };
        self.believe(id, state, heard, now)
    }

    fn believe(
        &mut self,
        id: MemberId,
        state: MemberState,
        heard: Heard<'_>,
        now: u64,
    ) -> Vec<Effect> {
        if id.node == self.me {
            return Vec::new();
        }
        let entry = self
            .nodes
            .entry(id.node)
            .or_insert_with(|| Entry::new(Belief::Member(state), now));
        if entry.belief == Belief::Member(MemberState::Alive) && state != MemberState::Alive {
            entry.doubted = now;
        }
        entry.belief = Belief::Member(state);
        entry.address = Some(id.address);
        if state == MemberState::Alive {
            entry.live(now);
            entry.last_probe = None;
        }
        self.review(id.node, heard, now)
    }

    /// A register of this node is known.
    pub fn registered(
        &mut self,
        node: NodeId,
        address: Option<SocketAddr>,
        now: u64,
    ) -> Vec<Effect> {
        if node == self.me || self.nodes.contains_key(&node) {
            return Vec::new();
        }
        let mut entry = Entry::new(Belief::Unknown { since: now }, now);
        entry.address = address;
        self.nodes.insert(node, entry);
        self.review(node, &|_| None, now)
    }

    /// An authenticated sign of life. Cheap: called for every message.
    pub fn heard(&mut self, node: NodeId, now: u64) -> Vec<Effect> {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return Vec::new();
        };
        entry.live(now);
        match entry.standing {
            Standing::Alive | Standing::Left => Vec::new(),
            Standing::Suspect | Standing::Gone => self.review(node, &|_| None, now),
        }
    }

    /// The answer to a probe.
    pub fn probed(
        &mut self,
        node: NodeId,
        reachable: bool,
        heard: Heard<'_>,
        now: u64,
    ) -> Vec<Effect> {
        if reachable {
            return self.heard(node, now);
        }
        let Some(entry) = self.nodes.get_mut(&node) else {
            return Vec::new();
        };
        // An answer to a probe from before the last sign of life says nothing.
        if entry.probing.take().is_none() {
            return Vec::new();
        }
        entry.unreachable = true;
        self.review(node, heard, now)
    }

    /// This process did not run for a while: nothing that it failed to hear meanwhile counts.
    pub fn stalled(&mut self, now: u64) -> Vec<Effect> {
        let doubted: Vec<NodeId> = self
            .nodes
            .iter_mut()
            .filter(|(_, entry)| match entry.standing {
                Standing::Alive | Standing::Suspect => true,
                Standing::Gone | Standing::Left => false,
            })
            .map(|(node, entry)| {
                entry.live(now);
                entry.last_probe = None;
                *node
            })
            .collect();
        doubted
            .into_iter()
            .flat_map(|node| self.review(node, &|_| None, now))
            .collect()
    }

    /// Forgets a node that is gone for good.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, heard: Heard<'_>, now: u64) -> Vec<Effect> {
        if self.next_due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let due: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, entry)| entry.due.is_some_and(|due| due <= now))
            .map(|(node, _)| *node)
            .collect();
        let effects = due
            .into_iter()
            .flat_map(|node| self.review(node, heard, now))
            .collect();
        self.next_due = self.nodes.values().filter_map(|e| e.due).min();
        effects
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.next_due
    }

    /// Draws all conclusions about one node.
    fn review(&mut self, node: NodeId, heard: Heard<'_>, now: u64) -> Vec<Effect> {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return Vec::new();
        };
        if let Some(at) = heard(node).filter(|at| *at > entry.heard) {
            entry.live(at);
        }
        let mut effects = Vec::new();
        let standing = entry.conclude(now);
        if standing != entry.standing {
            entry.standing = standing;
            effects.push(Effect::Changed { node, standing });
        }
        entry.due = entry.next_step(now);
        if let Some(address) = entry.start_probe(now) {
            effects.push(Effect::Probe { node, address });
            entry.due = entry.next_step(now);
        }
        if let Some(due) = entry.due {
            self.next_due = Some(self.next_due.map_or(due, |known| known.min(due)));
        }
        effects
    }
}

impl Entry {
    fn new(belief: Belief, now: u64) -> Self {
        Self {
            belief,
            standing: Standing::Suspect,
            address: None,
            heard: now,
            doubted: now,
            probing: None,
            unreachable: false,
            last_probe: None,
            due: None,
        }
    }

    /// It was heard: all evidence against it is void.
    fn live(&mut self, at: u64) {
        self.heard = self.heard.max(at);
        self.probing = None;
        self.unreachable = false;
    }

    /// The verdict on the evidence so far.
    fn conclude(&mut self, now: u64) -> Standing {
        if let Some(at) = self.probing
            && now >= at.saturating_add(PROBE_TIMEOUT_MS)
        {
            self.probing = None;
            self.unreachable = true;
        }
        let given_up = match self.belief {
            Belief::Member(MemberState::Alive) => return Standing::Alive,
            Belief::Member(MemberState::Left) => return Standing::Left,
            Belief::Member(MemberState::Suspect) => false,
            Belief::Member(MemberState::Down) => true,
            Belief::Unknown { since } => now >= since.saturating_add(UNKNOWN_GRACE_MS),
        };
        let silent = now >= self.silent_at();
        let unreachable = self.unreachable || self.address.is_none();
        // A verdict stands while it is being checked again; a sign of life breaks the silence.
        let gone = self.standing == Standing::Gone;
        if given_up && silent && (unreachable || gone) {
            Standing::Gone
        } else {
            Standing::Suspect
        }
    }

    /// When it has been silent for long enough although it was asked.
    fn silent_at(&self) -> u64 {
        self.heard.max(self.doubted).saturating_add(SILENCE_MS)
    }

    fn probe_interval(&self) -> u64 {
        match self.standing {
            Standing::Gone => GONE_PROBE_INTERVAL_MS,
            Standing::Alive | Standing::Suspect | Standing::Left => PROBE_INTERVAL_MS,
        }
    }

    /// When the next probe should go out, if the node is in doubt.
    fn probe_at(&self) -> Option<u64> {
        self.address?;
        match self.standing {
            Standing::Alive | Standing::Left => return None,
            Standing::Suspect | Standing::Gone => {}
        }
        Some(match (self.probing, self.last_probe, self.belief) {
            (Some(at), _, _) => at.saturating_add(PROBE_TIMEOUT_MS),
            (None, Some(at), _) => at.saturating_add(self.probe_interval()),
            (None, None, Belief::Member(_)) => 0,
            (None, None, Belief::Unknown { since }) => since.saturating_add(UNKNOWN_GRACE_MS / 2),
        })
    }

    /// When something about this node changes by itself.
    fn next_step(&self, now: u64) -> Option<u64> {
        let verdict = match (self.standing, self.belief) {
            (Standing::Suspect, Belief::Member(MemberState::Down)) => Some(self.silent_at()),
            (Standing::Suspect, Belief::Unknown { since }) => {
                Some(self.silent_at().max(since.saturating_add(UNKNOWN_GRACE_MS)))
            }
            (Standing::Suspect, Belief::Member(_))
            | (Standing::Alive | Standing::Gone | Standing::Left, _) => None,
        };
        // An instant that has passed was acted on already.
        let verdict = verdict.filter(|at| *at > now);
        let probing = self.probe_at().map(|at| at.max(now));
        verdict.into_iter().chain(probing).min()
    }

    /// Starts a probe if one is due; returns where to.
    fn start_probe(&mut self, now: u64) -> Option<SocketAddr> {
        let due = self.probe_at()?;
        if due > now {
            return None;
        }
        self.probing = Some(now);
        self.last_probe = Some(now);
        self.address
    }
}
