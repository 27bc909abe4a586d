//! What the engine knows, as the API shows it. Functions from the engine's views to answer types;
//! they run inside the engine's turn, so they copy only what is asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::jobs;
use super::scaling::autoscale;
use dunlin_api::{
    Explanation, HistoryEntry, Node, NodeState, NodeVerdict, RefusalReason, Replica, ReplicaList,
    ServiceDetail, ServiceProgress, ServiceSummary, SlotState, Verdict, WaitingService,
};
use dunlin_core::engine::Engine;
use dunlin_core::placement::{Reason, Verdict as CoreVerdict};
use dunlin_gossip::membership::MemberState;
use dunlin_state::desired::{Aspect, Conflict, Service};
use dunlin_state::model::{
    Claim, Mode, NodeId, NodeRegister, Phase, Resources, ServiceKey, Slot, SlotId, beats,
};
use dunlin_state::windows::in_words;

/// Every node the cluster knows of, ordered by name.
pub(super) fn nodes(engine: &Engine) -> Vec<Node> {
    let states = states(engine);
    let ids: BTreeSet<NodeId> = states
        .keys()
        .copied()
        .chain(engine.observed().map(|r| r.node))
        .collect();
    let mut nodes: Vec<Node> = ids
        .into_iter()
        .map(|id| {
            let state = states.get(&id).copied().unwrap_or(NodeState::Down);
            node(engine, id, state)
        })
        .collect();
    nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    nodes
}

/// This node alone.
pub(super) fn this_node(engine: &Engine) -> Node {
    node(engine, engine.me().node, NodeState::Alive)
}

fn node(engine: &Engine, id: NodeId, state: NodeState) -> Node {
    let register = engine.register(id);
    let report = register.map(|r| r.report.clone()).unwrap_or_default();
    let intent = engine.desired().nodes.get(&id).cloned().unwrap_or_default();
    let mut labels = report.labels;
    let maintenance = super::maintenance::of(&intent);
    labels.extend(intent.labels);
    Node {
        id,
        name: report.name,
        this: id == engine.me().node,
        state,
        availability: intent.availability,
        maintenance,
        address: report.address,
        labels,
        facts: report.facts,
        capacity: report.capacity,
        reserved: report
            .claims
            .iter()
            .fold(Resources::ZERO, |sum, c| sum.plus(c.resources)),
        runtimes: report.runtimes,
        disk_ok: report.disk_ok,
        replicas: count(report.claims.len()),
        version: report.dunlin_version,
        boot: register.map_or(0, |r| r.version.boot),
        started_at: report.started_at,
    }
}

/// What membership believes of each node; this one is alive to itself.
pub(super) fn states(engine: &Engine) -> BTreeMap<NodeId, NodeState> {
    let mut states: BTreeMap<NodeId, NodeState> = engine
        .members()
        .iter()
        .map(|m| (m.id.node, node_state(m.state)))
        .collect();
    states.insert(engine.me().node, NodeState::Alive);
    states
}

pub(super) fn node_state(state: MemberState) -> NodeState {
    match state {
        MemberState::Alive => NodeState::Alive,
        MemberState::Suspect => NodeState::Suspect,
        MemberState::Down => NodeState::Down,
        MemberState::Left => NodeState::Left,
    }
}

/// Which replicas a listing wants.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    pub(super) namespace: Option<String>,
    pub(super) service: Option<ServiceKey>,
    pub(super) node: Option<NodeId>,
}

impl Wanted {
    fn has(&self, service: &ServiceKey) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|n| n == service.namespace())
            && self.service.as_ref().is_none_or(|s| s == service)
    }
}

/// Replicas and the slots that have none.
pub(super) fn replicas(engine: &Engine, wanted: &Wanted) -> ReplicaList {
    let states = states(engine);
    let claims = Claims::gather(engine, &states, |service| wanted.has(service));
    let replicas = claims
        .all
        .iter()
        .filter(|(register, _)| wanted.node.is_none_or(|n| n == register.node))
        .map(|(register, claim)| claims.replica(register, claim, &states))
        .collect();
    let vacant = if wanted.node.is_some() {
        Vec::new()
    } else {
        claims.vacant(engine, wanted)
    };
    let services = engine.desired().services.keys();
    let waiting = services
        .filter(|key| wanted.node.is_none() && wanted.has(key))
        .filter_map(|key| {
            let wait = engine.waits_for(key)?;
            Some(WaitingService {
                service: key.clone(),
                reason: wait.text,
                in_vain: wait.in_vain,
            })
        })
        .collect();
    let services = engine.desired().services.iter();
    let asleep = services.filter(|(key, service)| {
        wanted.node.is_none() && wanted.has(key) && service.wakes() && service.replicas == 0
    });
    ReplicaList {
        replicas,
        vacant,
        waiting,
        asleep: asleep.map(|(key, _)| key.clone()).collect(),
        notes: notes(engine, wanted),
    }
}

