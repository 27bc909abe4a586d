//! The side that has room to offer.

use std::collections::BTreeMap;

use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{HostPort, NodeId, Resources, ServiceKey, ServiceSpec, Slot};

use super::{BID_WINDOW_MS, Message, OFFER_MS, RoundId};
use crate::placement::{NodeView, Reason, Verdict, judge, marginal_scores, reserves_anything};
use crate::timers::Timers;

/// Scores in one bid: more replicas of one service on one node than this take another round.
pub(super) const MAX_SCORES: u32 = 256;

/// Calls and offers that a node keeps in mind. Each is a few hundred bytes, and an auctioneer has
/// at most 64 rounds in flight, so this serves dozens of auctioneers at once.
const MAX_OPEN: usize = 2_048;

/// What the bidder wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum BidderEffect {
    /// Tell an auctioneer.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Claim a slot that was won; the offer is released by this.
    Take {
        /// Whose slot.
        service: ServiceKey,
        /// Which.
        slot: Slot,
        /// Its fencing epoch.
        epoch: u64,
        /// Whose replica it takes the place of, if it is moved.
        moved_from: Option<NodeId>,
    },
    /// The same, after replicas of lower priorities have made way.
    Evict {
        /// Who auctioned it.
        auctioneer: NodeId,
        /// In which round.
        round: RoundId,
        /// Whose slot.
        service: ServiceKey,
        /// Which.
        slot: Slot,
        /// Its fencing epoch.
        epoch: u64,
        /// Of which specification.
        revision: String,
    },
}

type Key = (NodeId, RoundId);

/// Answers calls for bids on behalf of one node.
#[derive(Debug, Default)]
pub struct Bidder {
    /// Calls about revisions that have not arrived yet.
    waiting: BTreeMap<Key, Call>,
    offers: BTreeMap<Key, Offer>,
    timers: Timers<Key>,
}

#[derive(Debug)]
struct Call {
    service: ServiceKey,
    revision: String,
    slots: u32,
    by_force: bool,
    first: u32,
    moved_from: Option<NodeId>,
}

#[derive(Debug)]
struct Offer {
    service: ServiceKey,
    revision: String,
    /// How many it covers.
    replicas: usize,
    holds: Resources,
    ports: Vec<HostPort>,
    by_force: bool,
    moved_from: Option<NodeId>,
}

impl Bidder {
    /// Adds what is on offer to a view of this node, so that it is not offered again.
    pub fn add_offers(&self, view: &mut NodeView) {
        for offer in self.offers.values() {
            view.offered = view.offered.plus(offer.holds);
            view.host_ports.extend(offer.ports.iter().copied());
        }
    }

    /// Takes a message of an auctioneer.
    pub fn handle(
        &mut self,
        from: NodeId,
        message: Message,
        market: &Market<'_>,
        now: u64,
    ) -> Vec<BidderEffect> {
        match message {
            Message::Call {
                round,
                service,
                revision,
                slots,
                by_force,
                first,
                moved_from,
            } => {
                let call = Call {
                    service,
                    revision,
                    slots: slots.min(MAX_SCORES),
                    by_force,
                    first,
                    moved_from,
                };
                self.on_call((from, round), call, market, now)
            }
            Message::Award { round, slots } => self.on_award((from, round), slots, market),
            // For the auctioneer; the engine does not route them here.
            Message::Bid { .. } | Message::Refusal { .. } | Message::AwardRefused { .. } => {
                Vec::new()
            }
        }
    }

    /// Whether calls wait for a revision.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Desired state has changed: calls may have waited for it.
    pub fn desired_changed(&mut self, market: &Market<'_>, now: u64) -> Vec<BidderEffect> {
        let ready: Vec<Key> = self
            .waiting
            .iter()
            .filter(|(_, call)| market.knows(&call.service, &call.revision).is_some())
            .map(|(key, _)| *key)
            .collect();
        let mut effects = Vec::new();
        for key in ready {
            if let Some(call) = self.waiting.remove(&key) {
                self.timers.set(&key, None);
                effects.extend(self.on_call(key, call, market, now));
            }
        }
        effects
    }

