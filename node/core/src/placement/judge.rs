//! The verdict itself.

use dunlin_state::model::{Availability, Resources, RuntimeKind, ServiceKey, ServiceSpec};
use serde::{Deserialize, Serialize};

use super::score::score;
use super::{NodeView, Reason, facts};
use crate::liveness::Standing;

/// Whether a node may take a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may; the higher the score, the better.
    Fit {
        /// Comparable between nodes for one service only.
        score: i64,
    },
    /// It may not, for all these reasons.
    Refused(Vec<Reason>),
}

/// Judges one more replica of `service` on the node.
pub fn judge(spec: &ServiceSpec, service: &ServiceKey, node: &NodeView) -> Verdict {
    let mut reasons = Vec::new();
    refuse_by_state(node, &mut reasons);
    refuse_by_constraints(spec, node, &mut reasons);
    refuse_by_runtime(spec, node, &mut reasons);
    refuse_by_company(spec, service, node, &mut reasons);
    refuse_by_resources(spec, node, &mut reasons);
    if reasons.is_empty() {
        let score = score(spec, service, node);
        Verdict::Fit { score }
    } else {
        Verdict::Refused(reasons)
    }
}

/// Scores of the first, second, … further replica, at most `slots` of them, for as long as they
/// fit; or why not even one does.
pub fn marginal_scores(
    spec: &ServiceSpec,
    service: &ServiceKey,
    node: &NodeView,
    slots: u32,
) -> Result<Vec<i64>, Vec<Reason>> {
    let mut scores = Vec::new();
    let mut filled = node.clone();
    for _ in 0..slots {
        match judge(spec, service, &filled) {
            Verdict::Fit { score } => scores.push(score),
            Verdict::Refused(reasons) if scores.is_empty() => return Err(reasons),
            Verdict::Refused(_) => break,
        }
        filled.committed = filled.committed.plus(spec.reservation);
        filled.host_ports.extend(spec.host_ports());
        *filled.services.entry(service.clone()).or_default() += 1;
    }
    Ok(scores)
}

/// The runtime that would start the service on a node which offers `runtimes`.
pub fn resolve_runtime(spec: &ServiceSpec, runtimes: &[String]) -> Result<RuntimeKind, Reason> {
    let offers = |name: &str| runtimes.iter().any(|r| r == name);
    match spec.runtime {
        RuntimeKind::Docker if offers("docker") => Ok(RuntimeKind::Docker),
        RuntimeKind::Docker => Err(Reason::Runtime("docker".to_owned())),
        RuntimeKind::Process => resolve_process(spec, offers("process")),
        RuntimeKind::Auto if !spec.image.is_empty() && offers("docker") => Ok(RuntimeKind::Docker),
        RuntimeKind::Auto => resolve_process(spec, offers("process")),
    }
}

fn resolve_process(spec: &ServiceSpec, offered: bool) -> Result<RuntimeKind, Reason> {
    if spec.command.is_empty() && spec.entrypoint.is_empty() {
        Err(Reason::NoCommand)
    } else if offered {
        Ok(RuntimeKind::Process)
    } else {
        Err(Reason::Runtime("process".to_owned()))
    }
}

fn refuse_by_state(node: &NodeView, reasons: &mut Vec<Reason>) {
    match node.standing {
        Standing::Alive => {}
        Standing::Suspect => reasons.push(Reason::Suspect),
        Standing::Gone | Standing::Left => reasons.push(Reason::Gone),
    }
    match (node.maintenance, node.availability) {
        (Some(until), _) => reasons.push(Reason::Maintenance { until }),
        (None, Availability::Active) => {}
        (None, Availability::Cordoned | Availability::Drained) => {
            reasons.push(Reason::Unavailable(node.availability));
        }
    }
    if !node.disk_ok {
        reasons.push(Reason::DiskFailing);
    }
}

fn refuse_by_constraints(spec: &ServiceSpec, node: &NodeView, reasons: &mut Vec<Reason>) {
    for constraint in &spec.placement.constraints {
        let actual = facts::value(constraint.key(), node);
        if !constraint.holds(actual.as_deref()) {
            reasons.push(Reason::Constraint {
                constraint: constraint.clone(),
                actual,
            });
        }
    }
}

/// Whether all placement constraints hold on the node.
pub fn matches_constraints(spec: &ServiceSpec, node: &NodeView) -> bool {
    let mut constraints = spec.placement.constraints.iter();
    constraints.all(|c| c.holds(facts::value(c.key(), node).as_deref()))
}

fn refuse_by_runtime(spec: &ServiceSpec, node: &NodeView, reasons: &mut Vec<Reason>) {
    if let Err(reason) = resolve_runtime(spec, &node.runtimes) {
        reasons.push(reason);
    }
}

fn refuse_by_company(
    spec: &ServiceSpec,
    service: &ServiceKey,
    node: &NodeView,
    reasons: &mut Vec<Reason>,
) {
    if let Some(max) = spec.placement.max_per_node
        && node.services.get(service).copied().unwrap_or(0) >= max
    {
        reasons.push(Reason::MaxPerNode(max));
    }
    let mut unwanted: Vec<&ServiceKey> = spec
        .placement
        .anti_affinity
        .iter()
        .filter(|other| node.services.contains_key(*other))
        .collect();
    unwanted.extend(node.repelled.get(service));
    unwanted.sort();
    unwanted.dedup();
    let unwanted = unwanted.into_iter().cloned();
    reasons.extend(unwanted.map(Reason::AntiAffinity));
    let missed = spec.placement.affinity.iter();
    let missed = missed
        .filter(|other| !node.services.contains_key(*other))
        .cloned();
    reasons.extend(missed.map(Reason::Affinity));
}

fn refuse_by_resources(spec: &ServiceSpec, node: &NodeView, reasons: &mut Vec<Reason>) {
    let before = reasons.len();
    let need = spec.reservation;
    let unclaimed = node.capacity.minus(node.committed);
    let free = node.free();
    if need.cpu_millis > unclaimed.cpu_millis {
        reasons.push(Reason::Cpu {
            need: need.cpu_millis,
            free: unclaimed.cpu_millis,
            total: node.capacity.cpu_millis,
        });
    }
    if need.memory > unclaimed.memory {
        reasons.push(Reason::Memory {
            need: need.memory,
            free: unclaimed.memory,
            total: node.capacity.memory,
        });
    }
    if need.disk > unclaimed.disk {
        reasons.push(Reason::Disk {
            need: need.disk,
            free: unclaimed.disk,
            total: node.capacity.disk,
        });
    }
    for port in spec.host_ports() {
        if node.host_ports.contains(&port) {
            reasons.push(Reason::HostPort(port));
        }
    }
    if reasons.len() == before && !need.fits_in(free) {
        reasons.push(Reason::Busy);
    }
}

/// Whether a replica that takes something is at stake in an auction: offers of nothing need no
/// hold and no release.
pub(crate) fn reserves_anything(spec: &ServiceSpec) -> bool {
    spec.reservation != Resources::ZERO || spec.host_ports().next().is_some()
}
