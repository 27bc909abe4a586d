//! Moving replicas that run, so that nodes are evenly used: after nodes have joined or come back,
//! after others have left and services were removed.
//!
//! Nobody leads it. Who auctions a service decides about its moves too, from registers and desired
//! state alone, so any node goes on with it. A move is an auction for one slot that is filled: the
//! node that would be better is asked for a bid, holds the room, is awarded the slot with the next
//! epoch, and starts its replica. The old one goes because the new one's claim beats it and is running
//! and ready, and for no other reason; if the new one does not come up, it gives up
//! (`reconcile/moving.rs`).
//!
//! It is slow on purpose. A replica that runs is worth more than an even picture, so a move has to
//! lower a potential ([`search`]) by more than a threshold, nothing moves until the cluster has been
//! quiet for a while, few move at a time, and one that has moved rests.

mod forecast;
mod ledger;
mod search;

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::Now;
use dunlin_state::desired::Desired;
use dunlin_state::model::{Availability, NodeId, ServiceKey, Slot};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bidding::{Message, RoundId};
use crate::cluster::Cluster;
use crate::liveness::Standing;
use crate::plan::room::Room;
pub(crate) use forecast::forecast;
pub use forecast::{Forecast, NodeUse};
pub use ledger::Stays;
use ledger::{Ledger, placed};
use search::Search;
pub use search::{Gain, Move};

/// Milliseconds for which nobody must have come, gone, missed probes or been drained before anything
/// moves by itself. A node that restarts for an update is back well within it.
const QUIET_MS: u64 = 300_000;

/// Milliseconds for which a replica stays where it is before it moves by itself: caches are warm, and
/// what was just placed was placed well.
const REST_MS: u64 = 600_000;

/// Milliseconds between two moves in the whole cluster, when nobody has asked for them.
const PACE_MS: u64 = 20_000;

/// How many millionths emptier the other node has to be, with the replica: less is not worth ending
/// what runs.
const LEAST_PPM: u64 = 100_000;

/// The same when somebody has asked for it.
const ASKED_LEAST_PPM: u64 = 20_000;

/// Milliseconds for which moves go on after somebody has asked for them.
pub const ASKED_MS: u64 = 3_600_000;

/// Milliseconds by which the clock of a node may be behind that of the one that was asked.
const SKEW_MS: u64 = 60_000;

/// Milliseconds between two looks.
const LOOK_MS: u64 = 10_000;

/// The same when somebody has asked for it.
const ASKED_LOOK_MS: u64 = 1_000;

/// Milliseconds for which a node has to go on before it is worked on, for anything to be moved to it by
/// itself: what comes back at noon should not have to go again at night.
const STAY_MS: u64 = 86_400_000;

/// Of so many nodes that live, one replica may be on its way.
const NODES_PER_MOVE: usize = 8;

/// Milliseconds until a node that was asked has answered, or the claim that it was awarded is known.
const ANSWER_MS: u64 = 3_000;

/// Milliseconds for which a node that has refused a service, or where it did not come up, is not asked
/// again to take a replica of it.
const AVOID_MS: u64 = 600_000;

/// Pairs of services and nodes that are avoided at a time.
const MAX_AVOIDED: usize = 1_024;

/// Rounds of moves are told from those of auctions by this bit.
const MOVE_ROUND: u64 = 1 << 63;

/// What a look needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) desired: &'a Desired,
    /// Whether enough of the cluster is known, and this node is neither cut off nor leaving.
    pub(crate) whole: bool,
}

/// What should be sent.
pub(crate) type Sends = Vec<(NodeId, Message)>;

/// Why moves are made at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Automatic,
    /// Somebody has asked, at that time.
    Asked(u64),
}

/// A node was asked to take a replica.
#[derive(Debug)]
struct Attempt {
    round: RoundId,
    next: Move,
    revision: String,
    until: u64,
    awarded: bool,
}

/// Decides about moves of the services that this node auctions.
#[derive(Debug)]
pub(crate) struct Rebalancer {
    boot: u64,
    next_seq: u64,
    rng: ChaCha8Rng,
    look_at: u64,
    quiet_since: u64,
    attempt: Option<Attempt>,
    avoided: BTreeMap<(ServiceKey, NodeId), u64>,
}

impl Rebalancer {
    pub(crate) fn new(boot: u64, seed: u64, now: u64) -> Self {
        Self {
            boot,
            next_seq: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            look_at: now.saturating_add(LOOK_MS),
            quiet_since: now,
            attempt: None,
            avoided: BTreeMap::new(),
        }
    }

