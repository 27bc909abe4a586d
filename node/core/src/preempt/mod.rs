//! Which replicas make way for one of a higher priority.
//!
//! A pure choice on one node: of the replicas with a strictly lower priority, a set without which
//! the new one fits. The highest priority in it is as low as possible; of sets alike in that, a
//! single replica is taken before several, and the smallest before larger ones; and none is in it
//! that could be spared. Because the priority of who comes is strictly higher than that of who goes,
//! two services never drive each other out by turns.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::Desired;
use dunlin_state::model::{
    Claim, Mode, Phase, Policy, Resources, ServiceKey, ServiceSpec, Slot, SlotId, Strategy,
};

use crate::placement::{NodeView, Reason, Verdict, judge};

/// Replicas that are thought of at most, those of the lowest priorities: every one costs a look at the
/// whole node.
const MAX_CANDIDATES: usize = 64;

/// One step of priority in a score outweighs any company.
const PRIORITY_WEIGHT: i64 = 1_000_000_000_000_000;

/// A replica of the same service on the node outweighs any size, where replicas should be far from
/// each other.
const COMPANY_WEIGHT: i64 = 10_000_000_000;

/// Replicas of the same service that a score tells from fewer.
const MAX_COMPANY: u32 = 99_999;

/// The largest size that a score tells from smaller ones, in thousandths of a core plus MiB.
const MAX_SIZE: u64 = 999_999_999;

/// A replica that could make way.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    priority: i32,
    size: u64,
    slot: SlotId,
}

/// What making room for one more replica costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Eviction {
    /// Who goes.
    pub(crate) victims: BTreeSet<SlotId>,
    /// Higher is better: a lower priority of those who go, fewer replicas of the same service where
    /// they should spread, a smaller size.
    pub(crate) score: i64,
}

/// A node and what runs on it.
#[derive(Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) desired: &'a Desired,
    /// The node without any claims, but with everything else that takes room.
    pub(crate) bare: &'a NodeView,
    /// Its claims.
    pub(crate) claims: &'a [&'a Claim],
    /// Those that are making way already, and so do not count as taken.
    pub(crate) going: &'a BTreeSet<SlotId>,
}

impl Room<'_> {
    /// The node without some of its replicas.
    fn without(&self, gone: &BTreeSet<SlotId>) -> NodeView {
        let mut view = self.bare.clone();
        for claim in self.claims {
            if !gone.contains(&claim.slot) && !self.going.contains(&claim.slot) {
                view.add_claim(claim, self.desired);
            }
        }
        view
    }

    /// Replicas of a service, those to come included.
    fn company(&self, service: &ServiceKey) -> u32 {
        let there = self.claims.iter().filter(|c| c.slot.service == *service);
        let there = u32::try_from(there.count()).unwrap_or(u32::MAX);
        let promised = self.bare.services.get(service).copied().unwrap_or(0);
        there.saturating_add(promised)
    }

    /// Replicas below a priority, the first to go first.
    fn candidates(&self, below: i32) -> Vec<Candidate> {
        let candidates = self.claims.iter().filter_map(|claim| {
            let service = self.desired.services.get(&claim.slot.service)?;
            let priority = service.spec.policy.priority;
            let moves = match claim.slot.slot {
                Slot::Replica(_) => service.spec.mode == Mode::Replicated,
                // It would be claimed again at once.
                Slot::Node(_) => false,
            };
            let goes_anyway = claim.leaving || claim.phase == Phase::Stopping;
            let takes = claim.resources != Resources::ZERO || !claim.host_ports.is_empty();
            let may = priority < below && moves && !goes_anyway && takes;
            (may && !self.going.contains(&claim.slot)).then(|| Candidate {
                priority,
                size: size(claim.resources),
                slot: claim.slot.clone(),
            })
        });
        let mut candidates: Vec<Candidate> = candidates.collect();
        candidates
            .sort_by(|a, b| (a.priority, a.size, &a.slot).cmp(&(b.priority, b.size, &b.slot)));
        candidates.truncate(MAX_CANDIDATES);
        candidates
    }
}

