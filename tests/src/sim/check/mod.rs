//! The rules, checked while the cluster runs and after it has come to rest.
//!
//! Most of them compare what nodes say and do with the truth, which only the simulator knows: who
//! lives, what runs, what answers. [`starts`] looks at what is started and [`times`] at how long
//! things take; [`rest`] says what is still wrong when all should be well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use dunlin_core::io::WorkloadId;
use dunlin_state::model::{
    Availability, HostPort, NodeId, NodeRegister, Phase, Preempted, Resources, Slot, SlotId,
    Version, beats,
};

use super::world::{SECOND, World};

mod evenness;
mod hooks;
mod isolation;
mod jobs;
mod moves;
mod order;
mod placed;
mod quotas;
mod ranks;
mod rest;
mod rollouts;
mod scales;
mod starts;
mod strict;
mod times;
mod volumes;

pub(super) use hooks::start_is_in_turn;
pub(super) use jobs::{ended, start_has_its_outputs, start_is_no_repetition};
pub(super) use moves::move_is_worth_it;
pub(super) use order::start_is_in_order;
pub(super) use placed::start_is_allowed;
pub(super) use quotas::{QuotaWish, quota_after, quota_before};
pub(super) use rest::at_rest;
pub(super) use rollouts::rollouts;
pub(super) use scales::scales;
pub(super) use starts::{
    false_downs, forget_epoch, no_restart_storm, removal_is_harmless, start_is_needed,
};
pub(super) use times::{forget_crash, forget_lost, observe, watch_crash};
pub(super) use volumes::start_has_its_data;

/// For so many microseconds after it has recovered, a replica may be stopped for its illness: an
/// answer is on its way for as long as a probe may take.
const ILLNESS_IS_NOTICED: u64 = SECOND;

/// Words in which a daemon says that two services publish the same port.
pub(super) const PORT_CLASH: &str = "publish the same port";

/// What is being waited for, and what holds in this run.
#[derive(Debug, Default)]
pub struct Watch {
    /// Crashed nodes that somebody still believes in, with the time of the crash.
    crashed: BTreeMap<NodeId, u64>,
    /// Slots that were lost in a crash, with its time.
    lost: BTreeMap<SlotId, u64>,
    /// Routes to replicas that do not answer, by who offers them, and since when.
    stale: BTreeMap<(usize, SlotId, NodeId), u64>,
    /// Who believes whom down, of those that live.
    downed: BTreeSet<(usize, usize)>,
    /// The newest start of each slot: its epoch, host and time.
    epochs: BTreeMap<SlotId, (u64, usize, u64)>,
    /// When each host started each slot, lately.
    starts: BTreeMap<(usize, SlotId), VecDeque<u64>>,
    /// The version of each host's own register that was looked at last.
    judged: BTreeMap<usize, (u64, Version)>,
    /// Slots that a host was giving up, or wanted to until that time: others may have moved already.
    given_up: BTreeMap<(usize, SlotId), u64>,
    /// Where each slot was ever started: only there it can run.
    started: BTreeMap<SlotId, BTreeSet<usize>>,
    /// Slots of runs that have truly ended with success, and how often.
    succeeded: BTreeMap<SlotId, u32>,
    /// What parts of runs that ended well have written.
    told: BTreeSet<String>,
    /// Which slots have proven which revision.
    proven: BTreeSet<(SlotId, String)>,
    /// Services of which a replica was ready once.
    readied: BTreeSet<dunlin_state::model::ServiceKey>,
    /// Which slot was awarded to whom, with its epoch.
    awards: BTreeSet<(SlotId, u64, usize)>,
    /// Which daemons have said that two services publish the same port.
    pub(super) clashes_told: BTreeSet<(usize, u64)>,
    /// Whether claims survive somewhere all the time, so that epochs are never counted anew.
    pub(super) epochs_are_kept: bool,
    /// Whether a replica that moves is a fault: nothing dies.
    pub(super) nothing_may_move: bool,
    /// Whether packets arrive and daemons do not stall: what one node knows, all know soon.
    pub(super) fair: bool,
    /// Whether a second replica of a service comes to a node only when all others have one: nothing
    /// dies, and every replica fits everywhere.
    pub(super) spreads: bool,
    /// What hosts have said that they end for something of a higher priority.
    preempted: BTreeSet<(usize, Preempted)>,
    /// When others last made way for a slot.
    driven: BTreeMap<SlotId, u64>,
    /// How things stood when something was asked for that a quota bounds.
    quotas: quotas::Asked,
    /// What was moved to even out hosts.
    moves: moves::Moves,
    /// How the hosts see each other.
    cuts: BTreeMap<usize, isolation::Cut>,
    /// Services that were whole once, with their scale then.
    whole: BTreeMap<dunlin_state::model::ServiceKey, u32>,
    /// What hosts have said of services that follow their load, and acted on.
    scaled: BTreeMap<(usize, dunlin_state::model::ServiceKey), scales::Last>,
    /// How often the numbers of such services were changed although nothing else did.
    rescaled: BTreeMap<dunlin_state::model::ServiceKey, u32>,
    /// Whether load and nodes stay as they are.
    pub(super) steady: bool,
    /// Whether updates are the only thing that happens.
    pub(super) gentle: bool,
    /// Whether nothing dies either: no replica goes before another one answers.
    pub(super) no_gaps: bool,
}

