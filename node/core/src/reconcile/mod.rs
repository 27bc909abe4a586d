//! From this node's claims to running replicas.
//!
//! Each claim is a small machine ([`held`]): it waits, is started, runs, becomes ready, ends, is
//! started again with growing delays ([`restart`]), or is stopped. What should become of it is
//! decided in one pure function ([`wish`]) whenever something it depends on has changed. The order
//! of things keeps the service up: a replica that serves is stopped only because nobody wants it,
//! because its successor runs and is ready, or because its turn in a rolling update has come.
//!
//! What a claim takes from the node stays taken until its replica has really ended.

mod acts;
mod boot;
mod checks;
mod events;
mod evict;
mod files;
mod halt;
mod held;
mod moving;
mod outputs;
mod restart;
#[cfg(test)]
mod tests;
mod trial;
mod volumes;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::Desired;
use dunlin_state::model::{
    Claim, Mode, NodeId, NodeReport, Phase, Preempted, Resources, ServiceKey, Slot, SlotId, Trial,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::bidding::Bidder;
use crate::cluster::Cluster;
use crate::depend::Gate;
use crate::io::{Event, RuntimeCommand, Workload};
use crate::isolation::Isolation;
use crate::lease::Leases;
use crate::liveness::Standing;
use crate::placement::{NodeView, Reason, Verdict, judge};
use crate::rollout::Rollout;
use crate::secrets::Keeper;
use crate::timers::Timers;
use held::{Held, Stage};
pub(crate) use wish::forbids_update;

/// Milliseconds for which a node refuses a revision that it failed to start.
const REFUSE_MS: u64 = 60_000;

/// Revisions refused at a time; the oldest give way.
const MAX_REFUSALS: usize = 1_024;

/// Milliseconds before looking again at an update that waits for offers to lapse.
const REPLACE_SOON_MS: u64 = 200;

/// Milliseconds after which a start that was not answered is asked for again: the answer may have
/// been lost with a runtime that was restarted. A slow fetch is asked too, which changes nothing.
const START_PATIENCE_MS: u64 = 30_000;

/// Milliseconds beyond the grace after which a stop is asked for again.
const STOP_PATIENCE_MS: u64 = 15_000;

/// Milliseconds after which the runtimes are asked again what runs from an earlier life.
const ADOPT_AGAIN_MS: u64 = 5_000;

/// What the reconciler wants done.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) enum Effect {
    /// Something for the runtimes.
    Runtime(RuntimeCommand),
    /// Something for the operator.
    Event(Event),
}

/// What has changed since the last look, see [`Reconciler::take_changes`].
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The claims as reported.
    pub(crate) report: bool,
    /// What the disk should remember of them.
    pub(crate) durable: bool,
    /// Of which volumes there is data here.
    pub(crate) volumes: bool,
    /// Services of which slots were taken or released.
    pub(crate) held: BTreeSet<ServiceKey>,
}

/// What the reconciler may look at.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) desired: &'a Desired,
    /// Whether desired state is known at all: a node that lost its disk keeps what it runs until
    /// a peer has told it what is wanted.
    pub(crate) desired_known: bool,
    /// Whether this node is leaving the cluster: nothing of it may run on.
    pub(crate) leaving: bool,
    /// This node's report; its claims are not looked at.
    pub(crate) host: &'a NodeReport,
    pub(crate) isolation: &'a Isolation,
    pub(crate) leases: &'a Leases,
    pub(crate) bidder: &'a Bidder,
    pub(crate) keeper: &'a Keeper,
}

impl<'a> World<'a> {
    /// What the cluster knows of dependencies.
    fn gate(&self) -> Gate<'a> {
        Gate {
            cluster: self.cluster,
            desired: self.desired,
        }
    }
}

/// Runs this node's claims.
#[derive(Debug)]
pub(crate) struct Reconciler {
    me: NodeId,
    boot: u64,
    rng: ChaCha8Rng,
    claims: BTreeMap<SlotId, Held>,
    timers: Timers<SlotId>,
    refusals: BTreeMap<(ServiceKey, String), Refusal>,
    /// Slots for which room is being made.
    evictions: BTreeMap<SlotId, evict::Eviction>,
    /// Until when no more room is made for a slot.
    cooling: BTreeMap<SlotId, u64>,
    /// Who was ended for somebody else and waits for a place, the oldest first.
    preempted: Vec<Preempted>,
    /// Services to look at again when a refusal ends.
    revisits: Timers<ServiceKey>,
    /// Whether the runtimes have said what runs from an earlier life.
    adopted: bool,
    ask_adopted: Option<u64>,
    /// Whether claims of an earlier life may be started: the others were heard, or nobody is there.
    gate_open: bool,
    last_node_epoch: u64,
    volumes: volumes::Volumes,
    changes: Changes,
}