/// What people should know of services beyond single replicas.
fn notes(engine: &Engine, wanted: &Wanted) -> Vec<String> {
    let services = engine.desired().services.keys();
    let services: Vec<&ServiceKey> = services.filter(|key| wanted.has(key)).collect();
    let mut notes: Vec<String> = services
        .iter()
        .filter_map(|key| Some(format!("{key}: {}", conflict(engine, key)?)))
        .collect();
    let namespaces: BTreeSet<&str> = services.iter().map(|key| key.namespace()).collect();
    for namespace in namespaces {
        let over = engine.desired().over_quota(namespace);
        if !over.is_empty() {
            let over: Vec<String> = over.iter().map(ToString::to_string).collect();
            let over = over.join(", ");
            notes.push(format!(
                "the namespace {namespace} is over its quota: {over}"
            ));
        }
    }
    notes
}

/// What people have changed on two sides of a partition, if that disagrees.
fn conflict(engine: &Engine, key: &ServiceKey) -> Option<Conflict> {
    let by_people = |conflict: &Conflict| match conflict.aspect {
        Aspect::Spec | Aspect::Image | Aspect::Scale | Aspect::Run => true,
        Aspect::Rollout | Aspect::Jobs => false,
    };
    engine.conflicts_of(key).into_iter().find(by_people)
}

/// All services of a namespace, or of all.
pub(super) fn services(engine: &Engine, namespace: Option<&str>) -> Vec<ServiceSummary> {
    let all = progress(engine, |key| namespace.is_none_or(|n| n == key.namespace()));
    let progress: BTreeMap<_, _> = all.into_iter().map(|p| (p.service.clone(), p)).collect();
    let listed = engine
        .desired()
        .services
        .iter()
        .filter_map(|(key, service)| {
            // Runs of jobs are listed with these.
            let progress = progress.get(key).filter(|_| service.jobs.run.is_none())?;
            Some(ServiceSummary {
                service: key.clone(),
                mode: service.spec.mode,
                job: service.spec.job.is_some(),
                running: service.running,
                wanted: progress.wanted,
                ready: progress.ready,
                autoscale: autoscale(engine, key),
                image: service.spec.image.clone(),
                command: service.spec.command.clone(),
                runtime: service.spec.runtime,
                ports: service.spec.ports.clone(),
                revision: service.revision.clone(),
            })
        });
    listed.collect()
}

/// One service in full.
pub(super) fn detail(engine: &Engine, key: &ServiceKey) -> Option<ServiceDetail> {
    let service = engine.desired().services.get(key)?;
    let wanted = Wanted {
        service: Some(key.clone()),
        ..Wanted::default()
    };
    let listed = replicas(engine, &wanted);
    let progress = progress(engine, |k| k == key).pop()?;
    let assigned = engine.desired().vips.get(key);
    let vip = assigned.map(|assigned| engine.config().vips.of(assigned.index));
    Some(ServiceDetail {
        service: key.clone(),
        spec: (*service.spec).clone(),
        revision: service.revision.clone(),
        scale: service.replicas,
        running: service.running,
        wanted: progress.wanted,
        ready: progress.ready,
        autoscale: autoscale(engine, key),
        address: vip.and_then(|vip| vip.addresses().next()),
        replicas: listed.replicas,
        vacant: listed.vacant.into_iter().map(|s| s.slot).collect(),
        outputs: service
            .jobs
            .told
            .as_ref()
            .map(|told| told.outputs.clone())
            .unwrap_or_default(),
    })
}

/// How far services are from what is wanted.
pub(super) fn progress(
    engine: &Engine,
    which: impl Fn(&ServiceKey) -> bool,
) -> Vec<ServiceProgress> {
    let states = states(engine);
    let claims = Claims::gather(engine, &states, &which);
    let listed = engine
        .desired()
        .services
        .iter()
        .filter(|(key, _)| which(key));
    listed
        .map(|(key, service)| claims.progress(engine, key, service, &states))
        .collect()
}

/// Claims of interest, with the winner of each slot.
struct Claims<'a> {
    all: Vec<(&'a NodeRegister, &'a Claim)>,
    winners: BTreeMap<&'a SlotId, (NodeId, &'a Claim)>,
    by_service: BTreeMap<&'a ServiceKey, Vec<usize>>,
}

