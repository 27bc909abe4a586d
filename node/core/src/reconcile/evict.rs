//! Making room for a service of a higher priority.
//!
//! Who won a slot in an auction that was held by force has no room yet. It holds what the replica
//! will take, so that nobody else gets what becomes free; asks those that have to go to look for
//! another node, for a moment, since start-first loses nothing; then ends them as any replica is
//! ended; and claims the slot when they are gone. So a node never commits more than it has, and the
//! claim, with the epoch that it was promised, stands in its register only once it can start.

use std::collections::BTreeSet;

use dunlin_state::Now;
use dunlin_state::model::{
    HostPort, MAX_PREEMPTED, Preempted, Resources, ServiceKey, Slot, SlotId,
};

use super::{Effect, Reconciler, World};
use crate::liveness::Standing;
use crate::placement::{NodeView, Reason, Verdict, judge};
use crate::preempt::{self, Room};

/// Milliseconds for which a replica that has to go may look for another node: auctions take a tenth
/// of that where there is room.
const HANDOVER_MS: u64 = 1_500;

/// Milliseconds for which it waits for a successor that has been found and is not ready yet.
const SUCCESSOR_MS: u64 = 20_000;

/// Milliseconds between two looks at what is making room.
const LOOK_MS: u64 = 500;

/// Milliseconds after which room that was not made is not waited for any more: the longest time that
/// a replica has to stop is an hour, and nobody should hold room for that long.
const GIVE_UP_MS: u64 = 120_000;

/// Milliseconds for which a node makes room for a slot once only: a replica that comes and goes should
/// not drive out others each time.
const COOL_DOWN_MS: u64 = 60_000;

/// Slots for which room is made at a time.
const MAX_EVICTIONS: usize = 64;

/// A slot for which room is being made.
#[derive(Debug)]
pub(super) struct Eviction {
    epoch: u64,
    since: u64,
    look_at: u64,
    victims: BTreeSet<SlotId>,
    holds: Resources,
    ports: Vec<HostPort>,
}

/// For whom a replica has to go, and how urgently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Evicted {
    pub(super) by: SlotId,
    /// Whether it may still look for another node.
    pub(super) early: bool,
    /// Whether it may wait for one that has taken its slot.
    pub(super) patient: bool,
}

impl Reconciler {
    /// What it would take to make room for further replicas of a service.
    pub(crate) fn evictions(
        &self,
        service: &ServiceKey,
        revision: &str,
        slots: u32,
        world: &World<'_>,
    ) -> Result<Vec<preempt::Eviction>, Vec<Reason>> {
        let room = MAX_EVICTIONS.saturating_sub(self.evictions.len());
        if room == 0 {
            return Err(vec![Reason::MakingRoom]);
        }
        let known = world.desired.services.get(service);
        let Some((known, spec)) = known.and_then(|k| Some((k, k.spec_of(revision)?))) else {
            return Err(vec![Reason::StaleSpec]);
        };
        let bare = self.bare(world);
        let claims: Vec<_> = self.claims().collect();
        let going: BTreeSet<SlotId> = self.going().cloned().collect();
        let room_view = Room {
            desired: world.desired,
            bare: &bare,
            claims: &claims,
            going: &going,
        };
        let slots = slots.min(u32::try_from(room).unwrap_or(u32::MAX));
        preempt::evictions(service, spec, &known.spec.policy, room_view, slots)
    }

    /// Everyone that is making way.
    fn going(&self) -> impl Iterator<Item = &SlotId> {
        self.evictions.values().flat_map(|e| &e.victims)
    }

    /// Adds what is held for those that come to a view of this node with its claims: what is free
    /// already of what they will take.
    pub(super) fn add_evictions(&self, view: &mut NodeView) {
        for eviction in self.evictions.values() {
            let victims = eviction.victims.iter();
            let staying = victims.filter_map(|slot| self.claims.get(slot));
            let taken = staying.fold(Resources::ZERO, |sum, held| sum.plus(held.claim.resources));
            view.offered = view.offered.plus(eviction.holds.minus(taken));
            view.host_ports.extend(eviction.ports.iter().copied());
        }
    }

    /// This node without its claims, but with all that is promised to others.
    fn bare(&self, world: &World<'_>) -> NodeView {
        let (me, alive) = (self.me, Standing::Alive);
        let mut view = NodeView::conditions(me, world.host, alive, world.desired);
        for eviction in self.evictions.values() {
            view.offered = view.offered.plus(eviction.holds);
            view.host_ports.extend(eviction.ports.iter().copied());
        }
        world.bidder.add_offers(&mut view);
        view
    }

    /// Whether room is being made for a slot of the service.
    pub(crate) fn makes_room_for(&self, service: &ServiceKey) -> bool {
        self.evictions.keys().any(|slot| slot.service == *service)
    }

    /// Services that this node has to follow although it holds nothing of them.
    pub(super) fn follows(&self, service: &ServiceKey) -> bool {
        self.makes_room_for(service) || self.preempted.iter().any(|p| p.slot.service == *service)
    }

    /// What this node tells of those it has ended.
    pub(crate) fn preempted(&self) -> &[Preempted] {
        &self.preempted
    }

