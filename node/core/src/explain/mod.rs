//! Why a service is as it is, for a person who waits for it.

mod data;
mod preempted;

use std::collections::BTreeMap;

use dunlin_state::desired::{Desired, Outcome, Service};
use dunlin_state::model::{
    Claim, Mode, Networks, NodeId, Phase, ServiceKey, Slot, beats, contradiction, networks_of,
};
use serde::{Deserialize, Serialize};

use crate::bidding::LastRound;
use crate::cluster::Cluster;
use crate::depend::Gate;
use crate::liveness::Standing;

use crate::placement::{Domains, NodeView, Reason, Verdict, judge};
use preempted::Preemptions;

/// The state of a service, slot by slot and node by node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whom it is about.
    pub service: ServiceKey,
    /// The whole in one sentence.
    pub summary: String,
    /// The networks it is in, by their full names.
    pub networks: Networks,
    /// What stands in the way, without the counts; `None` when nothing does.
    pub cause: Option<String>,
    /// How many replicas should exist now.
    pub wanted: u32,
    /// How many of them get traffic.
    pub ready: u32,
    /// Every slot, ordered; a slot with several holders stands here once for each, the winner
    /// first.
    pub slots: Vec<SlotExplanation>,
    /// Every node: those that fit first, the best of them first.
    pub nodes: Vec<NodeExplanation>,
    /// The last auction, when this node held it.
    pub last_round: Option<LastRound>,
}

/// A slot and who fills it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotExplanation {
    /// Which slot.
    pub slot: Slot,
    /// Who holds it; nobody when absent.
    pub node: Option<NodeId>,
    /// That node's name.
    pub node_name: Option<String>,
    /// Where its replica is in its life.
    pub phase: Option<Phase>,
    /// Whether it gets traffic.
    pub ready: bool,
    /// Why it does not, in words.
    pub message: Option<String>,
}

/// What a node would say to one more replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeExplanation {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What is believed of its life.
    pub standing: Standing,
    /// Since when it does not answer, in milliseconds since the Unix epoch; `None` when it does, or
    /// has not done so since this node started.
    pub silent_since: Option<u64>,
    /// Whether it may, and how much it would like to; or every reason why not, each with its fix
    /// ([`crate::placement::Reason::fix`]).
    pub verdict: Verdict,
}

/// Where the explanation comes from.
pub(crate) struct Sources<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) desired: &'a Desired,
    pub(crate) last_round: Option<&'a LastRound>,
    /// Slots awarded to nodes that have not claimed them yet.
    pub(crate) pending: Vec<(Slot, NodeId)>,
    /// What stands against a revision on this node beyond placement.
    pub(crate) own_refusal: &'a dyn Fn(&str) -> Option<Reason>,
}

impl Sources<'_> {
    fn gate(&self) -> Gate<'_> {
        Gate {
            cluster: self.cluster,
            desired: self.desired,
        }
    }

    /// What stands in the way of a service that waits for another one.
    fn wait(
        &self,
        key: &ServiceKey,
        service: &Service,
        slots: &[SlotExplanation],
    ) -> Option<String> {
        let wait = self.gate().wait(key, service)?.text;
        Some(match slots.iter().any(|s| s.node.is_some()) {
            true => format!("its update {wait}"),
            false => format!("it {wait}"),
        })
    }
}

/// Explains a service; `None` when there is no such service.
pub(crate) fn explain(key: &ServiceKey, sources: &Sources<'_>) -> Option<Explanation> {
    let service = sources.desired.services.get(key)?;
    let mut holders = holders(key, sources);
    let mut nodes = judge_all(key, service, sources, &domains(service, &holders, sources));
    let wanted = wanted(service, &nodes);
    let mut slots = Vec::new();
    for index in 0..replicated_slots(service) {
        let slot = Slot::Replica(index);
        match holders.remove(&slot) {
            Some(found) => slots.extend(found.into_iter().map(|h| h.explain(slot))),
            None => slots.push(vacant(key, service, slot, sources)),
        }
    }
    for (slot, found) in holders {
        slots.extend(found.into_iter().map(|h| h.explain(slot)));
    }
    data::refuse(key, service, &slots, &mut nodes, sources);
    let mut ready: Vec<Slot> = slots.iter().filter(|s| s.ready).map(|s| s.slot).collect();
    ready.dedup();
    let ready = u32::try_from(ready.len()).unwrap_or(u32::MAX);
    let wait = sources.wait(key, service, &slots);
    let cause = wait
        .or_else(|| impossible(service, &slots))
        .or_else(|| cause(&slots, &nodes, Preemptions::of(key, sources).cause()));
    Some(Explanation {
        service: key.clone(),
        networks: networks_of(key, &service.spec.networks),
        summary: summarise(service, wanted, ready, cause.as_deref()) + &quota(key, sources),
        cause,
        wanted,
        ready,
        slots,
        nodes,
        last_round: sources.last_round.cloned(),
    })
}

