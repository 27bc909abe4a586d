//! The side that has slots to fill.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::Now;
use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{NodeId, ServiceKey, Slot};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::auction::{Auction, FIRST_BACKOFF_MS, PASSING_MS};
use super::candidates::{Invitation, invite};
use super::evenly::domains;
use super::round::{ENOUGH_MS, LastRound, ROUND_WINDOW_MS, Round};
use super::together::{Group, together};
use super::turns::Turns;
use super::{Message, RoundId};
use crate::cluster::{Cluster, Watch};
use crate::depend::Gate;
use crate::liveness::Standing;
use crate::placement::{Reason, reserves_anything};
use crate::timers::Timers;
use crate::volumes;

/// Rounds that one node has in flight. Each waits for one round trip, so this allows thousands of
/// rounds a second, and bounds what bidders hold in offers for one auctioneer.
const MAX_ROUNDS: usize = 64;

/// Milliseconds between two rounds that a change in the cluster brings forward.
const NUDGE_MS: u64 = 250;

/// What the auctioneer wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum AuctionEffect {
    /// Tell a bidder; this node's own bidder included.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Nobody takes these slots; said once until something changes.
    Unplaced {
        /// Whose.
        service: ServiceKey,
        /// How many.
        slots: usize,
    },
}

/// Auctions the vacant slots of the services for which this node ranks first.
#[derive(Debug)]
pub struct Auctioneer {
    me: NodeId,
    boot: u64,
    next_seq: u64,
    rng: ChaCha8Rng,
    auctions: BTreeMap<ServiceKey, Auction>,
    rounds: BTreeMap<RoundId, Round>,
    timers: Timers<ServiceKey>,
    deadlines: Timers<RoundId>,
    /// Services that wait for a round to end.
    queued: BTreeSet<ServiceKey>,
    starving: BTreeSet<ServiceKey>,
    turns: Turns,
}

/// What the auctioneer may look at.
#[derive(Clone, Copy)]
pub(crate) struct Floor<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) desired: &'a Desired,
    /// Whether enough of the cluster is known to tell which slots are vacant.
    pub(crate) open: bool,
}

impl<'a> Floor<'a> {
    /// The service, what is known of its claims, and this node's rank, if it auctions it at all.
    fn lot(&self, service: &ServiceKey) -> Option<(&'a Service, &'a Watch, usize)> {
        let known = self.desired.services.get(service)?;
        let rank = self.cluster.my_rank(service)?;
        Some((known, self.cluster.watch(service)?, rank))
    }

    /// Whether the slot has to wait for what its service depends on.
    fn bars(&self, key: &ServiceKey, service: &Service, slot: u32) -> bool {
        let Self {
            cluster, desired, ..
        } = *self;
        let gate = Gate { cluster, desired };
        gate.bars(key, service, Slot::Replica(slot)).is_some()
    }
}

impl Auctioneer {
    /// An auctioneer on node `me` in its `boot`-th life.
    pub fn new(me: NodeId, boot: u64, seed: u64) -> Self {
        Self {
            me,
            boot,
            next_seq: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            auctions: BTreeMap::new(),
            rounds: BTreeMap::new(),
            timers: Timers::default(),
            deadlines: Timers::default(),
            queued: BTreeSet::new(),
            starving: BTreeSet::new(),
            turns: Turns::default(),
        }
    }

    /// The last round of a service that this node held.
    pub fn last_round(&self, service: &ServiceKey) -> Option<&LastRound> {
        self.auctions.get(service)?.last.as_ref()
    }

    /// Slots awarded to nodes whose claims have not shown up yet.
    pub fn pending(&self, service: &ServiceKey) -> Vec<(Slot, NodeId)> {
        let pending = self.auctions.get(service).map(|a| &a.pending);
        let pending = pending.into_iter().flatten();
        pending.map(|(s, p)| (Slot::Replica(*s), p.node)).collect()
    }

    /// Whether a service waits for somebody to take it.
    pub(crate) fn is_starving(&self) -> bool {
        !self.starving.is_empty()
    }

