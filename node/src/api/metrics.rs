//! What the node counts, as text for Prometheus.
//!
//! Of services those whose namespaces the caller may read; of the node, everything. Counters live
//! as long as the service does on this node and start anew with the daemon.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use dunlin_api::{METRICS_TYPE, NodeState};
use dunlin_core::engine::Engine;
use dunlin_dns::DnsTally;
use dunlin_gossip::replication::Metrics as Replication;
use dunlin_lb::balance::Health;
use dunlin_lb::proxy::hop::HopView;
use dunlin_lb::{LATENCY_BUCKETS, PortView, Tally};

use super::failure::Failure;
use super::{Caller, Context, views};
use crate::host;

#[cfg(test)]
mod tests;
mod text;

use text::{Kind, Text};

/// What is shown of the node.
struct Node {
    version: String,
    uptime_s: f64,
    states: BTreeMap<&'static str, u64>,
    services: u64,
    replicas: u64,
    ready: u64,
    connections: u64,
    health: u8,
    changes: u64,
    replication: Replication,
}

pub(super) async fn show(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse, Failure> {
    let info = &context.info;
    let (version, uptime_s) = (info.version.clone(), info.started.elapsed().as_secs_f64());
    let look = move |engine: &Engine| Node::of(engine, version, uptime_s);
    let node = context.engine.ask(look).await?;
    let mut ports = context.traffic.proxies.ports(None);
    ports.retain(|port| caller.sees(port.port.service.namespace()));
    let mut text = Text::default();
    of_daemon(&mut text, &node);
    of_replication(&mut text, &node);
    of_proxies(&mut text, &ports);
    of_hop(&mut text, &context.traffic.hop.view());
    if let Some(names) = &context.traffic.names {
        of_names(&mut text, &names.tally());
    }
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text.finish()))
}

impl Node {
    fn of(engine: &Engine, version: String, uptime_s: f64) -> Self {
        let mut states: BTreeMap<_, u64> = ["alive", "suspect", "down", "left"]
            .map(|state| (state, 0))
            .into();
        for state in views::states(engine).values() {
            let name = match state {
                NodeState::Alive => "alive",
                NodeState::Suspect => "suspect",
                NodeState::Down => "down",
                NodeState::Left => "left",
            };
            *states.entry(name).or_default() += 1;
        }
        let own = engine.report().claims;
        Self {
            version,
            uptime_s,
            states,
            services: engine.desired().services.len() as u64,
            replicas: own.len() as u64,
            ready: own.iter().filter(|claim| claim.ready).count() as u64,
            connections: engine.connected().len() as u64,
            health: engine.local_health(),
            changes: engine.change_count() as u64,
            replication: engine.replication_metrics(),
        }
    }
}

fn of_daemon(text: &mut Text, node: &Node) {
    text.family("dunlin_build_info", Kind::Gauge, "Version of the daemon.");
    text.value(&[("version", &node.version)], 1);
    text.one(
        "dunlin_uptime_seconds",
        Kind::Gauge,
        "Time since the daemon started.",
        format_args!("{:.3}", node.uptime_s),
    );
    text.one(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory of the daemon.",
        host::resident_bytes(),
    );
    text.one(
        "process_open_fds",
        Kind::Gauge,
        "Open descriptors of the daemon.",
        host::open_descriptors(),
    );
    text.one(
        "process_cpu_seconds_total",
        Kind::Counter,
        "Processor time that the daemon has used.",
        format_args!("{:.3}", host::cpu_time().as_secs_f64()),
    );
    text.family(
        "dunlin_nodes",
        Kind::Gauge,
        "Members as this node sees them, itself included.",
    );
    for (state, count) in &node.states {
        text.value(&[("state", state)], count);
    }
    text.one(
        "dunlin_services",
        Kind::Gauge,
        "Services of the cluster.",
        node.services,
    );
    text.one(
        "dunlin_replicas",
        Kind::Gauge,
        "Replicas that this node holds.",
        node.replicas,
    );
    text.one(
        "dunlin_replicas_ready",
        Kind::Gauge,
        "Replicas of this node that may have traffic.",
        node.ready,
    );
    text.one(
        "dunlin_local_health",
        Kind::Gauge,
        "How ill this node believes itself to be, from 0 (healthy) to 4.",
        node.health,
    );
    text.one(
        "dunlin_control_connections",
        Kind::Gauge,
        "Control connections with other nodes.",
        node.connections,
    );
}

