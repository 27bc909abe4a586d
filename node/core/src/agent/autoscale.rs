//! Services that follow their load: what this node tells of it, what it decides, and what all
//! nodes act on.
//!
//! Nobody owns a decision. It stands in the register of whoever made it, with its place in a total
//! order, and every node acts on the greatest that it has heard of: the number of replicas in what
//! people want is replaced by it before anything else looks. The node that ranks first for the
//! service decides; the next ones look at the same load all the time, so that they go on where it
//! has ended. A decision whose carriers are gone is carried on, word for word, by those who rank
//! first among the living.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{
    Autoscale, Claim, Load, MAX_SCALED, NodeRegister, ScaleDecision, ScaleStamp, ServiceKey, Slot,
};

use super::{Agent, Output, turn};
use crate::autoscale::{Meter, Scaler, Seen, Wish};
use crate::io::Event;
use crate::liveness::Standing;
use crate::rollout::Rollout;

/// Milliseconds between two looks at the load.
const LOOK_MS: u64 = 5_000;

/// Milliseconds from news of the load to a look at it: other nodes' come in the same moment.
const SOON_MS: u64 = 200;

/// Milliseconds between two reports of load by one node, so that no load whatever makes more than
/// so many messages.
const TELL_MS: u64 = 3_000;

/// The same where connections wait for a service that has no replicas.
const TELL_WAITING_MS: u64 = 250;

/// What one node knows of the services that follow their load.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    followed: BTreeSet<ServiceKey>,
    /// The greatest decision heard of; remembered also when nobody carries it any more.
    chosen: BTreeMap<ServiceKey, ScaleDecision>,
    /// Decisions in this node's register.
    pub(super) own: BTreeMap<ServiceKey, ScaleDecision>,
    /// What this node tells of the load.
    pub(super) loads: BTreeMap<ServiceKey, Load>,
    meters: BTreeMap<ServiceKey, Meter>,
    scalers: BTreeMap<ServiceKey, Scaler>,
    /// One more than the highest slot that was held here in an earlier life.
    recovered: BTreeMap<ServiceKey, u32>,
    /// Since when nobody who lives carries the decision.
    orphaned: BTreeMap<ServiceKey, u64>,
    /// Whether decisions in this node's register differ from those that it has published.
    unpublished: bool,
    due: Option<u64>,
    told_at: Option<u64>,
}

impl Scaling {
    pub(super) fn new(claims: &[Claim]) -> Self {
        let mut recovered = BTreeMap::new();
        for claim in claims {
            if let Slot::Replica(index) = claim.slot.slot {
                let most = recovered.entry(claim.slot.service.clone()).or_insert(0);
                *most = index.saturating_add(1).max(*most);
            }
        }
        Self {
            recovered,
            ..Self::default()
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.due
    }

    /// How many replicas there should be, as far as is known here.
    fn replicas(&self, key: &ServiceKey, service: &Service, policy: &Autoscale) -> u32 {
        let chosen = self.chosen.get(key).map(|decision| decision.replicas);
        // Before anything was heard, nothing that runs here is taken for too much.
        let start = || {
            let held = self.recovered.get(key).copied().unwrap_or(0);
            service.replicas.max(held)
        };
        policy.clamp(chosen.unwrap_or_else(start))
    }

    fn choose(&mut self, key: &ServiceKey, decision: &ScaleDecision) -> bool {
        let known = self.chosen.get(key);
        if known.is_some_and(|known| known.stamp >= decision.stamp) {
            return false;
        }
        if let (Some(scaler), Some(season)) = (self.scalers.get_mut(key), &decision.season) {
            scaler.adopt(season);
        }
        let changes = known.is_none_or(|known| known.replicas != decision.replicas);
        self.chosen.insert(key.clone(), decision.clone());
        changes
    }
}

fn policy_of(service: &Service) -> Option<&Autoscale> {
    let policy = service.spec.autoscale.as_deref();
    policy.filter(|_| service.jobs.run.is_none())
}

impl Agent {
    /// Services whose load has to be measured here.
    pub fn followed(&self) -> &BTreeSet<ServiceKey> {
        &self.scaling.followed
    }

    /// The decision that this node acts on, of a service that follows its load.
    pub fn scale_decision(&self, key: &ServiceKey) -> Option<&ScaleDecision> {
        self.scaling.chosen.get(key)
    }