impl World {
    /// Whether what one node knows is known to all within moments.
    pub(super) fn is_calm(&self) -> bool {
        self.watch.fair
    }
}

/// I4: what a node has promised fits into what it has.
pub(super) fn capacity(world: &mut World, host: usize) {
    let h = &world.hosts[host];
    let Some(register) = h.engine.as_ref().and_then(|e| e.register(h.id)) else {
        return;
    };
    if world.watch.judged.get(&host) == Some(&(h.life, register.version)) {
        return;
    }
    world.watch.judged.insert(host, (h.life, register.version));
    let report = &register.report;
    order::note_ready(&mut world.watch.readied, report);
    hooks::note_proven(&mut world.watch.proven, report);
    let sum = report
        .claims
        .iter()
        .fold(Resources::ZERO, |sum, c| sum.plus(c.resources));
    let mut ports: BTreeSet<HostPort> = BTreeSet::new();
    let twice = report
        .claims
        .iter()
        .flat_map(|c| &c.host_ports)
        .find(|p| !ports.insert(**p));
    let slots: BTreeSet<&SlotId> = report.claims.iter().map(|c| &c.slot).collect();
    let leaving: Vec<(SlotId, bool)> = report
        .claims
        .iter()
        .map(|c| (c.slot.clone(), c.leaving))
        .collect();
    let mut broken = Vec::new();
    if !sum.fits_in(report.capacity) {
        broken.push(format!(
            "I4: n{host} has promised {sum:?} of {:?}",
            report.capacity
        ));
    }
    if let Some(port) = twice {
        broken.push(format!("I4: n{host} has promised port {} twice", port.port));
    }
    if slots.len() != report.claims.len() {
        broken.push(format!("n{host} claims a slot twice"));
    }
    broken.into_iter().for_each(|b| world.violation(b));
    give_up(world, host, leaving);
    ranks::preemptions(world, host);
}

/// Remembers until when a host wanted to be rid of a slot.
fn give_up(world: &mut World, host: usize, leaving: Vec<(SlotId, bool)>) {
    let now = world.now;
    for (slot, leaves) in leaving {
        let key = (host, slot);
        if leaves {
            world.watch.given_up.insert(key, u64::MAX);
        } else if world.watch.given_up.get(&key) == Some(&u64::MAX) {
            world.watch.given_up.insert(key, now);
        }
    }
}

/// A replica leaves the routes before it is stopped, and for the same reasons: the decision falls
/// there.
pub(super) fn withdrawals(world: &mut World, host: usize, before: Option<&Arc<NodeRegister>>) {
    let Some(before) = before else { return };
    let h = &world.hosts[host];
    let Some(after) = h.engine.as_ref().and_then(|e| e.register(h.id)) else {
        return;
    };
    let drains = |slot: &SlotId, epoch| {
        let mut claims = after.report.claims.iter();
        claims
            .any(|c| c.slot == *slot && c.epoch == epoch && c.phase == Phase::Stopping && !c.ready)
    };
    let served = before.report.claims.iter();
    let withdrawn: Vec<WorkloadId> = served
        .filter(|c| c.ready && c.phase == Phase::Running && drains(&c.slot, c.epoch))
        .map(|c| WorkloadId {
            slot: c.slot.clone(),
            epoch: c.epoch,
            attempt: c.restarts,
        })
        .collect();
    for id in withdrawn {
        stop_is_justified(world, host, &id, Some(before));
    }
}