    /// Another node called for bids: if its rank is better, this node need not take over.
    pub(crate) fn heard_call(&mut self, service: &ServiceKey, from: NodeId, now: u64) {
        if from != self.me
            && let Some(auction) = self.auctions.get_mut(service)
        {
            auction.better_heard = Some(now);
        }
    }

    /// Something changed that may let a starving service find a place.
    pub(crate) fn nudge(&mut self, now: u64) {
        for service in &self.starving {
            let jitter = self.rng.next_u64() % PASSING_MS;
            if let Some(auction) = self.auctions.get_mut(service) {
                let at = now.max(auction.nudged.saturating_add(NUDGE_MS)) + jitter;
                if at < auction.not_before {
                    auction.nudged = at;
                    auction.not_before = at;
                    auction.fruitless = auction.fruitless.min(1);
                    self.timers.set(service, Some(at));
                }
            }
        }
    }

    /// Looks at a service whose specification, claims or ranks have changed.
    pub(crate) fn review(
        &mut self,
        service: &ServiceKey,
        floor: Floor<'_>,
        now: Now,
    ) -> Vec<AuctionEffect> {
        let Some((known, watch, rank)) = floor.lot(service) else {
            let mut effects = self.abandon(service);
            effects.extend(self.drain_queue(floor, now));
            return effects;
        };
        let vacant = watch.vacant();
        if vacant.is_empty() && !self.auctions.contains_key(service) {
            return Vec::new();
        }
        let auction = self.auctions.entry(service.clone()).or_default();
        auction.note_vacancy(vacant, floor.cluster, now.mono);
        let need: Vec<u32> = vacant
            .iter()
            .copied()
            .filter(|slot| !auction.pending.contains_key(slot))
            .filter(|slot| !floor.bars(service, known, *slot))
            .collect();
        if vacant.is_empty() {
            self.starving.remove(service);
            auction.fruitless = 0;
        }
        // Whoever takes the first slot makes the volume that the others need.
        let first = !auction.pending.is_empty()
            && volumes::begins_shared(floor.cluster, service, &known.spec);
        let idle = need.is_empty() || first || auction.round.is_some() || !floor.open;
        let mut start = auction.start_at(rank);
        if !idle && start <= now.mono {
            let wait = self.turns.wait(known.spec.reservation, floor, now.mono);
            start = auction.in_turn(wait, now.mono);
        }
        if idle || start > now.mono {
            let start = (!idle).then_some(start);
            let wake = auction.pending.values().map(|p| p.until).chain(start).min();
            self.timers.set(service, wake);
            return Vec::new();
        }
        if self.rounds.len() >= MAX_ROUNDS {
            self.queued.insert(service.clone());
            return Vec::new();
        }
        self.open_round(service, known, &need, floor, now)
    }

    fn open_round(
        &mut self,
        service: &ServiceKey,
        known: &Service,
        need: &[u32],
        floor: Floor<'_>,
        now: Now,
    ) -> Vec<AuctionEffect> {
        let Floor {
            cluster, desired, ..
        } = floor;
        // Slots that a held rollout has not reached get the specification before: another round.
        let target = |slot: &u32| known.target(Slot::Replica(*slot));
        let Some((revision, spec)) = need.first().map(target) else {
            return Vec::new();
        };
        let alike = need.iter().filter(|slot| target(slot).0 == revision);
        let alike = alike.copied().collect();
        let Group {
            slots: mut need,
            homes,
        } = together(cluster, service, spec, alike, self.next_seq);
        let auction = self.auctions.entry(service.clone()).or_default();
        let forced = auction.may_force(&need, now.mono);
        let by_force = std::mem::take(&mut auction.by_force) && !forced.is_empty();
        if by_force {
            need = forced;
        }
        let Invitation { mut nodes, slots } =
            invite(cluster, desired, service, spec, need.len(), &mut self.rng);
        let answer = |home: &NodeId| cluster.standing(*home) == Standing::Alive;
        nodes.extend(homes.into_iter().filter(answer));
        let id = RoundId {
            boot: self.boot,
            seq: self.next_seq,
        };
        self.next_seq += 1;
        let revision = revision.to_owned();
        let lot = need.iter().copied().take(slots).collect();
        let message = Message::Call {
            round: id,
            service: service.clone(),
            revision: revision.clone(),
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            by_force,
            first: need.first().copied().unwrap_or_default(),
            moved_from: None,
        };
        let calls = nodes.iter().map(|to| AuctionEffect::Send {
            to: *to,
            message: message.clone(),
        });
        let calls = calls.collect();
        let round = Round::new(service.clone(), revision, lot, by_force, nodes, now.mono);
        self.rounds.insert(id, round);
        self.deadlines.set(&id, Some(now.mono + ENOUGH_MS));
        self.auctions.entry(service.clone()).or_default().round = Some(id);
        self.timers.set(service, None);
        calls
    }