impl<'a> Claims<'a> {
    fn gather(
        engine: &'a Engine,
        states: &BTreeMap<NodeId, NodeState>,
        which: impl Fn(&ServiceKey) -> bool,
    ) -> Self {
        let mut claims = Self {
            all: Vec::new(),
            winners: BTreeMap::new(),
            by_service: BTreeMap::new(),
        };
        for register in engine.observed() {
            for claim in register
                .report
                .claims
                .iter()
                .filter(|c| which(&c.slot.service))
            {
                claims.add(register, claim, holds(states, register.node));
            }
        }
        claims
            .all
            .sort_by(|(n, a), (m, b)| (&a.slot, n.node).cmp(&(&b.slot, m.node)));
        for (at, (_, claim)) in claims.all.iter().enumerate() {
            claims
                .by_service
                .entry(&claim.slot.service)
                .or_default()
                .push(at);
        }
        claims
    }

    fn add(&mut self, register: &'a NodeRegister, claim: &'a Claim, holds: bool) {
        self.all.push((register, claim));
        if !holds {
            return;
        }
        let challenger = (register.node, claim);
        let winner = self.winners.entry(&claim.slot).or_insert(challenger);
        if beats((&challenger.0, challenger.1), (&winner.0, winner.1)).is_gt() {
            *winner = challenger;
        }
    }

    fn replica(
        &self,
        register: &NodeRegister,
        claim: &Claim,
        states: &BTreeMap<NodeId, NodeState>,
    ) -> Replica {
        let winner = self.winners.get(&claim.slot);
        Replica {
            service: claim.slot.service.clone(),
            slot: claim.slot.slot,
            node: register.node,
            node_name: register.report.name.clone(),
            node_state: states
                .get(&register.node)
                .copied()
                .unwrap_or(NodeState::Down),
            phase: claim.phase,
            ready: claim.ready,
            leaving: claim.leaving,
            superseded: winner.is_some_and(|(node, _)| *node != register.node),
            epoch: claim.epoch,
            revision: claim.revision.clone(),
            restarts: claim.restarts,
            endpoints: claim.endpoints.clone(),
            since: claim.since,
            started_at: claim.started_at,
            message: claim.message.clone(),
            last_exit: claim.last_exit.clone(),
            history: claim.history.clone(),
            workload: claim.workload.clone(),
        }
    }

    fn vacant(&self, engine: &Engine, wanted: &Wanted) -> Vec<SlotId> {
        let services = engine
            .desired()
            .services
            .iter()
            .filter(|(key, _)| wanted.has(key));
        services
            .filter(|(_, service)| service.spec.mode == Mode::Replicated)
            .flat_map(|(key, service)| {
                let wanted = service.wanted_replicas();
                let run = service.jobs.run.as_ref();
                let closed = run.map(|run| run.closed(wanted)).unwrap_or_default();
                let open = (0..wanted).filter(move |index| !closed.contains(index));
                open.map(|index| SlotId {
                    service: key.clone(),
                    slot: Slot::Replica(index),
                })
            })
            .filter(|slot| !self.winners.contains_key(slot))
            .collect()
    }

    fn progress(
        &self,
        engine: &Engine,
        key: &ServiceKey,
        service: &Service,
        states: &BTreeMap<NodeId, NodeState>,
    ) -> ServiceProgress {
        let of_service = || {
            self.by_service
                .get(key)
                .into_iter()
                .flatten()
                .map(|at| self.all[*at])
                .filter(|(register, _)| {
                    states
                        .get(&register.node)
                        .is_some_and(|s| *s == NodeState::Alive)
                })
        };
        let is_wanted = |slot: &SlotId| match (service.spec.mode, slot.slot) {
            (Mode::Replicated, Slot::Replica(index)) => index < service.wanted_replicas(),
            (Mode::Global, Slot::Node(_)) => service.running,
            (Mode::Replicated, Slot::Node(_)) | (Mode::Global, Slot::Replica(_)) => false,
        };
        let mut ready = BTreeSet::new();
        let mut updated = BTreeSet::new();
        let mut surplus = false;
        for (_, claim) in of_service() {
            let runs = claim.ready || claim.phase == Phase::Completed;
            if !is_wanted(&claim.slot) {
                surplus = true;
            } else if runs
                && ready.insert(&claim.slot)
                && claim.revision == service.target(claim.slot.slot).0
            {
                updated.insert(&claim.slot);
            }
        }
        let wanted = match service.spec.mode {
            Mode::Replicated => service.wanted_replicas(),
            Mode::Global => engine.explain(key).map_or(0, |e| e.wanted),
        };
        let (ready, updated) = (count(ready.len()), count(updated.len()));
        if let Some((wanted, done, failed)) = jobs::progress(service) {
            return ServiceProgress {
                service: key.clone(),
                revision: service.revision.clone(),
                wanted,
                ready: done,
                updated: done,
                converged: done >= wanted,
                reason: engine.explain(key).and_then(|e| e.cause),
                halted: failed,
            };
        }
        let after = jobs::after_deploy(service);
        let converged = ready >= wanted && updated >= wanted && !surplus && after.is_none();
        let (after, failed) = after.map_or((None, None), |a| (a.clone().ok(), a.err()));
        ServiceProgress {
            service: key.clone(),
            revision: service.revision.clone(),
            wanted,
            ready,
            updated,
            converged,
            reason: if converged {
                None
            } else {
                engine.explain(key).and_then(|e| e.cause).or(after)
            },
            halted: failed
                .or_else(|| halted(service))
                .or_else(|| in_vain(engine, key)),
        }
    }
}