#[derive(Debug)]
struct Refusal {
    until: u64,
    reason: String,
}

impl Reconciler {
    pub(crate) fn new(me: NodeId, boot: u64, seed: u64) -> Self {
        Self {
            me,
            boot,
            rng: ChaCha8Rng::seed_from_u64(seed),
            claims: BTreeMap::new(),
            timers: Timers::default(),
            refusals: BTreeMap::new(),
            evictions: BTreeMap::new(),
            cooling: BTreeMap::new(),
            preempted: Vec::new(),
            revisits: Timers::default(),
            adopted: false,
            ask_adopted: None,
            gate_open: false,
            last_node_epoch: 0,
            volumes: volumes::Volumes::default(),
            changes: Changes::default(),
        }
    }

    /// This node's claims, by slot.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.values().map(|held| &held.claim)
    }

    pub(crate) fn holds(&self, service: &ServiceKey, slot: Slot) -> bool {
        let service = service.clone();
        self.claims.contains_key(&SlotId { service, slot })
    }

    /// Whether this node has to follow what becomes of a service.
    pub(crate) fn cares_for(&self, service: &ServiceKey) -> bool {
        self.holds_any(service) || self.follows(service)
    }

    /// The attempt of this slot that runs here.
    pub(crate) fn running(&self, slot: &SlotId) -> Option<crate::io::WorkloadId> {
        let held = self.claims.get(slot)?;
        held.is_up().then(|| held.id())
    }

    pub(crate) fn holds_any(&self, service: &ServiceKey) -> bool {
        self.slots_of(service).next().is_some()
    }

    /// What this node has taken.
    pub(crate) fn committed(&self) -> Resources {
        let claims = self.claims();
        claims.fold(Resources::ZERO, |sum, claim| sum.plus(claim.resources))
    }

    /// Why this node would not start a revision although it would fit.
    pub(crate) fn refusal(&self, service: &ServiceKey, revision: &str, now: u64) -> Option<Reason> {
        let key = (service.clone(), revision.to_owned());
        let refusal = self.refusals.get(&key).filter(|r| r.until > now)?;
        Some(Reason::FailedHere {
            reason: refusal.reason.clone(),
            retry_s: (refusal.until - now).div_ceil(1_000),
        })
    }

    /// This node with its claims, but for `except`.
    pub(crate) fn view(
        &self,
        host: &NodeReport,
        desired: &Desired,
        except: Option<&SlotId>,
    ) -> NodeView {
        let mut view = NodeView::conditions(self.me, host, Standing::Alive, desired);
        for (slot, held) in &self.claims {
            if Some(slot) != except {
                view.add_claim(&held.claim, desired);
            }
        }
        self.add_evictions(&mut view);
        view
    }

    /// Writes the steps that claims have made into their histories.
    pub(crate) fn note_steps(&mut self, wall: u64) {
        self.claims.values_mut().for_each(|h| h.note_step(wall));
    }

    /// Tells and forgets what has changed.
    pub(crate) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Claims a slot that was won.
    pub(crate) fn take(
        &mut self,
        slot: SlotId,
        epoch: u64,
        moved_from: Option<NodeId>,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        let Some(service) = world.desired.services.get(&slot.service) else {
            return Vec::new();
        };
        // The award may have waited for desired state that says that the part was done meanwhile.
        if self.claims.contains_key(&slot) || wish::done(slot.slot, service).is_some() {
            return Vec::new();
        }
        self.changes.report = true;
        self.changes.durable = true;
        self.changes.held.insert(slot.service.clone());
        let mut held = Held::new(slot.clone(), epoch, service, now.wall, now.mono);
        held.round = service.rollout.round;
        if service.jobs.run.is_some() {
            held.failures = restart::failures_elsewhere(&slot, world);
        }
        if let Some(from) = moved_from {
            held.set_moving(from, now.mono);
        }
        let rollout = Rollout::of(&slot.service, service, world.cluster);
        if rollout.is_proven_revision(slot.slot, &held.claim.revision) {
            held.claim.trial = Trial::Proven;
        }
        self.claims.insert(slot.clone(), held);
        self.reserve_volumes(&slot, world, now);
        self.run_due(&slot, world, now)
    }

    /// Looks at all claims of a service again, because something about it has changed.
    pub(crate) fn review(
        &mut self,
        service: &ServiceKey,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        let slots: Vec<SlotId> = self.slots_of(service).cloned().collect();
        let mut effects = Vec::new();
        for slot in slots {
            effects.extend(self.review_slot(&slot, world, now));
        }
        effects.extend(self.claim_own_slot(service, world, now));
        effects
    }

    fn slots_of<'a>(&'a self, service: &'a ServiceKey) -> impl Iterator<Item = &'a SlotId> {
        let first = SlotId {
            service: service.clone(),
            slot: Slot::Replica(0),
        };
        let from_first = self.claims.range(first..).map(|(slot, _)| slot);
        from_first.take_while(move |slot| slot.service == *service)
    }

    /// A daemon service needs no auction: every node that matches claims its own slot.
    fn claim_own_slot(&mut self, key: &ServiceKey, world: &World<'_>, now: Now) -> Vec<Effect> {
        let Some(service) = world.desired.services.get(key) else {
            return Vec::new();
        };
        let own = service.spec.mode == Mode::Global && !service.is_job();
        let wanted = service.running && own && self.adopted;
        let slot = Slot::Node(self.me);
        if !wanted || self.holds(key, slot) || world.gate().bars(key, service, slot).is_some() {
            return Vec::new();
        }
        if self.refusal(key, &service.revision, now.mono).is_some() {
            return Vec::new();
        }
        let mut view = self.view(world.host, world.desired, None);
        world.bidder.add_offers(&mut view);
        match judge(&service.spec, key, &view) {
            Verdict::Fit { .. } => {
                let epoch = self.next_node_epoch();
                let service = key.clone();
                self.take(SlotId { service, slot }, epoch, None, world, now)
            }
            Verdict::Refused(reasons) => {
                if reasons.contains(&Reason::Busy) {
                    self.revisits.set(key, Some(now.mono + REPLACE_SOON_MS));
                }
                Vec::new()
            }
        }
    }

    /// The next epoch of a slot that only this node can hold: lives count before claims.
    fn next_node_epoch(&mut self) -> u64 {
        let first = self.boot.saturating_mul(1 << 16);
        self.last_node_epoch = self.last_node_epoch.saturating_add(1).max(first);
        self.last_node_epoch
    }

    /// Time has passed. Services that want a new look come back with the effects.
    pub(crate) fn handle_timeout(
        &mut self,
        world: &World<'_>,
        now: Now,
    ) -> (Vec<Effect>, Vec<ServiceKey>) {
        let mut effects = Vec::new();
        if self.ask_adopted.is_some_and(|at| at <= now.mono) {
            self.ask_adopted = Some(now.mono + ADOPT_AGAIN_MS);
            effects.push(Effect::Runtime(RuntimeCommand::Adopt));
        }
        for slot in self.timers.take_due(now.mono) {
            effects.extend(self.run_due(&slot, world, now));
        }
        let mut revisits = self.revisits.take_due(now.mono);
        revisits.extend(self.look_at_evictions(now.mono));
        if !revisits.is_empty() {
            self.refusals.retain(|_, refusal| refusal.until > now.mono);
        }
        (effects, revisits)
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        let times = [
            self.timers.next(),
            self.revisits.next(),
            self.ask_adopted,
            self.evictions_due(),
        ];
        times.into_iter().flatten().min()
    }

    /// Does what is due for one claim and sets its next deadline.
    fn run_due(&mut self, slot: &SlotId, world: &World<'_>, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        match held.stage {
            Stage::Waiting { at } if at <= now.mono => {
                effects.extend(self.launch(slot, world, now));
            }
            Stage::Starting { asked } if asked + START_PATIENCE_MS <= now.mono => {
                held.stage = Stage::Starting { asked: now.mono };
                let start = self.start_command(slot, world, now);
                effects.extend(start.map(Effect::Runtime));
            }
            Stage::Running { .. } => effects.extend(self.run_checks(slot, now)),
            Stage::Draining { then, until, .. } if until <= now.mono => {
                return self.stop(slot, then, now);
            }
            Stage::Stopping { then, asked } if held.stop_again_at(asked) <= now.mono => {
                effects.push(Effect::Runtime(stop_command(held)));
                let asked = now.mono;
                held.stage = Stage::Stopping { then, asked };
            }
            Stage::Recovering
            | Stage::Parked
            | Stage::Waiting { .. }
            | Stage::Starting { .. }
            | Stage::Ended
            | Stage::Draining { .. }
            | Stage::Stopping { .. } => {}
        }
        effects.extend(self.judge_trial(slot, now));
        self.look_at_move(slot, now);
        self.set_timer(slot);
        effects
    }

    fn set_timer(&mut self, slot: &SlotId) {
        let at = self.claims.get(slot).and_then(Held::due);
        self.timers.set(slot, at);
    }

    /// Asks the runtime to start the present attempt.
    fn launch(&mut self, slot: &SlotId, world: &World<'_>, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        if held.spec.is_none() {
            // The specification of an older revision is not known any more; the review that
            // follows every change of desired state replaces it.
            held.stage = Stage::Parked;
            return Vec::new();
        }
        if held.is_barred(world, now) {
            self.changes.report = true;
            self.set_timer(slot);
            return Vec::new();
        }
        if held.lacks_files(world, now) {
            self.changes.report = true;
            return Vec::new();
        }
        if held.lacks_outputs(world, now) {
            self.changes.report = true;
            self.set_timer(slot);
            return Vec::new();
        }
        if self.lacks_volumes(slot, world, now) {
            self.changes.report = true;
            self.set_timer(slot);
            return Vec::new();
        }
        let start = self.start_command(slot, world, now);
        let (Some(start), Some(held)) = (start, self.claims.get_mut(slot)) else {
            return Vec::new();
        };
        held.stage = Stage::Starting { asked: now.mono };
        held.claim.phase = Phase::Starting;
        held.claim.restarts = held.attempt;
        self.changes.report = true;
        self.changes.durable = true;
        vec![Effect::Runtime(start)]
    }

    /// Asks for the start of the present attempt, if its specification is known.
    fn start_command(&self, slot: &SlotId, world: &World<'_>, now: Now) -> Option<RuntimeCommand> {
        let held = self.claims.get(slot)?;
        let service = world.desired.services.get(&slot.service);
        let strict = service.is_some_and(|s| s.spec.policy.is_strict());
        let until = world.leases.until(slot);
        let spec = held.spec.as_ref()?;
        Some(RuntimeCommand::Start(Box::new(Workload {
            id: held.id(),
            revision: held.claim.revision.clone(),
            spec: Arc::clone(spec),
            given: outputs::given(spec, world),
            tells: outputs::tells(slot, spec),
            node_name: world.host.name.clone(),
            node: world.cluster.me(),
            volumes: self.expected_volumes(held),
            lease_ms: strict.then(|| until.saturating_sub(now.mono)),
        })))
    }

    fn event(&self, slot: &SlotId, warning: bool, text: String) -> Effect {
        Effect::Event(Event {
            warning,
            text,
            slot: Some(slot.clone()),
            node: Some(self.me),
        })
    }

    fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