    /// Puts the decided numbers into what people want.
    pub(super) fn with_scales(&mut self, mut desired: Arc<Desired>, now: Now) -> Arc<Desired> {
        self.follow_load(&desired, now);
        let differs = |key: &ServiceKey| {
            let service = desired.services.get(key)?;
            let replicas = self.scaling.replicas(key, service, policy_of(service)?);
            (replicas != service.replicas).then(|| (key.clone(), replicas))
        };
        let changed: Vec<_> = self.scaling.followed.iter().filter_map(differs).collect();
        if changed.is_empty() {
            return desired;
        }
        let all = Arc::make_mut(&mut desired);
        for (key, replicas) in changed {
            if let Some(service) = all.services.get_mut(&key) {
                service.replicas = replicas;
            }
        }
        desired
    }

    /// Takes note of which services follow their load.
    fn follow_load(&mut self, desired: &Desired, now: Now) {
        let services = desired.services.iter();
        let followed = services.filter(|(_, service)| policy_of(service).is_some());
        let followed: BTreeSet<ServiceKey> = followed.map(|(key, _)| key.clone()).collect();
        let new: Vec<ServiceKey> = followed
            .difference(&self.scaling.followed)
            .cloned()
            .collect();
        for key in new {
            // Decisions may have come before the specification.
            let told = self.registers().filter_map(|r| r.report.scales.get(&key));
            let told: Vec<ScaleDecision> = told.cloned().collect();
            for decision in told {
                self.scaling.choose(&key, &decision);
            }
        }
        let scaling = &mut self.scaling;
        let told = scaling.own.len() + scaling.loads.len();
        let known = |key: &ServiceKey| followed.contains(key);
        scaling.chosen.retain(|key, _| known(key));
        scaling.own.retain(|key, _| known(key));
        scaling.loads.retain(|key, _| known(key));
        scaling.meters.retain(|key, _| known(key));
        scaling.scalers.retain(|key, _| known(key));
        scaling.recovered.retain(|key, _| known(key));
        scaling.orphaned.retain(|key, _| known(key));
        scaling.due = match followed.is_empty() {
            true => None,
            false => Some(scaling.due.unwrap_or(now.mono + SOON_MS)),
        };
        scaling.followed = followed;
        if scaling.own.len() + scaling.loads.len() < told {
            // Should a service of that name come again, nothing of this one may count.
            self.publish_own(now);
        }
    }

    /// Another node's register has changed. Returns whether a number of replicas has.
    pub(super) fn note_scaling(&mut self, new: &NodeRegister, now: Now) -> bool {
        if self.scaling.followed.is_empty() {
            return false;
        }
        let old = self.cluster.register(new.node).cloned();
        let old = old.as_deref();
        let mut changed = false;
        for (key, decision) in &new.report.scales {
            let known = old.and_then(|old| old.report.scales.get(key));
            if known != Some(decision) && self.scaling.followed.contains(key) {
                changed |= self.scaling.choose(key, decision);
            }
        }
        if old.is_none_or(|old| old.report.loads != new.report.loads) {
            self.look_soon(now);
        }
        changed
    }

    fn look_soon(&mut self, now: Now) {
        let soon = now.mono + SOON_MS;
        if let Some(due) = &mut self.scaling.due {
            *due = soon.min(*due);
        }
    }

    /// What this node has measured of the services that follow their load, every three seconds or
    /// so, and when connections begin to wait for one that has no replicas.
    pub fn measured(&mut self, samples: BTreeMap<ServiceKey, Load>, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let mut fresh = BTreeMap::new();
        for (key, sample) in samples {
            let Some(service) = self.desired.services.get(&key) else {
                continue;
            };
            let Some(policy) = policy_of(service) else {
                continue;
            };
            let told = self.scaling.loads.get(&key);
            let meter = self.scaling.meters.entry(key.clone()).or_default();
            let load = meter.take(sample, told, policy, service.spec.reservation);
            if !load.is_nothing() && fresh.len() < MAX_SCALED {
                fresh.insert(key, load);
            }
        }
        let waits = |loads: &BTreeMap<ServiceKey, Load>| loads.values().any(|load| load.waits);
        let urgent = waits(&fresh) && !waits(&self.scaling.loads);
        let pause = if urgent { TELL_WAITING_MS } else { TELL_MS };
        let told_at = self.scaling.told_at;
        let early = told_at.is_some_and(|at| now.mono < at.saturating_add(pause));
        if fresh != self.scaling.loads && !early {
            self.scaling.loads = fresh;
            self.scaling.told_at = Some(now.mono);
            self.publish_own(now);
            self.look_soon(now);
        }
        self.settle(now, &mut out);
        out
    }