    /// Somebody has come, gone, or takes work otherwise than before.
    pub(crate) fn disturbed(&mut self, now: u64) {
        self.quiet_since = now;
    }

    /// Somebody has asked for moves, or for none.
    pub(crate) fn look_soon(&mut self, now: u64) {
        let at = now.saturating_add(self.rng.next_u64() % ASKED_LOOK_MS);
        self.look_at = self.look_at.min(at);
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        let until = self.attempt.as_ref().map(|attempt| attempt.until);
        Some(until.unwrap_or(self.look_at))
    }

    /// Whether a round is one of a move that this node has asked for.
    pub(crate) fn asked(&self, round: RoundId) -> bool {
        round.seq & MOVE_ROUND != 0
    }

    /// Time has passed: looks whether something should move.
    pub(crate) fn handle_timeout(&mut self, scene: Scene<'_>, now: Now) -> Sends {
        if self.attempt.as_ref().is_some_and(|a| a.until <= now.mono) {
            self.give_up(now.mono);
        }
        if self.attempt.is_some() || self.look_at > now.mono {
            return Sends::new();
        }
        let mode = self.mode(scene, now);
        let pause = match mode {
            Some(Mode::Asked(_)) => ASKED_LOOK_MS,
            Some(Mode::Automatic) | None => LOOK_MS,
        };
        self.avoided.retain(|_, until| *until > now.mono);
        // Nodes that look at the same time count on the same room.
        let jitter = self.rng.next_u64() % pause;
        self.look_at = now.mono.saturating_add(pause / 2).saturating_add(jitter);
        match mode.and_then(|mode| self.choose(mode, scene, now)) {
            Some(next) => self.ask(next, scene, now),
            None => Sends::new(),
        }
    }

    fn mode(&self, scene: Scene<'_>, now: Now) -> Option<Mode> {
        let quiet = now.mono.saturating_sub(self.quiet_since);
        let rules = scene.desired.rebalancing;
        let asked = rules.asked.filter(|at| {
            *at <= now.wall.saturating_add(SKEW_MS) && now.wall.saturating_sub(*at) < ASKED_MS
        });
        let cluster = scene.cluster;
        if !scene.whole || !cluster.is_complete() || cluster.alive().len() < 2 {
            return None;
        }
        match asked {
            // Who asks sees who is there. A service with a holder that misses probes is left alone.
            Some(at) => Some(Mode::Asked(at)),
            None if rules.manual || quiet < QUIET_MS => None,
            None => Some(Mode::Automatic),
        }
    }

    /// The best move of all services that this node decides about.
    fn choose(&self, mode: Mode, scene: Scene<'_>, now: Now) -> Option<Move> {
        let Scene {
            cluster, desired, ..
        } = scene;
        let first = |key: &ServiceKey| cluster.my_rank(key) == Some(0);
        let mut mine = placed(desired).filter(|(key, _)| first(key)).peekable();
        mine.peek()?;
        let ledger = Ledger::read(cluster);
        let most = (cluster.alive().len() / NODES_PER_MOVE).max(1);
        let too_soon = |at: u64| at <= now.wall && now.wall - at < PACE_MS;
        let paced = mode == Mode::Automatic && ledger.last.is_some_and(too_soon);
        // Who was driven out has more need of the room.
        if ledger.moving >= most || paced || ledger.preempted {
            return None;
        }
        let room = Room::new(cluster, desired);
        let moves = mine.filter_map(|(key, service)| {
            let held = ledger.holders(key, service, cluster).ok()?;
            let may = |since: u64| match mode {
                Mode::Automatic => since.saturating_add(REST_MS) <= now.wall,
                // So that one request moves each replica once.
                Mode::Asked(at) => since < at,
            };
            let rested = held.iter().filter(|(_, (_, claim))| may(claim.since));
            let rested: BTreeSet<u32> = rested.map(|(index, _)| *index).collect();
            let holders = held.iter().map(|(index, (node, _))| (*index, *node));
            let avoids = |node| {
                self.avoided.contains_key(&(key.clone(), node))
                    || (mode == Mode::Automatic && is_worked_on_soon(desired, node, now.wall))
            };
            let search = Search {
                desired,
                key,
                service,
                holders: &holders.collect(),
                rested: &rested,
                room: &room,
                busy: &ledger.busy,
                closed: &|node| avoids(node) || !may_receive(cluster, node),
                least_ppm: match mode {
                    Mode::Automatic => LEAST_PPM,
                    Mode::Asked(_) => ASKED_LEAST_PPM,
                },
            };
            search.best()
        });
        moves.reduce(|best, next| if next.gain > best.gain { next } else { best })
    }

