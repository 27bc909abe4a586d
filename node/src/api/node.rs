//! This node: what it is, how it is doing, tickets, leaving.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use dunlin_api::{
    ChangeResponse, Check, CheckStatus, Counts, DnsStatus, DoctorReport, DocumentStatus, NodeState,
    NodeStatus, VersionInfo,
};
use dunlin_core::engine::Engine;
use dunlin_gossip::membership::MemberState;
use dunlin_trust::{ClusterId, Credential, Role, Seconds, Verified};

use super::failure::Answer;
use super::{Context, views};
use crate::daemon::clock::wall_millis;
use crate::host;
use crate::runtime::RuntimesHandle;

/// How long replicas may take to end when their node leaves; what is left is killed by nobody.
const LEAVE_DEADLINE: Duration = Duration::from_secs(20);
const LEAVE_POLL: Duration = Duration::from_millis(50);
/// Below this the state of a large cluster, or a few logs of replicas, no longer fit, bytes.
const LOW_SPACE: u64 = 64 << 20;
/// Seconds of a day.
const DAY: Seconds = 24 * 3_600;
/// Seconds before a certificate's end from which people are warned: a month has somebody who looks.
const SOON: Seconds = 30 * DAY;

/// What does not change while the daemon runs.
pub(crate) struct NodeInfo {
    pub(crate) version: String,
    pub(crate) cluster: ClusterId,
    pub(crate) address: SocketAddr,
    pub(crate) api: PathBuf,
    pub(crate) profile: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) started: Instant,
    /// Where other members should be.
    pub(crate) asked: Vec<SocketAddr>,
    /// What was wrong and got mended at the start, in words.
    pub(crate) notes: Vec<String>,
    pub(crate) runtimes: RuntimesHandle,
    /// Where it answers DNS queries, if it does.
    pub(crate) dns: Option<DnsStatus>,
}

/// For probes: that the daemon answers, and nothing more.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

pub(super) async fn version(State(context): State<Context>) -> Json<VersionInfo> {
    Json(VersionInfo::of_this_host(&context.info.version))
}

pub(super) async fn openapi() -> impl axum::response::IntoResponse {
    (
        [(axum::http::header::CONTENT_TYPE, "application/json")],
        dunlin_api::OPENAPI_JSON,
    )
}

pub(super) async fn status(State(context): State<Context>) -> Answer<NodeStatus> {
    let (node, document, counts) = context
        .engine
        .ask(|engine| (views::this_node(engine), document(engine), counts(engine)))
        .await?;
    let info = &context.info;
    Ok(Json(NodeStatus {
        node,
        cluster: info.cluster.to_string(),
        api: format!("unix://{}", info.api.display()),
        profile: info.profile.clone(),
        data_dir: info.data_dir.display().to_string(),
        pid: std::process::id(),
        uptime_ms: u64::try_from(info.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        rss: host::resident_bytes(),
        dns: info.dns.clone(),
        document,
        counts,
        removed: context.removed.is_cancelled(),
    }))
}

fn document(engine: &Engine) -> DocumentStatus {
    let id = engine.document_id();
    DocumentStatus {
        id: format!(
            "{}-{}",
            id.epoch,
            data_encoding::HEXLOWER.encode(&id.root[..6])
        ),
        heads: data_encoding::HEXLOWER.encode(&engine.fingerprint()[..6]),
        changes: engine.change_count() as u64,
    }
}

fn counts(engine: &Engine) -> Counts {
    let states = views::states(engine);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let me = engine.me().node;
    Counts {
        alive: count(states.values().filter(|s| **s == NodeState::Alive).count()),
        nodes: count(states.len()),
        services: count(engine.desired().services.len()),
        replicas: count(engine.observed().map(|r| r.report.claims.len()).sum()),
        replicas_here: count(engine.register(me).map_or(0, |r| r.report.claims.len())),
        connections: count(engine.connected().len()),
    }
}

pub(super) async fn leave(State(context): State<Context>) -> Answer<ChangeResponse> {
    context.engine.leave()?;
    let deadline = Instant::now() + LEAVE_DEADLINE;
    while Instant::now() < deadline && !context.engine.ask(|e| e.report().claims.is_empty()).await?
    {
        tokio::time::sleep(LEAVE_POLL).await;
    }
    context.left.cancel();
    Ok(Json(ChangeResponse { changed: true }))
}

pub(super) async fn doctor(State(context): State<Context>) -> Answer<DoctorReport> {
    let (node, alone, mut checks) = context
        .engine
        .ask(|engine| {
            (
                views::this_node(engine),
                alone(engine),
                cluster_checks(engine),
            )
        })
        .await?;
    checks.insert(0, joined(&context.info, alone));
    checks.extend(host_checks(&context.info, &node));
    Ok(Json(DoctorReport {
        node: node.id,
        name: node.name,
        checks,
    }))
}

/// Whether this node hears no other member.
pub(crate) fn alone(engine: &Engine) -> bool {
    let heard = |state| matches!(state, MemberState::Alive | MemberState::Suspect);
    !engine.members().iter().any(|m| heard(m.state))
}

fn joined(info: &NodeInfo, alone: bool) -> Check {
    let asked: Vec<String> = info.asked.iter().map(ToString::to_string).collect();
    check(
        "cluster",
        CheckStatus::Warn,
        asked.is_empty() || !alone,
        if alone {
            "this node is the only one"
        } else {
            "other members are heard"
        },
        &format!("nobody answers at {}", asked.join(", ")),
        "start a member there, let UDP pass both ways, or join with a newer ticket",
    )
}

fn cluster_checks(engine: &Engine) -> Vec<Check> {
    let nodes = views::nodes(engine);
    let named = |wanted: NodeState| -> Vec<&str> {
        nodes
            .iter()
            .filter(|n| n.state == wanted)
            .map(|n| n.name.as_str())
            .collect()
    };
    let silent = [named(NodeState::Suspect), named(NodeState::Down)].concat();
    let mut names: Vec<&str> = nodes
        .iter()
        .filter(|n| n.state == NodeState::Alive)
        .map(|n| n.name.as_str())
        .collect();
    names.sort_unstable();
    let twins: Vec<&str> = names
        .windows(2)
        .filter(|w| w[0] == w[1])
        .map(|w| w[0])
        .collect();
    let invalid: Vec<String> = engine
        .invalid()
        .iter()
        .map(|r| format!("{}: {}", r.key, r.reason))
        .collect();
    vec![
        check(
            "nodes answer",
            CheckStatus::Warn,
            silent.is_empty(),
            &format!("{} alive", named(NodeState::Alive).len()),
            &format!("silent: {}", silent.join(", ")),
            "look at those hosts and their links",
        ),
        check(
            "node names differ",
            CheckStatus::Warn,
            twins.is_empty(),
            "all names differ",
            &format!("used twice: {}", twins.join(", ")),
            "restart one of them with another --name; until then name them by id",
        ),
        check(
            "desired state is valid",
            CheckStatus::Warn,
            invalid.is_empty(),
            "every register is understood",
            &invalid.join("; "),
            "upgrade this node, or write these registers again",
        ),
        certificates(
            engine.credentials().iter().map(Credential::verified),
            wall_millis() / 1_000,
        ),
    ]
}

/// A node renews its own certificate; what an admin has granted ends.
fn certificates<'a>(all: impl Iterator<Item = &'a Verified>, now: Seconds) -> Check {
    let ends: Vec<String> = all
        .filter(|c| c.role().is_some_and(|role| *role != Role::Node))
        .filter(|c| c.not_after <= now.saturating_add(SOON))
        .map(|c| match c.not_after.checked_sub(now) {
            Some(left) => format!(
                "that of this node as {} ends in {} days",
                c.power,
                left / DAY
            ),
            None => format!("that of this node as {} has ended", c.power),
        })
        .collect();
    check(
        "certificates",
        CheckStatus::Warn,
        ends.is_empty(),
        "none ends soon",
        &ends.join("; "),
        "have an admin's node make a ticket of that role (dunlin ticket --role ROLE), and start this \
         node with dunlin up --join TICKET",
    )
}

