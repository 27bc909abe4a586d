//! Leases for services of which there must never be two: `singleton: strict`.
//!
//! The specification names voters, an odd number of nodes. Who holds a slot asks all of them for their
//! vote, again and again; a voter that gives it promises not to give it to anybody else for
//! [`VOTE_MS`] (Gray, Cheriton: "Leases", 1989). With the votes of a majority the replica may run. Two
//! majorities share a voter, so two nodes never have them at once.
//!
//! Only durations are compared, never clocks: the holder counts from when it asked, the voter from when
//! it was asked, which is later, and the holder counts a shorter time. Clocks may jump as they like, as
//! long as none of them runs a tenth faster than another. A voter that has just started may have
//! forgotten whom it gave its vote to, so it gives none for that time.
//!
//! The holder stops its replica [`FENCE_MS`] before its votes lapse, and the runtime was told when
//! to kill it should even the daemon not live or not be awake to do so.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dunlin_state::model::{NodeId, SlotId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Milliseconds for which a voter keeps its word. Long enough for a holder to ask five times, and about
/// the time that a singleton is away when its host dies.
const VOTE_MS: u64 = 12_000;

/// Milliseconds for which a holder counts on a vote, from when it asked: less by what clocks may differ
/// in speed, and by what it takes to kill a process.
const HOLD_MS: u64 = 10_500;

/// Milliseconds before the end of its lease at which a holder asks its replica to stop.
pub(crate) const FENCE_MS: u64 = 3_000;

/// Milliseconds that a replica then has before it is killed.
pub(crate) const FENCE_GRACE_MS: u64 = 1_500;

/// Milliseconds between two times that a holder asks.
const ASK_MS: u64 = 1_500;

/// Milliseconds without a majority after which a candidate gives its votes back, so that one of several
/// can have them all.
const CONTEST_MS: u64 = 3_000;

/// The longest pause of such a candidate in milliseconds, drawn by chance.
const MAX_PAUSE_MS: u64 = 3_000;

/// Milliseconds after a start in which what still runs may go on without votes: they are being asked
/// for, and the runtime counts on with the lease that it knows.
const FRESH_MS: u64 = 3_000;

/// Votes that a node gives at a time; one takes some hundred bytes.
const MAX_VOTES: usize = 4_096;