    /// Looks at the load when it is time.
    pub(super) fn look_at_load(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.scaling.due.is_none_or(|due| due > now.mono) {
            return;
        }
        self.scaling.due = Some(now.mono + LOOK_MS);
        let followed: Vec<ServiceKey> = self.scaling.followed.iter().cloned().collect();
        let mut changed = false;
        for key in followed {
            if self.cluster.my_rank(&key).is_none() {
                self.scaling.scalers.remove(&key);
                self.scaling.orphaned.remove(&key);
                self.drop_superseded(&key);
                continue;
            }
            changed |= self.decide(&key, now, out);
            self.carry_on(&key, now);
            self.drop_superseded(&key);
        }
        if changed {
            let written = Arc::clone(&self.written);
            self.take_desired(written, now, out);
        }
        if std::mem::take(&mut self.scaling.unpublished) {
            self.publish_own(now);
        }
    }

    /// Follows the load of one service, and decides if this node ranks first for it. Returns
    /// whether the number of replicas has changed.
    fn decide(&mut self, key: &ServiceKey, now: Now, out: &mut Vec<Output>) -> bool {
        let desired = Arc::clone(&self.desired);
        let Some(service) = desired.services.get(key).filter(|s| s.running) else {
            self.scaling.scalers.remove(key);
            return false;
        };
        let Some(policy) = policy_of(service) else {
            return false;
        };
        let seen = self.seen(key, service, policy);
        let chosen = self.scaling.chosen.get(key);
        let current = match chosen {
            Some(_) => service.replicas,
            None => policy.clamp(service.replicas.max(self.highest_slot(key))),
        };
        let season = chosen.and_then(|chosen| chosen.season.clone());
        let scaler = self.scaling.scalers.entry(key.clone()).or_default();
        if let Some(season) = season.as_deref().filter(|_| scaler.is_new()) {
            scaler.adopt(season);
        }
        let wish = scaler.step(policy, service.spec.reservation, &seen, current, now);
        let learned = scaler.season().map(|season| (season.basis, season.step));
        let told = season.as_deref().map(|season| (season.basis, season.step));
        let first = self.cluster.ahead_of_me(key) == Some(0);
        if !first || !self.is_floor_open(now) {
            return false;
        }
        let decided = chosen.map(|chosen| chosen.replicas);
        if (decided == Some(wish.replicas) && learned == told) || !self.may_carry(key) {
            return false;
        }
        self.announce((key, service), current, wish, now, out);
        true
    }

    fn announce(
        &mut self,
        (key, service): (&ServiceKey, &Service),
        current: u32,
        wish: Wish,
        now: Now,
        out: &mut Vec<Output>,
    ) {
        let chosen = self.scaling.chosen.get(key);
        let counter = chosen.map_or(0, |chosen| chosen.stamp.counter);
        // Beyond it nobody would take this node's register.
        let counter = counter.saturating_add(1).min(ScaleStamp::MAX_COUNTER);
        let Wish { replicas, reason } = wish;
        if replicas != current {
            let text = format!("{key} goes from {current} to {replicas} replicas: {reason}");
            out.push(Output::Event(Event {
                warning: false,
                text,
                slot: None,
                node: None,
            }));
        }
        let (since, reason) = match chosen {
            Some(before) if replicas == current => (before.since, before.reason.clone()),
            Some(_) | None => (now.wall, reason),
        };
        let scaler = self.scaling.scalers.get(key);
        let decision = ScaleDecision {
            stamp: ScaleStamp {
                counter,
                author: self.me,
            },
            replicas,
            revision: service.revision.clone(),
            since,
            reason,
            season: scaler.and_then(|s| s.season().cloned().map(Box::new)),
        };
        self.scaling.choose(key, &decision);
        self.scaling.own.insert(key.clone(), decision);
        self.scaling.unpublished = true;
    }