/// I2: a running replica is stopped for a reason that the node can show.
pub(super) fn stop_is_justified(
    world: &mut World,
    host: usize,
    id: &WorkloadId,
    before: Option<&Arc<NodeRegister>>,
) {
    let was_serving = before.is_some_and(|register| {
        register.report.claims.iter().any(|c| {
            c.slot == id.slot && c.epoch == id.epoch && c.ready && c.phase == Phase::Running
        })
    });
    let truly_answers = world.hosts[host]
        .runtime
        .answering(world.now)
        .any(|(w, _)| w == id);
    let reason = reason(world, host, id, before);
    if reason != Reason::Beaten {
        forget_epoch(world, id);
    }
    let recently = world.now.saturating_sub(ILLNESS_IS_NOTICED);
    let was_unwell = world.hosts[host].runtime.was_unwell_since(id, recently);
    if !was_serving || !truly_answers || was_unwell {
        return;
    }
    match reason {
        Reason::None if isolation::may_stop(world, host, &id.slot) => {}
        Reason::None => world.violation(format!(
            "I2: n{host} stops {} epoch {} for no reason",
            id.slot, id.epoch
        )),
        Reason::Beaten if world.watch.no_gaps && !answers_elsewhere(world, host, &id.slot) => {
            world.violation(format!(
                "I2: n{host} stops {} epoch {} before another answers",
                id.slot, id.epoch
            ));
        }
        Reason::Beaten | Reason::Spec => {}
    }
}

/// Why a replica may be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// It may not.
    None,
    /// The specification says so.
    Spec,
    /// Another one is running and ready.
    Beaten,
}

fn answers_elsewhere(world: &World, host: usize, slot: &SlotId) -> bool {
    let mut others = world.hosts.iter().filter(|h| h.index != host && h.is_up());
    others.any(|h| h.runtime.answering_since(slot, world.now).is_some())
}

fn reason(
    world: &World,
    host: usize,
    id: &WorkloadId,
    before: Option<&Arc<NodeRegister>>,
) -> Reason {
    let h = &world.hosts[host];
    let (Some(engine), Some(before)) = (h.engine.as_ref(), before) else {
        return Reason::Spec;
    };
    let desired = engine.desired();
    let Some(service) = desired.services.get(&id.slot.service) else {
        return Reason::Spec;
    };
    if service.jobs.run.is_some() {
        // It has ended, or this part of it has: its own checks look at that.
        return Reason::Spec;
    }
    let drained = desired
        .nodes
        .get(&h.id)
        .is_some_and(|n| n.availability == Availability::Drained);
    let wanted = match id.slot.slot {
        Slot::Replica(index) => index < service.wanted_replicas(),
        Slot::Node(node) => node == h.id && service.running && !drained,
    };
    let Some(own) = before.report.claims.iter().find(|c| c.slot == id.slot) else {
        return Reason::Spec;
    };
    if !wanted || own.revision != service.revision {
        return Reason::Spec;
    }
    if service.spec.policy.is_strict() {
        // Whether it had the votes is nothing that others see.
        return Reason::Spec;
    }
    let now = engine.register(h.id).unwrap_or(before);
    if [before, now]
        .iter()
        .any(|r| ranks::is_preempted(&r.report, desired, &id.slot))
    {
        return Reason::Spec;
    }
    let beaten = engine.observed().filter(|r| r.node != h.id).any(|r| {
        r.report.claims.iter().any(|c| {
            c.slot == id.slot
                && c.ready
                && c.phase == Phase::Running
                && (drained || own.leaving || beats((&r.node, c), (&h.id, own)).is_gt())
        })
    });
    if beaten { Reason::Beaten } else { Reason::None }
}