/// What holders and voters tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Holder to voter: may I run this?
    Ask {
        /// The slot.
        slot: SlotId,
        /// Comes back in the answer: when that was, by the holder's clock.
        sent: u64,
    },
    /// Voter to holder: yes, and nobody else for a while.
    Granted {
        /// The slot.
        slot: SlotId,
        /// Of the question.
        sent: u64,
    },
    /// Voter to holder: no.
    Denied {
        /// The slot.
        slot: SlotId,
    },
    /// Holder to voter: nothing of it runs here any more.
    Release {
        /// The slot.
        slot: SlotId,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Effect {
    /// Tell a node.
    Send { to: NodeId, message: Message },
    /// Whether a slot may run has changed, or for how long.
    Changed(SlotId),
}

/// This node's votes, and those it was given.
#[derive(Debug)]
pub(crate) struct Leases {
    me: NodeId,
    started: u64,
    rng: ChaCha8Rng,
    votes: BTreeMap<SlotId, Vote>,
    held: BTreeMap<SlotId, Lease>,
}

#[derive(Debug)]
struct Vote {
    holder: NodeId,
    until: u64,
}

#[derive(Debug)]
struct Lease {
    voters: Vec<NodeId>,
    /// Until when each vote counts.
    granted: BTreeMap<NodeId, u64>,
    ask_at: u64,
    /// Since when it has had no majority.
    lacking: u64,
    /// Whether somebody else seems to have votes.
    denied: bool,
    /// Whether it was told that it may run.
    valid: bool,
}

impl Lease {
    /// Until when a majority counts.
    fn until(&self) -> u64 {
        let mut ends: Vec<u64> = self.granted.values().copied().collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(self.voters.len() / 2).copied().unwrap_or(0)
    }

    /// Whether it may run, with time enough to stop.
    fn is_valid(&self, now: u64) -> bool {
        self.until() > now.saturating_add(FENCE_MS)
    }
}

impl Leases {
    pub(crate) fn new(me: NodeId, seed: u64, now: u64) -> Self {
        Self {
            me,
            started: now,
            rng: ChaCha8Rng::seed_from_u64(seed),
            votes: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Whether no lease is asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// Takes note of which slots need a lease, and whose votes count for them.
    pub(crate) fn want(&mut self, wanted: BTreeMap<SlotId, Vec<NodeId>>, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let me = self.me;
        self.held.retain(|slot, lease| {
            let kept = wanted.get(slot) == Some(&lease.voters);
            if !kept {
                let released = Message::Release { slot: slot.clone() };
                effects.extend(to_all(&lease.voters, &released));
            }
            kept
        });
        for (slot, voters) in wanted {
            self.held.entry(slot).or_insert(Lease {
                voters,
                granted: BTreeMap::new(),
                ask_at: now,
                lacking: now,
                denied: false,
                valid: false,
            });
        }
        let (own, others) = self.split(effects);
        debug_assert!(own.iter().all(|m| matches!(m, Message::Release { .. })));
        for message in own {
            self.vote(me, message, now);
        }
        others
    }

    /// Until when the runtime may let a replica run, in milliseconds of the monotonic clock.
    pub(crate) fn until(&self, slot: &SlotId) -> u64 {
        self.held.get(slot).map_or(0, Lease::until)
    }

    /// Why a replica may not run now. `runs` says that it does.
    pub(crate) fn bars(&self, slot: &SlotId, runs: bool, now: u64) -> Option<String> {
        let lease = self.held.get(slot);
        if lease.is_some_and(|lease| lease.is_valid(now)) {
            return None;
        }
        let fresh = now < self.started.saturating_add(FRESH_MS);
        let refused = lease.is_some_and(|lease| lease.denied);
        if runs && fresh && !refused {
            return None;
        }
        let (have, all) = lease.map_or((0, 0), |lease| {
            let valid = lease.granted.values().filter(|until| **until > now);
            (valid.count(), lease.voters.len())
        });
        Some(format!(
            "there must never be two, and it has the votes of {have} of {all} voters; it needs {}",
            all / 2 + 1
        ))
    }

    /// Takes a message of another node.
    pub(crate) fn handle(&mut self, from: NodeId, message: Message, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(answer) = self.vote(from, message.clone(), now) {
            let to = from;
            effects.push(Effect::Send {
                to,
                message: answer,
            });
        }
        self.count(from, message, now, &mut effects);
        effects
    }

    /// As a voter.
    fn vote(&mut self, from: NodeId, message: Message, now: u64) -> Option<Message> {
        match message {
            Message::Ask { slot, sent } => {
                self.votes.retain(|_, vote| vote.until > now);
                let taken = self.votes.get(&slot).is_some_and(|v| v.holder != from);
                let forgetful = now < self.started.saturating_add(VOTE_MS);
                let full = self.votes.len() >= MAX_VOTES && !self.votes.contains_key(&slot);
                if taken || forgetful || full {
                    return Some(Message::Denied { slot });
                }
                let vote = Vote {
                    holder: from,
                    until: now.saturating_add(VOTE_MS),
                };
                self.votes.insert(slot.clone(), vote);
                Some(Message::Granted { slot, sent })
            }
            Message::Release { slot } => {
                if self.votes.get(&slot).is_some_and(|v| v.holder == from) {
                    self.votes.remove(&slot);
                }
                None
            }
            Message::Granted { .. } | Message::Denied { .. } => None,
        }
    }

    /// As a holder.
    fn count(&mut self, from: NodeId, message: Message, now: u64, effects: &mut Vec<Effect>) {
        match message {
            Message::Granted { slot, sent } => {
                let Some(lease) = self.held.get_mut(&slot) else {
                    return;
                };
                if !lease.voters.contains(&from) {
                    return;
                }
                // A voter that says otherwise gains nothing by it.
                let until = sent.min(now).saturating_add(HOLD_MS);
                let before = lease.until();
                let known = lease.granted.entry(from).or_default();
                *known = until.max(*known);
                if lease.until() > before && lease.is_valid(now) {
                    lease.valid = true;
                    lease.denied = false;
                    lease.lacking = now;
                    effects.push(Effect::Changed(slot));
                }
            }
            Message::Denied { slot } => {
                if let Some(lease) = self.held.get_mut(&slot)
                    && lease.voters.contains(&from)
                {
                    lease.denied = true;
                }
            }
            Message::Ask { .. } | Message::Release { .. } => {}
        }
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let due = self.held.iter_mut().filter(|(_, lease)| lease.due() <= now);
        for (slot, lease) in due {
            if lease.valid && !lease.is_valid(now) {
                lease.valid = false;
                lease.lacking = now;
                effects.push(Effect::Changed(slot.clone()));
            }
            if lease.ask_at > now {
                continue;
            }
            let slot = slot.clone();
            if !lease.valid && now.saturating_sub(lease.lacking) >= CONTEST_MS {
                let pause = self.rng.next_u64() % MAX_PAUSE_MS;
                lease.lacking = now.saturating_add(pause);
                lease.ask_at = lease.lacking;
                // What runs until its own end still needs the votes to be its own.
                if lease.until() <= now {
                    lease.granted.clear();
                    effects.extend(to_all(&lease.voters, &Message::Release { slot }));
                }
                continue;
            }
            lease.ask_at = now.saturating_add(ASK_MS);
            effects.extend(to_all(&lease.voters, &Message::Ask { slot, sent: now }));
        }
        let (own, mut others) = self.split(effects);
        for message in own {
            let me = self.me;
            if let Some(answer) = self.vote(me, message, now) {
                self.count(me, answer, now, &mut others);
            }
        }
        others
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.held.values().map(Lease::due).min()
    }

    /// Messages of this node to itself, and everything else.
    fn split(&self, effects: Vec<Effect>) -> (Vec<Message>, Vec<Effect>) {
        let mut own = Vec::new();
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { to, message } if to == self.me => own.push(message),
                Effect::Send { .. } | Effect::Changed(_) => others.push(effect),
            }
        }
        (own, others)
    }
}

impl Lease {
    fn due(&self) -> u64 {
        let fence = self.until().saturating_sub(FENCE_MS);
        if self.valid {
            self.ask_at.min(fence)
        } else {
            self.ask_at
        }
    }
}

fn to_all<'a>(voters: &'a [NodeId], message: &'a Message) -> impl Iterator<Item = Effect> + 'a {
    voters.iter().map(|to| Effect::Send {
        to: *to,
        message: message.clone(),
    })
}