/// A claim and who made it.
struct Holder<'a> {
    node: NodeId,
    name: &'a str,
    claim: &'a Claim,
}

impl Holder<'_> {
    fn explain(&self, slot: Slot) -> SlotExplanation {
        let claim = self.claim;
        let leaving = claim
            .leaving
            .then_some("waits for another node to take over");
        SlotExplanation {
            slot,
            node: Some(self.node),
            node_name: Some(self.name.to_owned()),
            phase: Some(claim.phase),
            ready: claim.phase == Phase::Running && claim.ready,
            message: claim
                .message
                .clone()
                .or_else(|| leaving.map(str::to_owned))
                .or_else(|| default_message(claim)),
        }
    }
}

/// What to say of a claim that says nothing itself.
fn default_message(claim: &Claim) -> Option<String> {
    match claim.phase {
        Phase::Running if claim.ready => None,
        Phase::Running => Some("its port does not accept connections yet".to_owned()),
        Phase::Claimed => Some("waits to be started".to_owned()),
        Phase::Preparing => Some("its image is being fetched".to_owned()),
        Phase::Starting => Some("is being started".to_owned()),
        Phase::Stopping => Some("is being stopped".to_owned()),
        Phase::BackOff | Phase::CrashLoop => Some("ended and is started again soon".to_owned()),
        Phase::Completed => Some("has done its work".to_owned()),
        Phase::Failed => Some("failed, and its restart policy leaves it so".to_owned()),
    }
}

fn holders<'a>(key: &ServiceKey, sources: &Sources<'a>) -> BTreeMap<Slot, Vec<Holder<'a>>> {
    let mut holders: BTreeMap<Slot, Vec<Holder<'a>>> = BTreeMap::new();
    for (node, known) in sources.cluster.nodes() {
        if !known.standing.holds_claims() {
            continue;
        }
        let Some(register) = &known.register else {
            continue;
        };
        let claims = register.report.claims.iter();
        for claim in claims.filter(|c| c.slot.service == *key) {
            let name = register.report.name.as_str();
            let holder = Holder { node, name, claim };
            holders.entry(claim.slot.slot).or_default().push(holder);
        }
    }
    for found in holders.values_mut() {
        found.sort_by(|a, b| beats((&b.node, b.claim), (&a.node, a.claim)));
    }
    holders
}

fn vacant(
    key: &ServiceKey,
    service: &Service,
    slot: Slot,
    sources: &Sources<'_>,
) -> SlotExplanation {
    let pending = sources.pending.iter().find(|(s, _)| *s == slot);
    let wait = || sources.gate().bars(key, service, slot);
    let message = match pending {
        Some((_, node)) => format!("was just given to {}", name_of(*node, sources)),
        None => match (closed(service, slot), wait()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(wait)) => wait.text,
            (None, None) => Preemptions::of(key, sources)
                .of_slot(slot)
                .or_else(|| data::vacancy(key, service, slot, sources))
                .unwrap_or_else(|| "no node has taken it".to_owned()),
        },
    };
    SlotExplanation {
        slot,
        node: None,
        node_name: None,
        phase: None,
        ready: false,
        message: Some(message),
    }
}

/// Why nobody needs to take a slot of a run.
fn closed(service: &Service, slot: Slot) -> Option<&'static str> {
    let run = service.jobs.run.as_ref()?;
    let Slot::Replica(index) = slot else {
        return None;
    };
    if run.done.contains(&index) {
        return Some("has done its work");
    }
    if run.result.is_some() {
        return Some("the run has ended");
    }
    let waits = run.closed(service.replicas).contains(&index);
    waits.then_some("its turn comes when others have ended")
}

fn name_of(node: NodeId, sources: &Sources<'_>) -> String {
    sources
        .cluster
        .register(node)
        .map_or_else(|| node.short(), |r| r.report.name.clone())
}