    /// Time has passed: offers lapse, and calls that nobody can answer are refused.
    pub fn handle_timeout(&mut self, now: u64) -> Vec<BidderEffect> {
        let mut effects = Vec::new();
        for key in self.timers.take_due(now) {
            self.offers.remove(&key);
            if self.waiting.remove(&key).is_some() {
                effects.push(refusal(key, vec![Reason::StaleSpec]));
            }
        }
        effects
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next()
    }

    fn on_call(
        &mut self,
        key: Key,
        call: Call,
        market: &Market<'_>,
        now: u64,
    ) -> Vec<BidderEffect> {
        if self.offers.contains_key(&key) || self.waiting.contains_key(&key) {
            return Vec::new();
        }
        if self.offers.len() + self.waiting.len() >= MAX_OPEN {
            return vec![refusal(key, vec![Reason::Busy])];
        }
        let Some((_, spec)) = market.knows(&call.service, &call.revision) else {
            self.timers
                .set(&key, Some(now.saturating_add(BID_WINDOW_MS)));
            self.waiting.insert(key, call);
            return Vec::new();
        };
        if let Some(reason) = (market.refuse)(&call.service, &call.revision) {
            return vec![refusal(key, vec![reason])];
        }
        let lacks = (market.lacks)(&call.service, spec, Slot::Replica(call.first));
        if !lacks.is_empty() {
            return vec![refusal(key, lacks)];
        }
        // One at a time, so that what was reckoned with when it was decided is still so.
        let moves = || self.offers.values().any(|o| o.moved_from.is_some()) || (market.moves)();
        if call.moved_from.is_some() && moves() {
            return vec![refusal(key, vec![Reason::Busy])];
        }
        let scores = if call.by_force {
            (market.force)(self, &call.service, &call.revision, call.slots)
        } else {
            let own = market.view(self);
            marginal_scores(spec, &call.service, &own, call.slots)
        };
        let scores = match scores {
            Ok(scores) => scores,
            Err(_) if (market.makes_room)(&call.service) => {
                return vec![refusal(key, vec![Reason::MakingRoom])];
            }
            Err(reasons) => return vec![refusal(key, reasons)],
        };
        let offer = Offer::of(spec, &call, scores.len());
        self.offers.insert(key, offer);
        self.timers.set(&key, Some(now.saturating_add(OFFER_MS)));
        let (to, round) = key;
        let message = Message::Bid { round, scores };
        vec![BidderEffect::Send { to, message }]
    }

    fn on_award(
        &mut self,
        key: Key,
        slots: Vec<(Slot, u64)>,
        market: &Market<'_>,
    ) -> Vec<BidderEffect> {
        let Some(offer) = self.offers.remove(&key) else {
            return refuse_award(key, slots, Reason::Lapsed);
        };
        self.timers.set(&key, None);
        if slots.is_empty() {
            return Vec::new();
        }
        if offer.by_force {
            return take_by_force(key, &offer, slots);
        }
        let Some((service, spec)) = market.knows(&offer.service, &offer.revision) else {
            return refuse_award(key, slots, Reason::StaleSpec);
        };
        let mut own = market.view(self);
        let mut effects = Vec::new();
        for (index, (slot, epoch)) in slots.into_iter().enumerate() {
            let refusal = match slot {
                _ if index >= offer.replicas => Some(Reason::Lapsed),
                Slot::Node(_) => Some(Reason::Lapsed),
                Slot::Replica(n) if n >= service.wanted_replicas() => Some(Reason::StaleSpec),
                // It would start with another revision, for which the slot was not given away: what
                // that one has to wait for may not be there yet.
                _ if service.target(slot).0 != offer.revision => Some(Reason::StaleSpec),
                Slot::Replica(_) => {
                    let holds = (market.holds)(&offer.service, slot);
                    let mut lacks = (market.lacks)(&offer.service, spec, slot);
                    holds.then_some(Reason::HoldsSlot).or(lacks.pop())
                }
            };
            // The offer held the room until now, so this refuses only what has changed meanwhile.
            match judge(spec, &offer.service, &own) {
                _ if refusal.is_some() => {
                    let reason = refusal.unwrap_or(Reason::Lapsed);
                    effects.extend(refuse_award(key, vec![(slot, epoch)], reason));
                }
                Verdict::Refused(mut reasons) => {
                    let reason = reasons.pop().unwrap_or(Reason::Lapsed);
                    effects.extend(refuse_award(key, vec![(slot, epoch)], reason));
                }
                Verdict::Fit { .. } => {
                    own.committed = own.committed.plus(spec.reservation);
                    own.host_ports.extend(spec.host_ports());
                    *own.services.entry(offer.service.clone()).or_default() += 1;
                    effects.push(BidderEffect::Take {
                        service: offer.service.clone(),
                        slot,
                        epoch,
                        moved_from: offer.moved_from,
                    });
                }
            }
        }
        effects
    }
}