fn of_replication(text: &mut Text, node: &Node) {
    let counts = &node.replication;
    text.one(
        "dunlin_document_changes",
        Kind::Gauge,
        "Changes in the history of desired state.",
        node.changes,
    );
    text.family(
        "dunlin_proposals_total",
        Kind::Counter,
        "Changes of desired state that were asked of this node.",
    );
    text.value(&[("result", "accepted")], counts.proposals_accepted);
    text.value(&[("result", "refused")], counts.proposals_refused);
    text.value(&[("result", "busy")], counts.proposals_busy);
    for (name, help, count) in [
        (
            "dunlin_replication_changes_taken_total",
            "Changes of other nodes taken over.",
            counts.changes_taken,
        ),
        (
            "dunlin_replication_registers_taken_total",
            "Newer reports of other nodes taken over.",
            counts.registers_taken,
        ),
        (
            "dunlin_replication_messages_received_total",
            "Messages received from peers.",
            counts.messages_received,
        ),
        (
            "dunlin_replication_pushes_sent_total",
            "News sent to peers.",
            counts.pushes_sent,
        ),
        (
            "dunlin_replication_offences_total",
            "Messages of peers that were malformed or broke a bound.",
            counts.offences,
        ),
        (
            "dunlin_disk_refusals_total",
            "Writes that the disk refused.",
            counts.disk_refusals,
        ),
    ] {
        text.one(name, Kind::Counter, help, count);
    }
}

/// Where a count is read.
type Read = fn(&Tally) -> u64;