    /// A slot was won by force: those in the way are to go. An error says why not.
    pub(crate) fn evict(
        &mut self,
        slot: SlotId,
        epoch: u64,
        revision: &str,
        world: &World<'_>,
        now: Now,
    ) -> Result<Vec<Effect>, Reason> {
        if self.claims.contains_key(&slot) || self.evictions.contains_key(&slot) {
            return Err(Reason::HoldsSlot);
        }
        if self
            .cooling
            .get(&slot)
            .is_some_and(|until| *until > now.mono)
        {
            return Err(Reason::Cooling);
        }
        let found = self.evictions(&slot.service, revision, 1, world);
        let mut found = found.map_err(|mut reasons| reasons.pop().unwrap_or(Reason::Lapsed))?;
        let Some(preempt::Eviction { victims, .. }) = found.pop() else {
            return Err(Reason::Lapsed);
        };
        let known = world.desired.services.get(&slot.service);
        let spec = known
            .and_then(|k| k.spec_of(revision))
            .ok_or(Reason::StaleSpec)?;
        let mut effects = Vec::new();
        for victim in &victims {
            let text = format!("{victim} makes way for {slot}, which has a higher priority");
            effects.push(self.event(victim, true, text));
            self.preempted.retain(|p| p.slot != *victim);
            self.preempted.push(Preempted {
                slot: victim.clone(),
                by: slot.clone(),
                at: now.wall,
            });
            self.changes.held.insert(victim.service.clone());
        }
        let excess = self.preempted.len().saturating_sub(MAX_PREEMPTED);
        self.preempted.drain(..excess);
        self.changes.held.insert(slot.service.clone());
        self.changes.report = true;
        let eviction = Eviction {
            epoch,
            since: now.mono,
            look_at: now.mono,
            holds: spec.reservation,
            ports: spec.host_ports().collect(),
            victims: victims.clone(),
        };
        self.evictions.insert(slot, eviction);
        for victim in victims {
            effects.extend(self.review_slot(&victim, world, now));
        }
        Ok(effects)
    }

    /// For whom a replica has to go.
    pub(super) fn evicted(&self, slot: &SlotId, now: u64) -> Option<Evicted> {
        let mut evictions = self.evictions.iter();
        let (by, eviction) = evictions.find(|(_, e)| e.victims.contains(slot))?;
        let age = now.saturating_sub(eviction.since);
        Some(Evicted {
            by: by.clone(),
            early: age < HANDOVER_MS,
            patient: age < SUCCESSOR_MS,
        })
    }

    /// When room that is being made is next looked at.
    pub(super) fn evictions_due(&self) -> Option<u64> {
        self.evictions.values().map(|e| e.look_at).min()
    }

    /// Services of those that are making way, when it is time to look at them again.
    pub(super) fn look_at_evictions(&mut self, now: u64) -> Vec<ServiceKey> {
        let mut services = Vec::new();
        for eviction in self.evictions.values_mut().filter(|e| e.look_at <= now) {
            eviction.look_at = now + LOOK_MS;
            services.extend(eviction.victims.iter().map(|v| v.service.clone()));
        }
        services
    }

    /// Claims slots for which there is room now, and gives up those that need none any more. Returns
    /// whether anything has changed.
    pub(crate) fn pursue_evictions(&mut self, world: &World<'_>, now: Now) -> (bool, Vec<Effect>) {
        let mut effects = Vec::new();
        let slots: Vec<SlotId> = self.evictions.keys().cloned().collect();
        let mut changed = false;
        for slot in slots {
            let Some(eviction) = self.evictions.get(&slot) else {
                continue;
            };
            let gone = |victim: &SlotId| !self.claims.contains_key(victim);
            let cleared = eviction.victims.iter().all(gone);
            let late = now.mono.saturating_sub(eviction.since) >= GIVE_UP_MS;
            if is_vacant(&slot, world) && !cleared && !late {
                continue;
            }
            changed = true;
            effects.extend(self.end_eviction(&slot, cleared, world, now));
        }
        changed |= self.forget_preempted(world);
        (changed, effects)
    }

    fn end_eviction(
        &mut self,
        slot: &SlotId,
        cleared: bool,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        let Some(eviction) = self.evictions.remove(slot) else {
            return Vec::new();
        };
        self.changes.held.insert(slot.service.clone());
        let mut effects = Vec::new();
        let known = world.desired.services.get(&slot.service);
        if cleared
            && is_vacant(slot, world)
            && let Some(known) = known
        {
            let (_, spec) = known.target(slot.slot);
            let mut view = self.view(world.host, world.desired, None);
            world.bidder.add_offers(&mut view);
            match judge(spec, &slot.service, &view) {
                Verdict::Fit { .. } => {
                    self.cooling.retain(|_, until| *until > now.mono);
                    self.cooling.insert(slot.clone(), now.mono + COOL_DOWN_MS);
                    effects.extend(self.take(slot.clone(), eviction.epoch, None, world, now));
                }
                Verdict::Refused(_) => {}
            }
        }
        // Those that have not gone may stay.
        for victim in eviction.victims {
            effects.extend(self.review_slot(&victim, world, now));
        }
        effects
    }

    /// Who runs again, or is not wanted any more, is not spoken of any more.
    fn forget_preempted(&mut self, world: &World<'_>) -> bool {
        let mut forgotten = Vec::new();
        let (claims, going) = (&self.claims, &self.evictions);
        self.preempted.retain(|p| {
            let leaves = going.values().any(|e| e.victims.contains(&p.slot));
            let waits = leaves || (!claims.contains_key(&p.slot) && is_vacant(&p.slot, world));
            if !waits {
                forgotten.push(p.slot.service.clone());
            }
            waits
        });
        let changed = !forgotten.is_empty();
        self.changes.held.extend(forgotten);
        self.changes.report |= changed;
        changed
    }
}

/// Whether a slot is wanted and nobody holds it.
fn is_vacant(slot: &SlotId, world: &World<'_>) -> bool {
    let watch = world.cluster.watch(&slot.service);
    watch.is_some_and(|watch| match slot.slot {
        Slot::Replica(index) => watch.vacant().contains(&index),
        Slot::Node(_) => false,
    })
}
