//! What should become of a claim, given what the cluster wants and who else holds the slot.

use dunlin_state::desired::{NodeIntent, Service};
use dunlin_state::model::{
    Availability, Claim, Mode, NodeId, Phase, Slot, SlotId, UpdateOrder, beats,
};
use dunlin_state::windows::in_words;

use super::World;
use super::evict::Evicted;
use super::held::{Held, Stage};
use crate::liveness::Standing;

use crate::rollout::Rollout;

use crate::placement::{NodeView, Reason, Verdict, judge, matches_constraints};
use crate::volumes;

/// What should become of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// Stay as it is.
    Keep,
    /// Stay until another node has the slot.
    Leave(String),
    /// Stop it, and start it again when it may run; whether that has to be quick.
    Halt(String, bool),
    /// End it: the slot is not wanted, or another node has it.
    Stop(String),
    /// Change to the present specification.
    Replace,
    /// Change to it when what it needs is not on offer elsewhere any more: look again soon.
    ReplaceSoon,
}

/// Decides about one claim of this node. `view` is this node without that claim.
pub(super) fn wish(
    held: &Held,
    evicted: Option<&Evicted>,
    world: &World<'_>,
    view: impl FnOnce() -> NodeView,
) -> Wish {
    let claim = &held.claim;
    if world.leaving {
        return Wish::Stop("the node leaves the cluster".to_owned());
    }
    let Some(service) = world.desired.services.get(&claim.slot.service) else {
        return if world.desired_known {
            Wish::Stop("the service was removed".to_owned())
        } else {
            Wish::Keep
        };
    };
    if let Some(why) = unwanted(claim.slot.slot, service, world.cluster.me()) {
        return Wish::Stop(why.to_owned());
    }
    if let Some(why) = done(claim.slot.slot, service).filter(|_| held.stage != Stage::Ended) {
        return Wish::Stop(why.to_owned());
    }
    let strict = service.spec.policy.is_strict();
    if strict && let Some(other) = runs_elsewhere(held, world) {
        return Wish::Stop(format!("{} runs it", other.short()));
    }
    if let Some(winner) = beaten_by(held, service, world) {
        return Wish::Stop(format!("{} holds the slot", winner.short()));
    }
    let (_, target) = service.target(claim.slot.slot);
    if !held.may_run() && held.stage != Stage::Ended {
        let (key, slot, me) = (&claim.slot.service, claim.slot.slot, world.cluster.me());
        let lacks = volumes::lacks(world.cluster, key, target, slot, me);
        if let Some(reason) = lacks.first() {
            return Wish::Stop(reason.to_string());
        }
    }
    let outdated = !service.allows(claim.slot.slot, &claim.revision);
    if held.stage == Stage::Ended && !outdated {
        return Wish::Keep;
    }
    if let Some(evicted) = evicted {
        return make_way(held, evicted, service, world);
    }
    let intent = world.desired.nodes.get(&world.cluster.me());
    if let Some(intent) = intent.filter(|i| i.availability == Availability::Drained) {
        return go(held, service, why_drained(intent));
    }
    if !outdated {
        let constrained = !service.spec.placement.constraints.is_empty();
        return if constrained && !matches_constraints(&service.spec, &view()) {
            go(
                held,
                service,
                "the node does not match the placement constraints any more".to_owned(),
            )
        } else {
            Wish::Keep
        };
    }
    update(held, service, world, view)
}

fn why_drained(intent: &NodeIntent) -> String {
    match intent.maintenance {
        Some(until) => format!("the node is in maintenance until {}", in_words(until)),
        None => "the node is drained".to_owned(),
    }
}

/// The slot is to be filled elsewhere.
fn go(held: &Held, service: &Service, why: String) -> Wish {
    let strict = service.spec.policy.is_strict() && held.may_run();
    let SlotId { service: key, slot } = &held.claim.slot;
    let (_, spec) = service.target(*slot);
    if let Some(volume) = volumes::pin(key, spec, *slot).filter(|_| held.may_run()) {
        return Wish::Leave(format!(
            "{why}, and stays because the data of volume {volume} is here: `dunlin volume import \
             --node` brings it elsewhere"
        ));
    }
    match held.claim.slot.slot {
        // There must never be two, so the old one goes first.
        Slot::Replica(_) if strict => Wish::Stop(why),
        Slot::Replica(_) => Wish::Leave(why),
        // Nobody else can have this slot.
        Slot::Node(_) => Wish::Stop(why),
    }
}