fn host_checks(info: &NodeInfo, node: &dunlin_api::Node) -> Vec<Check> {
    let limits = info.runtimes.offer().notes;
    vec![
        check(
            "disk",
            CheckStatus::Fail,
            node.disk_ok,
            "accepts writes",
            "the last write failed: this node takes no new work",
            &format!("free space on {}", info.data_dir.display()),
        ),
        disk_space(&info.data_dir),
        check(
            "runtimes",
            CheckStatus::Warn,
            !node.runtimes.is_empty(),
            &node.runtimes.join(", "),
            "none",
            "start Docker, or offer processes with --runtime process",
        ),
        check(
            "runtime limits",
            CheckStatus::Warn,
            limits.is_empty(),
            "CPU and memory limits are enforced",
            &limits.join("; "),
            "run the daemon as root, or delegate a cgroup to its user",
        ),
        check(
            "start",
            CheckStatus::Warn,
            info.notes.is_empty(),
            "clean",
            &info.notes.join("; "),
            "see the log of the daemon's start",
        ),
    ]
}

/// Small changes may still fit when large ones no longer do.
fn disk_space(data_dir: &Path) -> Check {
    let free = host::free_bytes(data_dir);
    let free_mib = free.map_or(0, |bytes| bytes >> 20);
    check(
        "disk space",
        CheckStatus::Warn,
        free.is_none_or(|bytes| bytes >= LOW_SPACE),
        &format!("{free_mib} MiB free"),
        &format!("only {free_mib} MiB free for the state and the logs of replicas"),
        &format!("free space on {}", data_dir.display()),
    )
}

fn check(
    name: &str,
    otherwise: CheckStatus,
    fine: bool,
    when_fine: &str,
    when_not: &str,
    fix: &str,
) -> Check {
    let (status, detail) = if fine {
        (CheckStatus::Ok, when_fine)
    } else {
        (otherwise, when_not)
    };
    Check {
        name: name.to_owned(),
        status,
        detail: detail.to_owned(),
        fix: (!fine).then(|| fix.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use dunlin_trust::{Founding, SecretKey, issue_role};

    use super::*;

    #[test]
    fn people_are_warned_a_month_before_a_granted_certificate_ends() {
        let (admin, operator) = [1, 2].map(|n| SecretKey::from_seed([n; 32])).into();
        let founding = Founding::new([3; 32], [4; 32], admin.public(), 0);
        let root = founding.root.public();
        let admin = Credential::new(admin, founding.admin, &root).unwrap();
        let role = "operator:shop".parse().unwrap();
        let chain = issue_role(ClusterId::of(&root), &admin, operator.public(), role, 0);
        let granted = chain.verify(&root).unwrap();
        let node = founding.node.verify(&root).unwrap();
        let year = granted.not_after;
        let look = |now| certificates([&granted, &node].into_iter(), now);
        assert_eq!(look(year - SOON - 1).status, CheckStatus::Ok);
        let soon = look(year - 10 * DAY);
        assert_eq!(soon.status, CheckStatus::Warn);
        assert!(
            soon.detail.contains("operator:shop ends in 10 days"),
            "{}",
            soon.detail
        );
        assert!(
            soon.fix
                .is_some_and(|fix| fix.contains("dunlin ticket --role"))
        );
        assert!(look(year + 1).detail.contains("has ended"));
    }
}