/// Sets of replicas that make room for the first, second, … further replica of a service, for up to
/// `slots` of them; each counts on those before it having gone and come. An error says what stands
/// in the way that no priority removes, or that there is room already ([`Reason::Busy`]).
pub(crate) fn evictions(
    service: &ServiceKey,
    spec: &ServiceSpec,
    policy: &Policy,
    room: Room<'_>,
    slots: u32,
) -> Result<Vec<Eviction>, Vec<Reason>> {
    let mut bare = room.bare.clone();
    let mut going = room.going.clone();
    let mut found = Vec::new();
    for _ in 0..slots {
        let room = Room {
            bare: &bare,
            going: &going,
            ..room
        };
        match cheapest(service, spec, policy, room) {
            Ok(eviction) => {
                going.extend(eviction.victims.iter().cloned());
                found.push(eviction);
            }
            Err(reasons) if found.is_empty() => return Err(reasons),
            Err(_) => break,
        }
        bare.committed = bare.committed.plus(spec.reservation);
        bare.host_ports.extend(spec.host_ports());
        *bare.services.entry(service.clone()).or_default() += 1;
    }
    Ok(found)
}

fn cheapest(
    service: &ServiceKey,
    spec: &ServiceSpec,
    policy: &Policy,
    room: Room<'_>,
) -> Result<Eviction, Vec<Reason>> {
    let refusal = |gone: &BTreeSet<SlotId>| match judge(spec, service, &room.without(gone)) {
        Verdict::Fit { .. } => None,
        Verdict::Refused(reasons) => Some(reasons),
    };
    if refusal(&BTreeSet::new()).is_none() {
        return Err(vec![Reason::Busy]);
    }
    let candidates = room.candidates(policy.priority);
    let mut by_priority: BTreeMap<i32, Vec<&Candidate>> = BTreeMap::new();
    for candidate in &candidates {
        by_priority
            .entry(candidate.priority)
            .or_default()
            .push(candidate);
    }
    let mut all = BTreeSet::new();
    let mut last = refusal(&all).unwrap_or_default();
    for (priority, group) in &by_priority {
        all.extend(group.iter().map(|c| c.slot.clone()));
        match refusal(&all) {
            Some(reasons) => last = reasons,
            None => {
                let fits = |gone: &BTreeSet<SlotId>| refusal(gone).is_none();
                let among = candidates.iter().filter(|c| c.priority <= *priority);
                let among: Vec<&Candidate> = among.collect();
                let company = match spec.placement.strategy {
                    Strategy::Spread => room.company(service),
                    Strategy::Pack | Strategy::Random => 0,
                };
                let victims = smallest(&among, all, fits);
                return Ok(score(victims, company, &candidates));
            }
        }
    }
    Err(last)
}

/// A single one that is enough, the first in order; else all of them but those that can be spared,
/// the highest priority spared first, and of one priority the largest.
fn smallest(
    among: &[&Candidate],
    all: BTreeSet<SlotId>,
    fits: impl Fn(&BTreeSet<SlotId>) -> bool,
) -> BTreeSet<SlotId> {
    let mut singles = among.iter().map(|c| BTreeSet::from([c.slot.clone()]));
    if let Some(single) = singles.find(|single| fits(single)) {
        return single;
    }
    let mut gone = all;
    for candidate in among.iter().rev() {
        gone.remove(&candidate.slot);
        if !fits(&gone) {
            gone.insert(candidate.slot.clone());
        }
    }
    gone
}

fn score(victims: BTreeSet<SlotId>, company: u32, candidates: &[Candidate]) -> Eviction {
    let gone = candidates.iter().filter(|c| victims.contains(&c.slot));
    let (mut priority, mut size) = (-Policy::MAX_PRIORITY, 0_u64);
    for candidate in gone {
        priority = priority.max(candidate.priority);
        size = size.saturating_add(candidate.size);
    }
    let priority = i64::from(priority) + i64::from(Policy::MAX_PRIORITY);
    let company = i64::from(company.min(MAX_COMPANY));
    let size = i64::try_from(size.min(MAX_SIZE)).unwrap_or(i64::MAX);
    Eviction {
        victims,
        score: -(priority * PRIORITY_WEIGHT) - company * COMPANY_WEIGHT - size,
    }
}

/// Thousandths of a core plus MiB: a core weighs about as much as a GiB.
fn size(resources: Resources) -> u64 {
    resources
        .cpu_millis
        .saturating_add(resources.memory >> 20)
        .saturating_add(resources.disk >> 30)
}