/// Where replicas are by the values of labels, as an auctioneer would count them.
fn domains(
    service: &Service,
    holders: &BTreeMap<Slot, Vec<Holder<'_>>>,
    sources: &Sources<'_>,
) -> Domains {
    if service.spec.placement.spread.is_empty() {
        return Domains::default();
    }
    let wanted = Slot::Replica(replicated_slots(service));
    let held = holders.range(..wanted).flat_map(|(_, found)| found);
    let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
    for holder in held.filter(|h| !h.claim.leaving) {
        *counts.entry(holder.node).or_default() += 1;
    }
    let alive = sources
        .cluster
        .nodes()
        .filter(|(_, n)| n.standing == Standing::Alive);
    let nodes: Vec<(NodeView, u32)> = alive
        .filter_map(|(node, known)| {
            let report = &known.register.as_ref()?.report;
            let view = NodeView::conditions(node, report, known.standing, sources.desired);
            Some((view, counts.get(&node).copied().unwrap_or(0)))
        })
        .collect();
    Domains::of(&service.spec, &nodes)
}

fn judge_all(
    key: &ServiceKey,
    service: &Service,
    sources: &Sources<'_>,
    domains: &Domains,
) -> Vec<NodeExplanation> {
    let mut nodes: Vec<NodeExplanation> = sources
        .cluster
        .nodes()
        .filter_map(|(node, known)| {
            let report = &known.register.as_ref()?.report;
            let view = NodeView::of_report(node, report, known.standing, sources.desired);
            let mut verdict = judge(&service.spec, key, &view);
            let failed = failed_there(node, service, sources);
            for reason in failed.into_iter().chain(domains.refusal(node)) {
                match &mut verdict {
                    Verdict::Refused(reasons) => reasons.push(reason),
                    Verdict::Fit { .. } => verdict = Verdict::Refused(vec![reason]),
                }
            }
            Some(NodeExplanation {
                node,
                name: report.name.clone(),
                standing: known.standing,
                silent_since: known.silent_since,
                verdict,
            })
        })
        .collect();
    nodes.sort_by_key(|n| match &n.verdict {
        Verdict::Fit { score } => (0, domains.cost(n.node), std::cmp::Reverse(*score), n.node),
        Verdict::Refused(_) => (1, 0, std::cmp::Reverse(0), n.node),
    });
    nodes
}

/// A node's own experience with this revision, which its register does not tell: this node's
/// directly, others' from their last refusal.
fn failed_there(node: NodeId, service: &Service, sources: &Sources<'_>) -> Option<Reason> {
    if node == sources.cluster.me() {
        return (sources.own_refusal)(&service.revision);
    }
    let round = sources.last_round?;
    if round.revision != service.revision {
        return None;
    }
    let (_, reasons) = round.refusals.iter().find(|(n, _)| *n == node)?;
    let mut reasons = reasons.iter();
    reasons
        .find(|r| matches!(r, Reason::FailedHere { .. }))
        .cloned()
}

fn replicated_slots(service: &Service) -> u32 {
    match service.spec.mode {
        Mode::Replicated => service.wanted_replicas(),
        Mode::Global => 0,
    }
}

/// A daemon service wants a replica on every node that takes or has one.
fn wanted(service: &Service, nodes: &[NodeExplanation]) -> u32 {
    match service.spec.mode {
        Mode::Replicated => service.wanted_replicas(),
        Mode::Global if !service.running => 0,
        Mode::Global => {
            let matching = nodes.iter().filter(|n| match &n.verdict {
                Verdict::Fit { .. } => true,
                Verdict::Refused(reasons) => !reasons.iter().any(|r| {
                    matches!(
                        r,
                        Reason::Constraint { .. } | Reason::Gone | Reason::Unavailable(_)
                    )
                }),
            });
            u32::try_from(matching.count()).unwrap_or(u32::MAX)
        }
    }
}

fn summarise(service: &Service, wanted: u32, ready: u32, cause: Option<&str>) -> String {
    match cause {
        _ if !service.running => "the service is stopped".to_owned(),
        None if service.is_job() => job(service),
        None if ready >= wanted => format!("all {wanted} replicas are ready"),
        None => format!("{ready} of {wanted} replicas are ready"),
        Some(cause) => format!("{ready} of {wanted} replicas are ready; {cause}"),
    }
}