/// One of several counts of a family: what tells it apart.
type Part = (&'static str, Read);

/// Counters with one value for each port: name, meaning.
const COUNTERS: [(&str, &str, Read); 6] = [
    (
        "dunlin_proxy_connections_total",
        "Connections, or UDP sessions, that were accepted for a service on this node.",
        |t| t.connections,
    ),
    (
        "dunlin_proxy_received_bytes_total",
        "Bytes from clients.",
        |t| t.received,
    ),
    ("dunlin_proxy_sent_bytes_total", "Bytes to clients.", |t| {
        t.sent
    }),
    (
        "dunlin_proxy_retries_total",
        "Connects to a replica that failed and were made to another one or again.",
        |t| t.retries,
    ),
    (
        "dunlin_proxy_ejections_total",
        "Times that a replica was offered no connections for a while because it had failed some.",
        |t| t.ejections,
    ),
    (
        "dunlin_proxy_dropped_datagrams_total",
        "UDP datagrams of clients that found no room.",
        |t| t.dropped,
    ),
];

/// Connections that were not served, by reason.
const REFUSED: [Part; 5] = [
    ("denied", |t| t.denied),
    ("isolated", |t| t.isolated),
    ("rate", |t| t.limited),
    ("pending", |t| t.overflowed),
    ("no_replica", |t| t.unserved),
];

/// Connections that did not end by themselves, by reason.
const ENDED: [Part; 3] = [
    ("broken", |t| t.broken),
    ("idle", |t| t.idle),
    ("drained", |t| t.cut),
];

fn of_proxies(text: &mut Text, ports: &[PortView]) {
    let labels: Vec<[(&'static str, String); 4]> = ports.iter().map(labels).collect();
    let all = || ports.iter().zip(&labels);
    for (name, help, read) in COUNTERS {
        text.family(name, Kind::Counter, help);
        for (port, labels) in all() {
            text.value(labels, read(&port.tally));
        }
    }
    let by_reason = [
        (
            "dunlin_proxy_refused_total",
            "Connections that no replica got, by reason.",
            &REFUSED[..],
        ),
        (
            "dunlin_proxy_cut_total",
            "Connections that did not come to their own end, by reason.",
            &ENDED[..],
        ),
    ];
    for (name, help, parts) in by_reason {
        text.family(name, Kind::Counter, help);
        for (port, labels) in all() {
            for (reason, read) in parts {
                text.value_with(labels, ("reason", reason), read(&port.tally));
            }
        }
    }
    let name = "dunlin_proxy_connections_open";
    text.family(name, Kind::Gauge, "Connections that are open.");
    for (port, labels) in all() {
        text.value(labels, port.tally.active);
    }
    let name = "dunlin_proxy_connections_waiting";
    text.family(name, Kind::Gauge, "Connections that wait for a replica.");
    for (port, labels) in all() {
        text.value(labels, port.pending);
    }
    text.family(
        "dunlin_proxy_replicas",
        Kind::Gauge,
        "Replicas as this node's proxy treats them.",
    );
    for (port, labels) in all() {
        for (state, count) in states(port) {
            text.value_with(labels, ("state", state), count);
        }
    }
    text.family(
        "dunlin_proxy_connect_seconds",
        Kind::Histogram,
        "Time that a replica took to take a connection.",
    );
    for (port, labels) in all() {
        let tally = &port.tally;
        text.histogram(labels, &LATENCY_BUCKETS, &tally.latency, tally.latency_sum);
    }
}

fn labels(port: &PortView) -> [(&'static str, String); 4] {
    let key = &port.port;
    [
        ("namespace", key.service.namespace().to_owned()),
        ("service", key.service.name().to_owned()),
        ("port", key.target.to_string()),
        ("protocol", key.protocol.to_string()),
    ]
}

/// How many replicas of a port are used, ejected, or only have connections left.
fn states(port: &PortView) -> [(&'static str, u64); 3] {
    let (mut used, mut ejected, mut draining) = (0, 0, 0);
    for target in &port.targets {
        match target.health {
            _ if !target.listed => draining += 1,
            Health::Good { .. } => used += 1,
            Health::Ejected { .. } | Health::Probation { .. } => ejected += 1,
        }
    }
    [("used", used), ("ejected", ejected), ("draining", draining)]
}

fn of_names(text: &mut Text, names: &DnsTally) {
    let mut family = |name, help, label, values: &[(&str, u64)]| {
        text.family(name, Kind::Counter, help);
        for (value, count) in values {
            text.value(&[(label, *value)], count);
        }
    };
    family(
        "dunlin_dns_queries_total",
        "DNS queries of those who are let in, by transport.",
        "transport",
        &[("udp", names.udp), ("tcp", names.tcp)],
    );
    family(
        "dunlin_dns_outcomes_total",
        "What became of them: found, denied (no such name), refused, failed, others were asked, or \
         silence.",
        "outcome",
        &[
            ("found", names.found),
            ("denied", names.denied),
            ("refused", names.refused),
            ("failed", names.failed),
            ("asked", names.asked),
            ("silent", names.silent),
        ],
    );
}

fn of_hop(text: &mut Text, hop: &HopView) {
    text.one(
        "dunlin_hop_links",
        Kind::Gauge,
        "Other nodes that this node has a data connection with.",
        hop.links.len(),
    );
    text.one(
        "dunlin_hop_streams_open",
        Kind::Gauge,
        "Connections of other nodes' clients to replicas here that are open.",
        hop.served.active,
    );
    let counters: [(&str, &str, u64); 5] = [
        (
            "dunlin_hop_streams_total",
            "Connections that other nodes have brought to replicas here.",
            hop.served.connections,
        ),
        (
            "dunlin_hop_refused_total",
            "Those that no replica here took.",
            hop.served.unserved + hop.served.overflowed,
        ),
        (
            "dunlin_hop_broken_total",
            "Those that broke.",
            hop.served.broken,
        ),
        (
            "dunlin_hop_received_bytes_total",
            "Bytes of TCP from other nodes' clients.",
            hop.served.received,
        ),
        (
            "dunlin_hop_sent_bytes_total",
            "Bytes of TCP to other nodes' clients.",
            hop.served.sent,
        ),
    ];
    for (name, help, count) in counters {
        text.one(name, Kind::Counter, help, count);
    }
}