/// Scores of further replicas of a service's revision, up to a number, or why there are none.
type Force<'a> = dyn Fn(&Bidder, &ServiceKey, &str, u32) -> Result<Vec<i64>, Vec<Reason>> + 'a;

/// What the bidder may ask about its node while it answers.
pub struct Market<'a> {
    /// Desired state as known here.
    pub desired: &'a Desired,
    /// This node without its offers.
    pub own: &'a dyn Fn() -> NodeView,
    /// What stands against starting this revision here, beyond placement.
    pub refuse: &'a dyn Fn(&ServiceKey, &str) -> Option<Reason>,
    /// Whether this node holds the slot already.
    pub holds: &'a dyn Fn(&ServiceKey, Slot) -> bool,
    /// What of the slot's data is elsewhere.
    pub lacks: &'a dyn Fn(&ServiceKey, &ServiceSpec, Slot) -> Vec<Reason>,
    /// Whether room is being made for the service.
    pub makes_room: &'a dyn Fn(&ServiceKey) -> bool,
    /// Whether a replica that is moved here is not ready yet.
    pub moves: &'a dyn Fn() -> bool,
    /// Scores of further replicas for which others would make way.
    pub force: &'a Force<'a>,
}

impl Market<'_> {
    /// The service and its specification of that revision.
    fn knows(&self, service: &ServiceKey, revision: &str) -> Option<(&Service, &ServiceSpec)> {
        let known = self.desired.services.get(service)?;
        Some((known, known.spec_of(revision)?))
    }

    fn view(&self, bidder: &Bidder) -> NodeView {
        let mut view = (self.own)();
        bidder.add_offers(&mut view);
        view
    }
}

impl Offer {
    fn of(spec: &ServiceSpec, call: &Call, replicas: usize) -> Self {
        let mut holds = Resources::ZERO;
        let mut ports = Vec::new();
        // Nobody makes way for a mere offer.
        if reserves_anything(spec) && !call.by_force {
            for _ in 0..replicas {
                holds = holds.plus(spec.reservation);
            }
            ports.extend(spec.host_ports());
        }
        Self {
            service: call.service.clone(),
            revision: call.revision.clone(),
            replicas,
            holds,
            ports,
            by_force: call.by_force,
            moved_from: call.moved_from,
        }
    }
}

fn take_by_force(
    (auctioneer, round): Key,
    offer: &Offer,
    slots: Vec<(Slot, u64)>,
) -> Vec<BidderEffect> {
    let offered = slots.into_iter().take(offer.replicas);
    let effects = offered.map(|(slot, epoch)| BidderEffect::Evict {
        auctioneer,
        round,
        service: offer.service.clone(),
        slot,
        epoch,
        revision: offer.revision.clone(),
    });
    effects.collect()
}

fn refusal((to, round): Key, reasons: Vec<Reason>) -> BidderEffect {
    let message = Message::Refusal { round, reasons };
    BidderEffect::Send { to, message }
}

fn refuse_award((to, round): Key, slots: Vec<(Slot, u64)>, reason: Reason) -> Vec<BidderEffect> {
    if slots.is_empty() {
        return Vec::new();
    }
    let slots = slots.into_iter().map(|(slot, _)| slot).collect();
    let message = Message::AwardRefused {
        round,
        slots,
        reason,
    };
    vec![BidderEffect::Send { to, message }]
}