/// Constraints that no node can ever meet, which is more than that none meets them now.
fn impossible(service: &Service, slots: &[SlotExplanation]) -> Option<String> {
    let global = service.spec.mode == Mode::Global;
    let waits = service.running && (global || slots.iter().any(|slot| slot.node.is_none()));
    let clash = contradiction(&service.spec.placement.constraints).filter(|_| waits)?;
    let clash: Vec<String> = clash.iter().map(|c| format!("'{c}'")).collect();
    Some(format!(
        "no node can ever take one: its constraints {} exclude each other",
        clash.join(" and ")
    ))
}

/// How the latest run of a job fares.
fn job(service: &Service) -> String {
    let runs = service.jobs.runs.iter();
    let Some((id, run)) = runs.max_by_key(|(_, run)| run.since) else {
        return "a job that has not run yet".to_owned();
    };
    match &run.result {
        None => format!(
            "a job; its run {id} is under way, {} parts are done",
            run.done.len()
        ),
        Some(result) => {
            let how = match result.outcome {
                Outcome::Succeeded => "ended with success",
                Outcome::Failed => "failed",
                Outcome::Cancelled => "was cancelled",
            };
            let reason = result.reason.as_ref();
            let reason = reason
                .map(|reason| format!(": {reason}"))
                .unwrap_or_default();
            format!("a job; its run {id} {how}{reason}")
        }
    }
}

/// That the service's namespace exceeds its quota, which stops nothing and adds nothing.
fn quota(key: &ServiceKey, sources: &Sources<'_>) -> String {
    let over = sources.desired.over_quota(key.namespace());
    if over.is_empty() {
        return String::new();
    }
    let over: Vec<String> = over.iter().map(ToString::to_string).collect();
    let namespace = key.namespace();
    format!(
        "; the namespace {namespace} is over its quota: {}",
        over.join(", ")
    )
}

/// What stands between a service and its goal: slots without a node, and replicas that are not
/// ready.
fn cause(
    slots: &[SlotExplanation],
    nodes: &[NodeExplanation],
    preempted: Option<String>,
) -> Option<String> {
    let mut parts = Vec::new();
    let vacant = slots.iter().filter(|s| s.node.is_none()).count();
    let fits = |n: &NodeExplanation| matches!(n.verdict, Verdict::Fit { .. });
    if vacant > 0
        && let Some(preempted) = preempted
    {
        parts.push(format!("{vacant} have no node: {preempted}"));
    } else if vacant > 0 && nodes.iter().any(fits) {
        parts.push(format!("{vacant} are being placed"));
    } else if vacant > 0 {
        let mut text = format!("{vacant} have no node, and no node would take one");
        if let Some((reason, count)) = telling_reason(nodes) {
            text.push_str(&format!(": {reason} ({count} of {} nodes)", nodes.len()));
        }
        parts.push(text);
    }
    let not_ready = slots
        .iter()
        .filter(|s| s.node.is_some() && !s.ready && s.phase != Some(Phase::Completed));
    if let Some(slot) = not_ready.clone().next() {
        let name = slot.node_name.as_deref().unwrap_or("a node");
        let message = slot.message.as_deref().unwrap_or("is not ready yet");
        let mut text = format!("slot {} on {name}: {message}", slot.slot);
        let others = not_ready.count() - 1;
        if others > 0 {
            text.push_str(&format!(" (and {others} more)"));
        }
        parts.push(text);
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The reason that tells most about the service, and how many nodes give it: a failed start before
/// what a node lacks, that before nodes which take nothing at all; then the commonest.
fn telling_reason(nodes: &[NodeExplanation]) -> Option<(String, usize)> {
    let mut counts: BTreeMap<String, (u8, usize)> = BTreeMap::new();
    for node in nodes {
        let Verdict::Refused(reasons) = &node.verdict else {
            continue;
        };
        if let Some(first) = reasons.iter().max_by_key(|r| weight(r)) {
            let entry = counts.entry(first.to_string()).or_default();
            *entry = (weight(first), entry.1 + 1);
        }
    }
    let (reason, (_, count)) = counts.into_iter().max_by_key(|(_, told)| *told)?;
    Some((reason, count))
}

/// How much a refusal says about the service rather than the node.
fn weight(reason: &Reason) -> u8 {
    match reason {
        Reason::DataElsewhere(_) => 3,
        Reason::FailedHere { .. } => 2,
        Reason::Gone | Reason::Unavailable(_) => 0,
        _ => 1,
    }
}