impl Held {
    /// When this claim next does something by itself.
    fn due(&self) -> Option<u64> {
        let next = match self.stage {
            Stage::Waiting { at } => Some(at),
            Stage::Running { ref health, .. } => health.poll_timeout(),
            Stage::Stopping { asked, .. } => Some(self.stop_again_at(asked)),
            Stage::Starting { asked } => Some(asked.saturating_add(START_PATIENCE_MS)),
            Stage::Draining { until, .. } => Some(until),
            Stage::Recovering | Stage::Parked | Stage::Ended => None,
        };
        next.into_iter()
            .chain(self.trial_due())
            .chain(self.move_until)
            .min()
    }

    fn stop_again_at(&self, asked: u64) -> u64 {
        let grace = self.spec.as_ref().map_or(0, |s| s.stop_grace_ms());
        asked.saturating_add(grace).saturating_add(STOP_PATIENCE_MS)
    }
}

/// Asks for the end of the present attempt.
fn stop_command(held: &Held) -> RuntimeCommand {
    let spec = held.spec.as_deref();
    let default = dunlin_state::model::ServiceSpec::DEFAULT_STOP_GRACE_MS;
    RuntimeCommand::Stop {
        id: held.id(),
        signal: spec.and_then(|s| s.stop_signal.clone()),
        grace_ms: spec.map_or(default, |s| s.stop_grace_ms()),
    }
}