    /// Takes an answer.
    pub(crate) fn handle(
        &mut self,
        from: NodeId,
        message: Message,
        floor: Floor<'_>,
        now: Now,
    ) -> Vec<AuctionEffect> {
        match message {
            Message::Bid { round, scores } => {
                let expected = self
                    .rounds
                    .get_mut(&round)
                    .is_some_and(|r| r.bid(from, scores));
                if !expected {
                    return vec![release(from, round)];
                }
                self.close_if_over(round, floor, now)
            }
            Message::Refusal { round, reasons } => {
                if let Some(open) = self.rounds.get_mut(&round) {
                    open.refuse(from, reasons);
                }
                self.close_if_over(round, floor, now)
            }
            Message::AwardRefused { slots, reason, .. } => {
                self.award_refused(from, &slots, &reason, floor, now)
            }
            // For the bidder; the engine does not route them here.
            Message::Call { .. } | Message::Award { .. } => Vec::new(),
        }
    }

    fn award_refused(
        &mut self,
        from: NodeId,
        slots: &[Slot],
        reason: &Reason,
        floor: Floor<'_>,
        now: Now,
    ) -> Vec<AuctionEffect> {
        // The message names a round that is over; slots are found by who was to have them.
        let mut touched = Vec::new();
        for (service, auction) in &mut self.auctions {
            let before = auction.pending.len();
            auction.pending.retain(|slot, pending| {
                pending.node != from || !slots.contains(&Slot::Replica(*slot))
            });
            if auction.pending.len() < before {
                let wait = if reason.is_passing() {
                    PASSING_MS
                } else {
                    FIRST_BACKOFF_MS
                };
                auction.not_before = now.mono + wait + self.rng.next_u64() % PASSING_MS;
                touched.push(service.clone());
            }
        }
        let mut effects = Vec::new();
        for service in touched {
            effects.extend(self.review(&service, floor, now));
        }
        effects
    }