    /// Whether there is room in this node's register for the decision.
    fn may_carry(&self, key: &ServiceKey) -> bool {
        let own = &self.scaling.own;
        own.contains_key(key) || own.len() < MAX_SCALED
    }

    /// One more than the highest slot that anybody holds.
    fn highest_slot(&self, key: &ServiceKey) -> u32 {
        let claims = self.cluster.all_claims(key);
        let held = claims
            .iter()
            .filter(|(node, claim)| !claim.leaving && self.cluster.standing(*node).holds_claims());
        let slots = held.filter_map(|(_, claim)| match claim.slot.slot {
            Slot::Replica(index) => Some(index.saturating_add(1)),
            Slot::Node(_) => None,
        });
        slots.max().unwrap_or(0)
    }

    /// What all nodes have told of the load.
    fn seen(&self, key: &ServiceKey, service: &Service, policy: &Autoscale) -> Seen {
        let of_replicas = policy.measured().any(|metric| !metric.is_of_proxies());
        let rollout = Rollout::of(key, service, &self.cluster);
        let settled = !rollout.is_underway() && rollout.tally().pending == 0;
        let mut seen = Seen {
            missing: !self.cluster.is_complete(),
            may_shrink: settled,
            ..Seen::default()
        };
        let mut unmeasured = BTreeMap::new();
        if of_replicas {
            let claims = self.cluster.all_claims(key);
            for (node, _) in claims.into_iter().filter(|(_, claim)| claim.ready) {
                *unmeasured.entry(node).or_insert(0_u32) += 1;
            }
        }
        for (node, known) in self.cluster.nodes() {
            match known.standing {
                Standing::Alive => seen.missing |= !known.trusted,
                Standing::Suspect if known.register.is_some() => seen.missing = true,
                Standing::Suspect | Standing::Gone | Standing::Left => continue,
            }
            let report = known.register.as_ref().map(|r| &r.report);
            let load = report.and_then(|report| report.loads.get(key));
            let measured = load.map_or(0, |load| load.replicas);
            seen.missing |= unmeasured.get(&node).is_some_and(|ready| *ready > measured);
            let Some(load) = load else { continue };
            seen.waits |= load.waits;
            for (metric, amount) in &load.amounts {
                let sum = seen.amounts.entry(*metric).or_default();
                *sum = sum.saturating_add(*amount);
            }
        }
        seen
    }

    /// Takes over a decision that nobody who lives carries, when it is this node's turn.
    fn carry_on(&mut self, key: &ServiceKey, now: Now) {
        let Some(chosen) = self.scaling.chosen.get(key) else {
            return;
        };
        if self.is_carried(key, chosen.stamp) || !self.may_carry(key) {
            self.scaling.orphaned.remove(key);
            return;
        }
        let since = *self.scaling.orphaned.entry(key.clone()).or_insert(now.mono);
        let ahead = self.cluster.ahead_of_me(key).unwrap_or(usize::MAX);
        if now.mono >= since.saturating_add(turn(ahead)) {
            self.scaling.orphaned.remove(key);
            self.scaling.own.insert(key.clone(), chosen.clone());
            self.scaling.unpublished = true;
        }
    }

    /// Whether somebody who lives carries this decision or a later one.
    fn is_carried(&self, key: &ServiceKey, stamp: ScaleStamp) -> bool {
        let own = self.scaling.own.get(key);
        own.is_some_and(|own| own.stamp >= stamp) || self.is_carried_by_others(key, stamp)
    }

    fn is_carried_by_others(&self, key: &ServiceKey, stamp: ScaleStamp) -> bool {
        let mut nodes = self.cluster.nodes();
        nodes.any(|(node, known)| {
            let carried = || known.register.as_ref()?.report.scales.get(key);
            node != self.me
                && known.standing == Standing::Alive
                && carried().is_some_and(|carried| carried.stamp >= stamp)
        })
    }

    /// Forgets an own decision that a later one has overtaken, once that is carried by others.
    fn drop_superseded(&mut self, key: &ServiceKey) {
        let Some(own) = self.scaling.own.get(key) else {
            return;
        };
        let chosen = self.scaling.chosen.get(key);
        let later = chosen.filter(|chosen| chosen.stamp > own.stamp);
        if later.is_some_and(|later| self.is_carried_by_others(key, later.stamp)) {
            self.scaling.own.remove(key);
            self.scaling.unpublished = true;
        }
    }
}
