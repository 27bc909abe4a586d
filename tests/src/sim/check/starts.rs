//! What is started, and whether that was needed.

use dunlin_core::io::WorkloadId;
use dunlin_gossip::membership::MemberState;
use dunlin_state::model::{Availability, SlotId};

use super::moves;
use crate::sim::world::{SECOND, World};

/// A replica that has answered for so long is known to everybody who can be reached.
const KNOWN: u64 = 3 * SECOND;
/// A daemon that has run for so long is believed by everybody who can be reached.
const BELIEVED: u64 = 10 * SECOND;

/// A replica starts: not if one answers elsewhere, and only with a newer fencing epoch.
pub(in crate::sim) fn start_is_needed(world: &mut World, host: usize, id: &WorkloadId) {
    let broken = if let Some(holder) = holder(world, host, id)
        && !moves::is_moved_from(world, host, holder, id)
    {
        world.outcome.moved += 1;
        let strict = world.watch.nothing_may_move || world.is_calm();
        strict.then(|| {
            format!(
                "n{host} starts {} epoch {}, which answers on n{holder}",
                id.slot, id.epoch
            )
        })
    } else {
        None
    };
    broken.into_iter().for_each(|b| world.violation(b));
    let started = world.watch.started.entry(id.slot.clone()).or_default();
    started.insert(host);
    fencing(world, host, id);
    on_drained(world, host, id);
}

/// The host whose daemon lives, has long claimed the slot for good, and has long answered. A host
/// that comes back with a newer claim than that may start it again: the newer one is to win.
fn holder(world: &World, except: usize, id: &WorkloadId) -> Option<usize> {
    let slot = &id.slot;
    let long = |since: u64, age: u64| since.saturating_add(age) <= world.now;
    let started = world.watch.started.get(slot)?;
    let mut hosts = started.iter().map(|index| &world.hosts[*index]);
    let holder = hosts.find(|h| {
        let Some(engine) = &h.engine else {
            return false;
        };
        let claims = engine.register(h.id).into_iter();
        let keeps = claims
            .flat_map(|r| &r.report.claims)
            .filter(|c| c.slot == *slot && !c.leaving && c.ready)
            .any(|c| id.attempt == 0 || c.epoch > id.epoch);
        let since = h.runtime.answering_since(slot, world.now);
        let known = since.is_some_and(|since| long(since, KNOWN));
        let for_good = !was_given_up(world, h.index, slot);
        h.index != except && keeps && known && for_good && long(h.started_at, BELIEVED)
    })?;
    Some(holder.index)
}

/// Whether a host wanted to be rid of a slot not long ago: others may have acted on that.
pub(super) fn was_given_up(world: &World, host: usize, slot: &SlotId) -> bool {
    let until = world.watch.given_up.get(&(host, slot.clone()));
    until.is_some_and(|until| until.saturating_add(KNOWN) > world.now)
}

/// A slot's newer holder has the higher epoch, as far as the cluster could know.
fn fencing(world: &mut World, host: usize, id: &WorkloadId) {
    let now = world.now;
    let before = world.watch.epochs.get(&id.slot).copied();
    if let Some((epoch, holder, since)) = before
        && world.watch.epochs_are_kept
        && holder != host
        && since + KNOWN <= now
        && id.epoch <= epoch
        && id.attempt == 0
        && world.is_calm()
    {
        world.violation(format!(
            "n{host} starts {} with epoch {}, and n{holder} had {epoch}",
            id.slot, id.epoch
        ));
    }
    if before.is_none_or(|(epoch, holder, _)| id.epoch > epoch && holder != host) {
        let entry = (id.epoch, host, now);
        world.watch.epochs.insert(id.slot.clone(), entry);
    }
}

/// A slot was given up: whoever gets it next may count anew if nobody remembers.
pub(in crate::sim) fn forget_epoch(world: &mut World, id: &WorkloadId) {
    world.watch.epochs.remove(&id.slot);
}

/// A drained node takes nothing new.
fn on_drained(world: &mut World, host: usize, id: &WorkloadId) {
    let h = &world.hosts[host];
    let drained = h.engine.as_ref().is_some_and(|engine| {
        let intent = engine.desired().nodes.get(&h.id);
        intent.is_some_and(|n| n.availability == Availability::Drained)
    });
    if drained && id.attempt == 0 {
        world.violation(format!("n{host} is drained and starts {}", id.slot));
    }
}

/// What a dead attempt left behind is removed, never a living one.
pub(in crate::sim) fn removal_is_harmless(world: &mut World, host: usize, id: &WorkloadId) {
    if world.hosts[host].runtime.is_alive(id) {
        world.violation(format!(
            "n{host} removes {} epoch {} #{} while it runs",
            id.slot, id.epoch, id.attempt
        ));
    }
}

/// Counts daemons that run and that somebody who could reach them believes down.
pub(in crate::sim) fn false_downs(world: &mut World, host: usize) {
    let Some(engine) = &world.hosts[host].engine else {
        return;
    };
    let mut wrongly = Vec::new();
    for member in engine.members() {
        let Some(other) = world.host_of(member.id.node) else {
            continue;
        };
        let fine = world.hosts[other].is_up()
            && world.hosts[other].started_at + BELIEVED <= world.now
            && world.network.connects(host, other);
        let down = member.state == MemberState::Down;
        if down && fine {
            wrongly.push(other);
        } else {
            world.watch.downed.remove(&(host, other));
        }
    }
    for other in wrongly {
        if world.watch.downed.insert((host, other)) {
            world.outcome.false_downs += 1;
            world.note(format!("n{host} believes n{other} down, which lives"));
        }
    }
}

/// Starts of one slot on one host within [`STORM`] that are still no storm. A replica that dies at
/// once is started with delays of 0.5 s, 1 s, 2 s and 4 s, and its revision may change meanwhile.
const STORM_STARTS: usize = 12;

/// The microseconds in which they are counted.
const STORM: u64 = 10 * SECOND;

/// No replica is started again and again in quick succession, whatever it does.
pub(in crate::sim) fn no_restart_storm(world: &mut World, host: usize, id: &WorkloadId) {
    let now = world.now;
    let starts = world
        .watch
        .starts
        .entry((host, id.slot.clone()))
        .or_default();
    starts.push_back(now);
    while starts.front().is_some_and(|at| at + STORM < now) {
        starts.pop_front();
    }
    if starts.len() > STORM_STARTS {
        let count = starts.len();
        let slot = &id.slot;
        world.violation(format!(
            "storm: n{host} has started {slot} {count} times in 10 s"
        ));
    }
}