    fn ask(&mut self, next: Move, scene: Scene<'_>, now: Now) -> Sends {
        let Some(service) = scene.desired.services.get(&next.slot.service) else {
            return Sends::new();
        };
        let round = RoundId {
            boot: self.boot,
            seq: self.next_seq | MOVE_ROUND,
        };
        self.next_seq += 1;
        let call = Message::Call {
            round,
            service: next.slot.service.clone(),
            revision: service.revision.clone(),
            slots: 1,
            by_force: false,
            first: match next.slot.slot {
                Slot::Replica(index) => index,
                Slot::Node(_) => 0,
            },
            moved_from: Some(next.from),
        };
        let to = next.to;
        self.attempt = Some(Attempt {
            round,
            next,
            revision: service.revision.clone(),
            until: now.mono.saturating_add(ANSWER_MS),
            awarded: false,
        });
        vec![(to, call)]
    }

    /// A bid for a move: it is awarded if everything is still as it was. Says which slot was given away
    /// with which epoch.
    pub(crate) fn bid(
        &mut self,
        from: NodeId,
        round: RoundId,
        scene: Scene<'_>,
        now: Now,
    ) -> (Vec<(Slot, u64)>, Option<Move>) {
        let expected = |a: &&mut Attempt| a.round == round && a.next.to == from && !a.awarded;
        let Some(attempt) = self.attempt.as_mut().filter(expected) else {
            return (Vec::new(), None);
        };
        if !stands(attempt, scene) {
            self.attempt = None;
            return (Vec::new(), None);
        }
        attempt.awarded = true;
        attempt.until = now.mono.saturating_add(ANSWER_MS);
        let slot = &attempt.next.slot;
        let watch = scene.cluster.watch(&slot.service);
        let epoch = watch.map_or(0, |w| w.highest_epoch(slot.slot));
        let next = attempt.next.clone();
        (vec![(slot.slot, epoch.saturating_add(1))], Some(next))
    }

    /// The node that was asked does not take it, for a reason that passes or one that stays.
    pub(crate) fn refused(&mut self, from: NodeId, round: RoundId, passing: bool, now: u64) {
        let mine = |a: &Attempt| a.round == round && a.next.to == from;
        if self.attempt.as_ref().is_some_and(mine) {
            if passing {
                self.attempt = None;
            } else {
                self.give_up(now);
            }
        }
    }

    /// The attempt is over. If nothing was awarded, no more of this service goes there for a while.
    fn give_up(&mut self, now: u64) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        if !attempt.awarded && self.avoided.len() < MAX_AVOIDED {
            let pair = (attempt.next.slot.service, attempt.next.to);
            self.avoided.insert(pair, now.saturating_add(AVOID_MS));
        }
    }
}

/// Whether what an attempt was decided upon is still so.
fn stands(attempt: &Attempt, scene: Scene<'_>) -> bool {
    let Move { slot, from, to, .. } = &attempt.next;
    let Some(service) = scene.desired.services.get(&slot.service) else {
        return false;
    };
    let held = Ledger::read(scene.cluster);
    let held = held.holders(&slot.service, service, scene.cluster);
    let there = |index: u32| match &held {
        Ok(held) => held.get(&index).is_some_and(|(node, _)| node == from),
        Err(_) => false,
    };
    let still = match slot.slot {
        Slot::Replica(index) => there(index),
        Slot::Node(_) => false,
    };
    scene.whole
        && still
        && service.revision == attempt.revision
        && scene.cluster.my_rank(&slot.service) == Some(0)
        && may_receive(scene.cluster, *to)
        && is_active(scene.desired, *to)
}

/// Whether a node is to be drained again within the time that a move should last.
fn is_worked_on_soon(desired: &Desired, node: NodeId, wall: u64) -> bool {
    let next = desired.nodes.get(&node).and_then(|n| n.next_maintenance);
    next.is_some_and(|at| at < wall.saturating_add(STAY_MS))
}

fn is_active(desired: &Desired, node: NodeId) -> bool {
    let intent = desired.nodes.get(&node);
    intent.is_none_or(|intent| intent.availability == Availability::Active)
}

/// Whether a node is known well enough for anything to be moved to it.
fn may_receive(cluster: &Cluster, node: NodeId) -> bool {
    cluster.standing(node) == Standing::Alive && cluster.is_trusted(node)
}
