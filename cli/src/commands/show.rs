//! How the cluster's words look in cells that several commands print.

use dunlin_api::{AutoscaleStatus, Node, NodeState, Replica};
use dunlin_state::model::{
    Availability, Endpoint, ExitReport, Mode, Phase, PortSpec, Protocol, RuntimeKind, Slot,
};
use dunlin_state::windows::in_words;

use crate::output::{Cell, Tone};

/// The bounds of a service that follows its load, and why it has as many replicas as it has.
pub(super) fn autoscale(status: &AutoscaleStatus) -> String {
    let bounds = format!("{}..{} replicas", status.min, status.max);
    let reason = status.reason.as_deref().unwrap_or("nobody has decided yet");
    // A register may say anything.
    let reason = reason.replace(char::is_control, " ");
    let by = status.decided_by.as_deref();
    let by = by.map(|node| format!(" (decided by {node})"));
    format!("{bounds}: {reason}{}", by.unwrap_or_default())
}

/// A phase, as people say it.
pub(super) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Claimed => "claimed",
        Phase::Preparing => "preparing",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::BackOff => "back-off",
        Phase::CrashLoop => "crash loop",
        Phase::Completed => "completed",
        Phase::Failed => "failed",
        Phase::Stopping => "stopping",
    }
}

/// A replica's state with what qualifies it.
pub(super) fn status(replica: &Replica) -> Cell {
    // What a node last said of its replicas is no longer so once it is gone.
    if let NodeState::Down | NodeState::Left = replica.node_state {
        let text = format!("lost (node {})", node_state(replica.node_state));
        return Cell::toned(text, Tone::Bad);
    }
    let mut text = match (replica.phase, replica.ready) {
        (Phase::Running, true) => "ready".to_owned(),
        (Phase::Running, false) => "running, not ready".to_owned(),
        (other, _) => phase(other).to_owned(),
    };
    let mut tone = phase_tone(replica.phase, replica.ready);
    if replica.leaving {
        text.push_str(", leaving");
        tone = Tone::Warn;
    }
    if replica.superseded {
        text.push_str(", superseded");
        tone = Tone::Dim;
    }
    match replica.node_state {
        NodeState::Alive | NodeState::Down | NodeState::Left => {}
        NodeState::Suspect => {
            text.push_str(&format!(" (node {})", node_state(replica.node_state)));
            tone = Tone::Bad;
        }
    }
    Cell::toned(text, tone)
}

/// What colour a phase has.
pub(super) fn phase_tone(phase: Phase, ready: bool) -> Tone {
    match phase {
        Phase::Running if ready => Tone::Good,
        Phase::Claimed | Phase::Preparing | Phase::Starting | Phase::Running | Phase::Stopping => {
            Tone::Warn
        }
        Phase::BackOff | Phase::CrashLoop | Phase::Failed => Tone::Bad,
        Phase::Completed => Tone::Dim,
    }
}

/// `ready/wanted`, green when whole.
pub(super) fn fraction(ready: u32, wanted: u32, autoscale: Option<&AutoscaleStatus>) -> Cell {
    let tone = match ready {
        _ if ready >= wanted => Tone::Good,
        0 => Tone::Bad,
        _ => Tone::Warn,
    };
    let bounds = autoscale.map(|a| format!(" (auto {}..{})", a.min, a.max));
    Cell::toned(
        format!("{ready}/{wanted}{}", bounds.unwrap_or_default()),
        tone,
    )
}

/// What is believed of a node.
pub(super) fn node_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Alive => "alive",
        NodeState::Suspect => "suspect",
        NodeState::Down => "down",
        NodeState::Left => "left",
    }
}

/// The same as a cell.
pub(super) fn node_state_cell(state: NodeState) -> Cell {
    let tone = match state {
        NodeState::Alive => Tone::Good,
        NodeState::Suspect => Tone::Warn,
        NodeState::Down => Tone::Bad,
        NodeState::Left => Tone::Dim,
    };
    Cell::toned(node_state(state), tone)
}

/// Whether a node takes replicas.
/// Whether a node takes replicas, and until when not while it is worked on.
pub(super) fn node_availability(node: &Node) -> Cell {
    match node.maintenance.until {
        Some(until) => {
            let text = format!("maintenance until {}", in_words(until));
            Cell::toned(text, Tone::Warn)
        }
        None => availability(node.availability),
    }
}

fn availability(availability: Availability) -> Cell {
    match availability {
        Availability::Active => Cell::from("active"),
        Availability::Cordoned => Cell::toned("cordoned", Tone::Warn),
        Availability::Drained => Cell::toned("drained", Tone::Warn),
    }
}

/// How many replicas a service has, as a rule.
pub(super) fn mode(mode: Mode, job: bool) -> &'static str {
    match (mode, job) {
        (Mode::Replicated, false) => "replicated",
        (Mode::Global, false) => "global",
        (Mode::Replicated, true) => "replicated-job",
        (Mode::Global, true) => "global-job",
    }
}

/// A runtime, as `--runtime` takes it.
pub(super) fn runtime(kind: RuntimeKind) -> &'static str {
    match kind {
        RuntimeKind::Auto => "auto",
        RuntimeKind::Process => "process",
        RuntimeKind::Docker => "docker",
    }
}

/// A protocol, as ports name it.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Ports as Docker writes them: `8080->80/tcp, 53/udp`.
pub(super) fn ports(ports: &[PortSpec]) -> String {
    let each = ports.iter().map(|port| {
        let inside = format!("{}/{}", port.target, protocol(port.protocol));
        match (port.published, &port.host_ip) {
            (Some(published), Some(ip)) => format!("{ip}:{published}->{inside}"),
            (Some(published), None) => format!("{published}->{inside}"),
            (None, _) => inside,
        }
    });
    each.collect::<Vec<_>>().join(", ")
}

/// Where a replica answers: `10.0.0.2:31234` for each port, with its name when there are several.
pub(super) fn endpoints(endpoints: &[Endpoint]) -> String {
    if let [one] = endpoints {
        return match one.protocol {
            Protocol::Tcp => one.address.to_string(),
            Protocol::Udp => format!("{}/udp", one.address),
        };
    }
    let each = endpoints
        .iter()
        .map(|e| format!("{}/{}={}", e.target, protocol(e.protocol), e.address));
    each.collect::<Vec<_>>().join(" ")
}

/// What a service runs: its image, or the command line of a host process.
pub(super) fn workload(image: &str, command: &[String]) -> String {
    if image.is_empty() {
        command.join(" ")
    } else {
        image.to_owned()
    }
}

/// How a replica ended.
pub(super) fn exit(exit: &ExitReport) -> String {
    let memory = if exit.oom {
        ", out of memory (OOM)"
    } else {
        ""
    };
    format!("exit code {}{memory}", exit.code)
}

/// The beginning of a hash: enough to tell revisions apart.
pub(super) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// A slot after its service's name: `web.0`.
pub(super) fn slot_name(service: &str, slot: Slot) -> String {
    format!("{service}.{slot}")
}