    /// A node does not answer any more: no round waits for it.
    pub(crate) fn node_lost(
        &mut self,
        node: NodeId,
        floor: Floor<'_>,
        now: Now,
    ) -> Vec<AuctionEffect> {
        let waiting: Vec<RoundId> = self
            .rounds
            .iter_mut()
            .filter_map(|(id, round)| round.lose(node).then_some(*id))
            .collect();
        let mut effects = Vec::new();
        for id in waiting {
            effects.extend(self.close_if_over(id, floor, now));
        }
        effects
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(&mut self, floor: Floor<'_>, now: Now) -> Vec<AuctionEffect> {
        let mut effects = Vec::new();
        for id in self.deadlines.take_due(now.mono) {
            if let Some(round) = self.rounds.get(&id) {
                let end = round.opened + ROUND_WINDOW_MS;
                self.deadlines.set(&id, Some(end.max(now.mono + 1)));
            }
            effects.extend(self.close_if_over(id, floor, now));
        }
        for service in self.timers.take_due(now.mono) {
            effects.extend(self.review(&service, floor, now));
        }
        effects
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        let times = [self.timers.next(), self.deadlines.next()];
        times.into_iter().flatten().min()
    }

    fn close_if_over(&mut self, id: RoundId, floor: Floor<'_>, now: Now) -> Vec<AuctionEffect> {
        match self.rounds.get(&id) {
            Some(round) if round.is_over(now.mono) => {}
            Some(_) | None => return Vec::new(),
        }
        let Some(round) = self.rounds.remove(&id) else {
            return Vec::new();
        };
        self.deadlines.set(&id, None);
        let service = round.service.clone();
        let mut effects = self.award(id, round, floor, now);
        effects.extend(self.review(&service, floor, now));
        effects.extend(self.drain_queue(floor, now));
        effects
    }

    fn drain_queue(&mut self, floor: Floor<'_>, now: Now) -> Vec<AuctionEffect> {
        let mut effects = Vec::new();
        while self.rounds.len() < MAX_ROUNDS
            && let Some(next) = self.queued.pop_first()
        {
            effects.extend(self.review(&next, floor, now));
        }
        effects
    }

    fn award(
        &mut self,
        id: RoundId,
        round: Round,
        floor: Floor<'_>,
        now: Now,
    ) -> Vec<AuctionEffect> {
        let service = round.service.clone();
        let Some(auction) = self.auctions.get_mut(&service) else {
            return round.bidders().map(|to| release(to, id)).collect();
        };
        auction.round = None;
        let lot = floor.lot(&service);
        let spec = |known: &Service| known.spec_of(&round.revision).cloned();
        let lot = lot.and_then(|(known, watch, _)| Some((spec(known)?, known, watch)));
        let Some((spec, known, watch)) = lot else {
            return round.bidders().map(|to| release(to, id)).collect();
        };
        let still: Vec<u32> = round
            .slots
            .iter()
            .copied()
            .filter(|slot| watch.vacant().contains(slot))
            .filter(|slot| known.target(Slot::Replica(*slot)).0 == round.revision)
            .collect();
        let holds = |slot, node| watch.holders(Slot::Replica(slot)).any(|(n, _)| n == node);
        let given = auction.pending.iter().map(|(slot, p)| (*slot, p.node));
        let domains = domains(floor.cluster, floor.desired, &spec, watch, given);
        let awards = round.assign(&still, domains, holds);
        let mut effects = Vec::new();
        for bidder in round.bidders() {
            let slots = awards.get(&bidder).map_or(&[][..], Vec::as_slice);
            if slots.is_empty() && (round.by_force || !reserves_anything(&spec)) {
                continue;
            }
            let won = auction.promise(slots, bidder, watch, round.by_force, now.mono);
            let message = Message::Award {
                round: id,
                slots: won,
            };
            effects.push(AuctionEffect::Send {
                to: bidder,
                message,
            });
        }
        if awards.is_empty() && !still.is_empty() {
            let wait = auction.back_off(round.is_passing(), round.is_making_room());
            let outranks = !round.is_passing() && outranks(&service, floor.desired);
            auction.consider_force(round.by_force, outranks);
            auction.not_before = now.mono + wait + self.rng.next_u64() % (wait / 5).max(1);
            if self.starving.insert(service.clone()) && !round.is_passing() {
                let slots = still.len();
                effects.push(AuctionEffect::Unplaced { service, slots });
            }
        } else {
            auction.fruitless = 0;
            self.starving.remove(&service);
        }
        auction.last = Some(round.summary(&awards, now.wall));
        effects
    }

    /// The service is not this node's to auction (any more).
    fn abandon(&mut self, service: &ServiceKey) -> Vec<AuctionEffect> {
        self.timers.set(service, None);
        self.queued.remove(service);
        self.starving.remove(service);
        let Some(round) = self.auctions.remove(service).and_then(|a| a.round) else {
            return Vec::new();
        };
        self.deadlines.set(&round, None);
        let bidders = self.rounds.remove(&round);
        let bidders = bidders.iter().flat_map(Round::bidders);
        bidders.map(|to| release(to, round)).collect()
    }
}

/// Whether some other service has a lower priority, so that its replicas may have to make way.
fn outranks(service: &ServiceKey, desired: &Desired) -> bool {
    let priority = |service: &Service| service.spec.policy.priority;
    let Some(mine) = desired.services.get(service).map(priority) else {
        return false;
    };
    let mut others = desired.services.values();
    others.any(|other| priority(other) < mine)
}

fn release(to: NodeId, round: RoundId) -> AuctionEffect {
    let slots = Vec::new();
    let message = Message::Award { round, slots };
    AuctionEffect::Send { to, message }
}
