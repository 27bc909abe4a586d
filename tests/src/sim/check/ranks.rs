//! Services of a higher priority: whom they may drive out, and that they do where they must.

use std::collections::BTreeSet;

use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{Claim, NodeReport, Preempted, Resources, ServiceKey, Slot, SlotId};

use super::rest;
use crate::sim::world::{SECOND, World};

/// For so long no other replica makes way for the same slot, where nothing dies.
const COOL_DOWN: u64 = 60 * SECOND;

/// A host's register has changed: does it end what it may, and no more than it has to?
pub(super) fn preemptions(world: &mut World, host: usize) {
    let h = &world.hosts[host];
    let Some(engine) = h.engine.as_ref() else {
        return;
    };
    let Some(report) = engine.register(h.id).map(|r| &r.report) else {
        return;
    };
    let known = &world.watch.preempted;
    let fresh: Vec<Preempted> = report
        .preempted
        .iter()
        .filter(|p| !known.contains(&(host, (*p).clone())))
        .cloned()
        .collect();
    if fresh.is_empty() {
        return;
    }
    let desired = engine.desired();
    let mut broken: Vec<String> = fresh
        .iter()
        .filter(|p| !outranks(desired, &p.by.service, &p.slot.service))
        .map(|p| {
            format!(
                "n{host} ends {} for {}, which is worth no more",
                p.slot, p.by
            )
        })
        .collect();
    broken.extend(
        spared(desired, report, &fresh)
            .map(|slot| format!("n{host} ends {slot}, which could have stayed")),
    );
    let takers: BTreeSet<SlotId> = fresh.iter().map(|p| p.by.clone()).collect();
    for by in takers {
        let last = world.watch.driven.insert(by.clone(), world.now);
        let again = last.is_some_and(|at| world.now.saturating_sub(at) < COOL_DOWN);
        if again && world.watch.gentle {
            broken.push(format!("n{host} makes room for {by} again"));
        }
    }
    world.outcome.preempted += fresh.len() as u64;
    let fresh = fresh.into_iter().map(|p| (host, p));
    world.watch.preempted.extend(fresh);
    broken.into_iter().for_each(|b| world.violation(b));
}

/// Whether the first service has a strictly higher priority.
fn outranks(desired: &Desired, first: &ServiceKey, second: &ServiceKey) -> bool {
    let priority = |key| desired.services.get(key).map(|s| s.spec.policy.priority);
    priority(first) > priority(second)
}

/// One that could have stayed, where room was made for a single slot and nothing else was under way.
fn spared<'a>(
    desired: &'a Desired,
    report: &'a NodeReport,
    fresh: &'a [Preempted],
) -> impl Iterator<Item = SlotId> + 'a {
    let takers: BTreeSet<&SlotId> = fresh.iter().map(|p| &p.by).collect();
    let stays = |claim: &&Claim| !fresh.iter().any(|p| p.slot == claim.slot);
    let sum = |claims: &mut dyn Iterator<Item = &Claim>| {
        claims.fold(Resources::ZERO, |sum, c| sum.plus(c.resources))
    };
    let needed = takers.first().and_then(|by| {
        let single = takers.len() == 1 && report.claims.iter().all(|c| !c.leaving || !stays(&c));
        let service = desired.services.get(&by.service).filter(|_| single)?;
        let left = sum(&mut report.claims.iter().filter(stays));
        Some(left.plus(service.spec.reservation))
    });
    let victims = report.claims.iter().filter(move |c| !stays(c));
    victims
        .filter(move |victim| {
            needed.is_some_and(|needed| needed.plus(victim.resources).fits_in(report.capacity))
        })
        .map(|victim| victim.slot.clone())
}

/// Whether a host has said that it ends this replica for something of a higher priority.
pub(super) fn is_preempted(report: &NodeReport, desired: &Desired, slot: &SlotId) -> bool {
    let mut told = report.preempted.iter().filter(|p| p.slot == *slot);
    told.any(|p| outranks(desired, &p.by.service, &slot.service))
}

/// Whether replicas of lower priorities take the room that a waiting slot needs.
pub(super) fn could_drive_out(world: &World, service: &Service, key: &ServiceKey) -> bool {
    let mut hosts = world.hosts.iter().filter(|h| rest::is_active(world, h));
    hosts.any(|h| {
        let desired = h.engine.as_ref().map(|e| e.desired());
        let stays = |claim: &Claim| {
            let lower = desired.is_some_and(|d| outranks(d, key, &claim.slot.service));
            let numbered = matches!(claim.slot.slot, Slot::Replica(_));
            !(lower && numbered)
        };
        rest::fits_beside(h, service, key, stays)
    })
}