/// What becomes of a claim of an old revision.
fn update(
    held: &Held,
    service: &Service,
    world: &World<'_>,
    view: impl FnOnce() -> NodeView,
) -> Wish {
    let claim = &held.claim;
    let gate = world.gate();
    if gate
        .bars(&claim.slot.service, service, claim.slot.slot)
        .is_some()
    {
        // Its update waits, and what there is goes on.
        return Wish::Keep;
    }
    let rollout = Rollout::of(&claim.slot.service, service, world.cluster);
    if held.is_up() {
        let turn = claim.leaving || rollout.may_change(claim.slot.slot);
        if !turn || rollout.is_halted() {
            return Wish::Keep;
        }
    } else if held.spec.is_some() && rollout.is_halted() {
        // What cannot be trusted replaces nothing more, not even what is just starting again.
        return Wish::Keep;
    }
    let (_, spec) = service.target(claim.slot.slot);
    match judge(spec, &claim.slot.service, &view()) {
        Verdict::Fit { .. } if goes_elsewhere(held, service, world) => go(
            held,
            service,
            "its successor is started first, on another node".to_owned(),
        ),
        Verdict::Fit { .. } => Wish::Replace,
        Verdict::Refused(reasons) => match reasons.iter().find(|r| forbids_update(r)) {
            Some(reason) => go(
                held,
                service,
                format!("the new specification cannot run here: {reason}"),
            ),
            None if reasons.contains(&Reason::Busy) => Wish::ReplaceSoon,
            None => Wish::Replace,
        },
    }
}

/// What has to go looks for another node first, where start-first can win anything.
fn make_way(held: &Held, evicted: &Evicted, service: &Service, world: &World<'_>) -> Wish {
    let why = format!("preempted by {}", evicted.by);
    let alone = world.cluster.alive().len() <= 1 || service.spec.policy.is_strict();
    if !held.serves() || alone || service.jobs.run.is_some() {
        return Wish::Stop(why);
    }
    let me = world.cluster.me();
    let slot = &held.claim.slot;
    let mut others = world.cluster.claims_of(&slot.service, slot.slot);
    let succeeded = others.any(|(node, _)| {
        node != me
            && world.cluster.standing(node) == Standing::Alive
            && world.cluster.is_trusted(node)
    });
    if evicted.early || (evicted.patient && succeeded) {
        Wish::Leave(why)
    } else {
        Wish::Stop(why)
    }
}

/// Whether the new replica is started before this one stops. That takes another node: one holds a
/// slot only once. A node that is alone has to stop first.
fn goes_elsewhere(held: &Held, service: &Service, world: &World<'_>) -> bool {
    let moves = match held.claim.slot.slot {
        Slot::Replica(_) => true,
        Slot::Node(_) => false,
    };
    moves
        && held.serves()
        && service.update().order == UpdateOrder::StartFirst
        && volumes::pin(
            &held.claim.slot.service,
            &service.spec,
            held.claim.slot.slot,
        )
        .is_none()
        && !service.spec.policy.is_strict()
        && world.cluster.alive().len() > 1
}

/// Why a replica of a run need not run any more.
pub(super) fn done(slot: Slot, service: &Service) -> Option<&'static str> {
    let run = service.jobs.run.as_ref()?;
    match slot {
        _ if run.result.is_some() => Some("the run has ended"),
        Slot::Replica(index) => run
            .done
            .contains(&index)
            .then_some("this part of the run is done"),
        Slot::Node(_) => None,
    }
}

fn unwanted(slot: Slot, service: &Service, me: NodeId) -> Option<&'static str> {
    if !service.running {
        return Some("the service is stopped");
    }
    if service.is_job() {
        return Some("the service is a job now, and its runs do the work");
    }
    match (slot, service.spec.mode) {
        (Slot::Replica(index), Mode::Replicated) => {
            (index >= service.wanted_replicas()).then_some("the service was scaled down")
        }
        (Slot::Node(node), Mode::Global) => (node != me).then_some("it is another node's slot"),
        (Slot::Replica(_), Mode::Global) | (Slot::Node(_), Mode::Replicated) => {
            Some("the service has another mode now")
        }
    }
}