/// Why a rollout goes no further, or was undone.
fn halted(service: &Service) -> Option<String> {
    let rollout = &service.rollout;
    let why = rollout.reason.as_deref().unwrap_or("no reason was given");
    match (rollout.paused, rollout.is_rollback) {
        (true, _) => Some(format!("the rollout is paused: {why}")),
        (false, true) => Some(format!("it was rolled back: {why}")),
        (false, false) => None,
    }
}

/// What a service waits for that will not come by itself.
fn in_vain(engine: &Engine, key: &ServiceKey) -> Option<String> {
    let wait = engine.waits_for(key).filter(|wait| wait.in_vain)?;
    Some(format!("it {}", wait.text))
}

/// Whether claims of a node in this state still hold: one that is merely suspected keeps its slots.
fn holds(states: &BTreeMap<NodeId, NodeState>, node: NodeId) -> bool {
    states.get(&node).is_some_and(|state| match state {
        NodeState::Alive | NodeState::Suspect => true,
        NodeState::Down | NodeState::Left => false,
    })
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Why a service is as it is.
pub(super) fn explain(engine: &Engine, key: &ServiceKey) -> Option<Explanation> {
    let mut explanation = engine.explain(key)?;
    if let Some(conflict) = conflict(engine, key) {
        explanation.summary.push_str(&format!("; {conflict}"));
    }
    Some(Explanation {
        networks: explanation.networks,
        service: explanation.service,
        summary: explanation.summary,
        wanted: explanation.wanted,
        ready: explanation.ready,
        autoscale: autoscale(engine, key),
        slots: explanation
            .slots
            .into_iter()
            .map(|s| SlotState {
                slot: s.slot,
                node: s.node,
                node_name: s.node_name,
                phase: s.phase,
                ready: s.ready,
                message: s.message,
            })
            .collect(),
        nodes: explanation
            .nodes
            .into_iter()
            .map(|n| {
                let (verdict, score, reasons) = match n.verdict {
                    CoreVerdict::Fit { score } => (Verdict::Fits, Some(score as f64), Vec::new()),
                    CoreVerdict::Refused(reasons) => (Verdict::Refused, None, reasons),
                };
                NodeVerdict {
                    node: n.node,
                    name: n.name,
                    verdict,
                    score,
                    reasons: reasons
                        .iter()
                        .map(|reason| dated(refusal(reason), reason, n.silent_since))
                        .collect(),
                }
            })
            .collect(),
    })
}

/// Adds since when a node does not answer to a reason that says so.
fn dated(mut told: RefusalReason, reason: &Reason, since: Option<u64>) -> RefusalReason {
    if let (Reason::Gone | Reason::Suspect, Some(since)) = (reason, since) {
        let since = format!(", since {}", in_words(since));
        told.text.push_str(&since);
    }
    told
}

/// A reason in words.
pub(super) fn refusal(reason: &Reason) -> RefusalReason {
    RefusalReason {
        text: reason.to_string(),
        fix: Some(reason.fix()),
    }
}

/// What became of a service, newest first.
pub(super) fn history(engine: &Engine, key: &ServiceKey) -> Vec<HistoryEntry> {
    let mut entries = engine.history(key);
    entries.sort_by_key(|e| std::cmp::Reverse((e.counter, e.time)));
    entries
        .into_iter()
        .map(|entry| HistoryEntry {
            aspect: entry.aspect.to_string(),
            at: entry.time,
            author: entry.author,
            summary: entry.summary,
            revision: None,
            current: entry.current,
            lost: entry.lost,
        })
        .collect()
}