/// A replica stays where it is on a node that only takes nothing new.
pub(crate) fn forbids_update(reason: &Reason) -> bool {
    match reason {
        Reason::Constraint { .. }
        | Reason::Cpu { .. }
        | Reason::Memory { .. }
        | Reason::Disk { .. }
        | Reason::HostPort(_)
        | Reason::MaxPerNode(_)
        | Reason::AntiAffinity(_)
        | Reason::Runtime(_)
        | Reason::NoCommand => true,
        // What a replica follows may come and go; it stays, as after its first start.
        Reason::Affinity(_) | Reason::Skew { .. } => false,
        Reason::Unavailable(_)
        | Reason::Maintenance { .. }
        | Reason::DiskFailing
        | Reason::Suspect
        | Reason::Gone
        | Reason::Busy
        | Reason::MakingRoom
        | Reason::Cooling
        | Reason::CutOff
        | Reason::DataElsewhere(_)
        | Reason::StaleSpec
        | Reason::FailedHere { .. }
        | Reason::Lapsed
        | Reason::HoldsSlot => false,
    }
}

/// Who runs what must never run twice, so that this node waits for votes in vain.
fn runs_elsewhere(held: &Held, world: &World<'_>) -> Option<NodeId> {
    if held.may_run() {
        return None;
    }
    let me = world.cluster.me();
    let slot = &held.claim.slot;
    let mut others = world.cluster.claims_of(&slot.service, slot.slot);
    let runs = others.find(|(node, other)| {
        *node != me
            && world.cluster.standing(*node) == Standing::Alive
            && world.cluster.is_trusted(*node)
            && !other.leaving
            && other.phase == Phase::Running
    });
    runs.map(|(node, _)| node)
}

/// Who else holds the slot with a better claim. A replica that may be running goes only when the
/// other is running and ready (no gap); a claim with nothing behind it goes at once.
fn beaten_by(held: &Held, service: &Service, world: &World<'_>) -> Option<NodeId> {
    let me = world.cluster.me();
    let slot = &held.claim.slot;
    world
        .cluster
        .claims_of(&slot.service, slot.slot)
        .filter(|(node, _)| *node != me && world.cluster.standing(*node) == Standing::Alive)
        .filter(|(node, _)| world.cluster.is_trusted(*node))
        .filter(|(node, _)| !is_excluded(*node, service))
        .find(|(node, other)| {
            let better = beats((node, other), (&me, &held.claim)).is_gt();
            if other.leaving {
                false
            } else if is_settled(other) && !is_about_to_change(other, &held.claim, service, world) {
                better || held.claim.leaving
            } else {
                better && !held.may_run() && held.stage != Stage::Ended
            }
        })
        .map(|(node, _)| node)
}

/// Whether the specification names the nodes that may run it, and this is none of them. Everything
/// else that constraints look at, a node says of itself: a member that claims what is not its to
/// claim can lie about that, and not about who it is.
fn is_excluded(node: NodeId, service: &Service) -> bool {
    let id = node.to_string();
    let constraints = service.spec.placement.constraints.iter();
    let mut by_id = constraints.filter(|c| c.key().eq_ignore_ascii_case("node.id"));
    by_id.any(|constraint| !constraint.holds(Some(&id)))
}

/// Whether the other replica may stop any moment for an update that this one has had already: to
/// yield to it now could leave the slot empty. While a rollout is halted, nothing that runs changes.
fn is_about_to_change(other: &Claim, mine: &Claim, service: &Service, world: &World<'_>) -> bool {
    let slot = mine.slot.slot;
    mine.ready
        && !service.allows(slot, &other.revision)
        && service.allows(slot, &mine.revision)
        && !Rollout::of(&mine.slot.service, service, world.cluster).is_halted()
}

/// Whether the slot is filled for good by this claim.
fn is_settled(claim: &Claim) -> bool {
    match claim.phase {
        Phase::Running => claim.ready,
        Phase::Completed => true,
        Phase::Claimed
        | Phase::Preparing
        | Phase::Starting
        | Phase::BackOff
        | Phase::CrashLoop
        | Phase::Failed
        | Phase::Stopping => false,
    }
}
