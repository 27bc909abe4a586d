//! What a specification may say. The same checks run on a command before it is written and on
//! every register that a peer wrote, so that no decision ever sees an invalid specification.

mod autoscale;
mod files;
mod health;
mod job;
mod placement;

use std::collections::BTreeSet;
use std::net::IpAddr;

use thiserror::Error;

use crate::model::{
    Constraint, Policy, PortSpec, Protocol, Resources, RuntimeKind, ServiceSpec, TrafficPolicy,
    is_volume_name,
};
use crate::timetable::BadSchedule;

/// Replicas of one service. Above it a typing error is likelier than an intention: the design size
/// is 10,000 replicas in the whole cluster.
pub const MAX_REPLICAS: u32 = 10_000;

/// Replicas of one run of a job: which of them are done is recorded in one register.
pub const MAX_COMPLETIONS: u32 = 1_000;

/// Bytes of one register as stored: gossip carries it in one message, twice (value and history).
pub const MAX_REGISTER_BYTES: usize = 64 * 1024;

/// Bytes of all environment variables of a service; three quarters of a register, so that the
/// error names the environment and not the register.
pub const MAX_ENVIRONMENT_BYTES: usize = 48 * 1024;

/// Entries in each list of a specification (ports, volumes, constraints, anti-affinity, labels):
/// placement walks them for every candidate node.
pub(super) const MAX_LIST: usize = 128;

/// Characters of a short text: image, host name, user, paths. Twice what Docker allows in an image
/// reference.
pub(super) const MAX_TEXT: usize = 1024;

/// Longest time in a health check in milliseconds, one day.
const MAX_HEALTH_MS: u64 = 86_400_000;

/// Longest stop grace in milliseconds, one hour: a drain waits for it.
pub(super) const MAX_STOP_GRACE_MS: u64 = 3_600_000;

/// Longest time of the proxies in milliseconds, one day.
pub(super) const MAX_TRAFFIC_MS: u64 = 24 * 3_600_000;

/// What is wrong with a specification, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SpecFault {
    /// Neither image nor command.
    #[error("it says neither an image nor a command, so there is nothing to run; give one of them")]
    NothingToRun,
    /// Docker without an image.
    #[error("runtime 'docker' needs an image; name one or choose runtime 'process'")]
    DockerNeedsImage,
    /// Process without a command.
    #[error("runtime 'process' needs a command; give one or choose runtime 'docker'")]
    ProcessNeedsCommand,
    /// A text with a forbidden character.
    #[error(
        "{what} contains a forbidden character (white space in a name, a control or NUL character); remove it"
    )]
    BadText {
        /// Which text.
        what: String,
    },
    /// A text or list that is too long.
    #[error("{what} is too long: {len}, at most {max} are allowed")]
    TooLong {
        /// Which.
        what: String,
        /// Its length.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The environment is too large.
    #[error(
        "the environment takes {len} bytes, at most {max} are allowed; put large values into a file or volume"
    )]
    EnvironmentTooLarge {
        /// Its size.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// An unusable name of an environment variable.
    #[error("'{0}' cannot name an environment variable: it is empty or contains '=' or NUL")]
    BadVariable(String),
    /// Port 0.
    #[error("port 0 cannot be listened on or published; use 1 to 65535")]
    PortZero,
    /// Two entries for one port of the container.
    #[error("port {port}/{protocol} is listed twice; list each target port once")]
    DuplicateTarget {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// Two entries publish the same port.
    #[error("port {port}/{protocol} is published twice by this service; give each its own port")]
    DuplicatePublished {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
    },
    /// Not an address.
    #[error("'{0}' is not an IP address to publish a port on")]
    BadHostIp(String),
    /// A limit under the reservation.
    #[error(
        "the limit of {what} ({limit}) is below its reservation ({reservation}); raise the limit or lower the reservation"
    )]
    LimitBelowReservation {
        /// `cpu`, `memory` or `disk`.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The reservation.
        reservation: u64,
    },
    /// A constraint on something that nodes do not have.
    #[error(
        "'{0}' is nothing to put a constraint on; use {keys}, node.labels.<key> or node.devices.<name>",
        keys = Constraint::FACT_KEYS.join(", ")
    )]
    BadConstraintKey(String),
    /// A constraint that can be met nowhere because it makes no sense.
    #[error("a constraint makes no sense: {fault}; {fix}")]
    BadConstraint {
        /// What is wrong.
        fault: String,
        /// What to write instead.
        fix: String,
    },
    /// A preference that prefers nothing.
    #[error("a preference cannot have the weight {0}; use -100 to 100, and not 0")]
    BadPreference(i32),
    /// A weight out of range.
    #[error("{0} cannot have the weight {1}; use at most 100, and for a spread at least 1")]
    BadWeight(&'static str, u32),
    /// A priority out of range.
    #[error("the priority {0} is out of range; use -{max} to {max}", max = Policy::MAX_PRIORITY)]
    BadPriority(i32),
    /// Voters among whom there is no clear majority.
    #[error("a strict singleton cannot have {0} voters; name 1, 3, 5 or 7 different nodes")]
    BadVoters(usize),
    /// A patience with isolation that is too long to mean anything.
    #[error("an isolated node cannot wait {0} ms; at most a week ({max} ms) is allowed, or 'keep'", max = Policy::MAX_ISOLATED_MS)]
    BadIsolation(u64),
    /// More than all connections.
    #[error("split sends {0} of a hundred connections to the other service; use 0 to 100")]
    BadPercent(u8),
    /// A time of the proxies that is too long.
    #[error("{what} is longer than {max} ms; connections are not kept for that long")]
    TooSlow {
        /// Which.
        what: &'static str,
        /// The bound.
        max: u64,
    },
    /// A number that must not be zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// A volume that is no volume.
    #[error(
        "volume '{source_name}' -> '{target}': the source must be an absolute path, or a name of up to 128 letters, digits, '_', '-' and '.'; the target must be an absolute path, and each target may be used once"
    )]
    BadVolume {
        /// Its source.
        source_name: String,
        /// Its target.
        target: String,
    },
    /// A secret or config that cannot be a file.
    #[error(
        "the secret or config '{source_name}' cannot appear at '{target}': the target is a file name or an absolute path without '..', each once, and the mode at most 0777"
    )]
    BadFile {
        /// Its name.
        source_name: String,
        /// Its target.
        target: String,
    },
    /// A health check that checks nothing.
    #[error("the health check has an empty command; give one, or disable the check")]
    EmptyHealthCheck,
    /// A time beyond all use.
    #[error("a time in the health check is longer than a day; use a shorter one")]
    HealthTooLong,
    /// A request that cannot be sent.
    #[error(
        "the HTTP request of the health check cannot be sent: the path starts with '/', and path, host and headers hold plain ASCII"
    )]
    BadHttpTest,
    /// Not the name of a signal.
    #[error("'{0}' is not the name of a signal, such as SIGTERM")]
    BadSignal(String),
    /// A schedule that cannot be followed.
    #[error("the schedule of the job: {0}")]
    BadSchedule(#[from] BadSchedule),
    /// Something that a job cannot have.
    #[error("a job {0}")]
    BadJob(&'static str),
    /// Something that scaling by load cannot do.
    #[error("autoscale {0}")]
    BadAutoscale(String),
    /// Too long a grace.
    #[error(
        "a stop grace or drain time of {0} ms is too long; at most one hour (3600000 ms) is allowed"
    )]
    StopGraceTooLong(u64),
}

/// Checks a whole specification, its image folded in.
///
/// # Errors
/// The first fault found, in the order of the specification's fields.
pub fn check_spec(spec: &ServiceSpec) -> Result<(), SpecFault> {
    check_program(spec)?;
    check_environment(spec)?;
    check_list("labels", spec.labels.len())?;
    check_ports(&spec.ports)?;
    check_limits(spec.reservation, spec.limit)?;
    placement::check_placement(&spec.placement)?;
    placement::check_policy(&spec.policy)?;
    let mut policies = spec.rollback.iter().chain([&spec.update]);
    if policies.any(|policy| policy.parallelism == 0) {
        return Err(SpecFault::Zero("update parallelism"));
    }
    health::check_health(spec)?;
    check_volumes(spec)?;
    files::check_files(spec)?;
    check_list("networks", spec.networks.len())?;
    check_traffic(&spec.traffic)?;
    job::check_job(spec)?;
    autoscale::check_autoscale(spec)?;
    check_list("dependencies", spec.depends_on.len())?;
    check_stop(spec)
}

fn check_traffic(traffic: &TrafficPolicy) -> Result<(), SpecFault> {
    check_list("allow", traffic.allow.len())?;
    check_list("deny", traffic.deny.len())?;
    if traffic.max_connections == Some(0) {
        return Err(SpecFault::Zero("max-connections"));
    }
    if traffic
        .rate_limit
        .is_some_and(|r| r.per_second == 0 || r.burst == 0)
    {
        return Err(SpecFault::Zero("rate-limit"));
    }
    if let Some(percent) = traffic
        .split
        .as_ref()
        .map(|s| s.percent)
        .filter(|p| *p > 100)
    {
        return Err(SpecFault::BadPercent(percent));
    }
    for (what, time) in [
        ("connect-timeout", traffic.connect_timeout_ms),
        ("idle-timeout", traffic.idle_timeout_ms),
        ("drain", traffic.drain_ms),
    ] {
        if time.is_some_and(|t| t > MAX_TRAFFIC_MS) {
            return Err(SpecFault::TooSlow {
                what,
                max: MAX_TRAFFIC_MS,
            });
        }
    }
    for (what, time) in [
        ("connect-timeout", traffic.connect_timeout_ms),
        ("idle-timeout", traffic.idle_timeout_ms),
    ] {
        if time == Some(0) {
            return Err(SpecFault::Zero(what));
        }
    }
    Ok(())
}

fn check_program(spec: &ServiceSpec) -> Result<(), SpecFault> {
    let no_command = spec.command.is_empty() && spec.entrypoint.is_empty();
    match spec.runtime {
        RuntimeKind::Auto if spec.image.is_empty() && no_command => {
            return Err(SpecFault::NothingToRun);
        }
        RuntimeKind::Docker if spec.image.is_empty() => return Err(SpecFault::DockerNeedsImage),
        RuntimeKind::Process if no_command => return Err(SpecFault::ProcessNeedsCommand),
        RuntimeKind::Auto | RuntimeKind::Docker | RuntimeKind::Process => {}
    }
    check_image(&spec.image)?;
    for argument in spec.entrypoint.iter().chain(&spec.command) {
        check_no_nul("a command argument", argument)?;
    }
    let texts = [
        ("the working directory", &spec.working_dir),
        ("the user", &spec.user),
        ("the host name", &spec.hostname),
    ];
    for (what, text) in texts {
        check_text(what, text.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

/// Checks an image reference; the empty one means that there is none.
pub(super) fn check_image(image: &str) -> Result<(), SpecFault> {
    check_text("the image", image)?;
    if image.chars().any(char::is_whitespace) {
        return Err(SpecFault::BadText {
            what: "the image".to_owned(),
        });
    }
    Ok(())
}

fn check_text(what: &str, text: &str) -> Result<(), SpecFault> {
    if text.len() > MAX_TEXT {
        return Err(SpecFault::TooLong {
            what: what.to_owned(),
            len: text.len(),
            max: MAX_TEXT,
        });
    }
    if text.chars().any(char::is_control) {
        return Err(SpecFault::BadText {
            what: what.to_owned(),
        });
    }
    Ok(())
}

/// Arguments may span lines, but the operating system ends them at NUL.
fn check_no_nul(what: &str, text: &str) -> Result<(), SpecFault> {
    if text.contains('\0') {
        return Err(SpecFault::BadText {
            what: what.to_owned(),
        });
    }
    Ok(())
}

fn check_list(what: &str, len: usize) -> Result<(), SpecFault> {
    if len > MAX_LIST {
        return Err(SpecFault::TooLong {
            what: format!("the list of {what}"),
            len,
            max: MAX_LIST,
        });
    }
    Ok(())
}

fn check_environment(spec: &ServiceSpec) -> Result<(), SpecFault> {
    let mut total = 0_usize;
    for (name, value) in &spec.environment {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(SpecFault::BadVariable(name.chars().take(80).collect()));
        }
        check_no_nul(&format!("the environment variable {name}"), value)?;
        total = total.saturating_add(name.len() + value.len());
    }
    if total > MAX_ENVIRONMENT_BYTES {
        return Err(SpecFault::EnvironmentTooLarge {
            len: total,
            max: MAX_ENVIRONMENT_BYTES,
        });
    }
    Ok(())
}

fn check_ports(ports: &[PortSpec]) -> Result<(), SpecFault> {
    check_list("ports", ports.len())?;
    let mut targets = BTreeSet::new();
    let mut published = BTreeSet::new();
    for spec in ports {
        let protocol = spec.protocol;
        if spec.target == 0 || spec.published == Some(0) {
            return Err(SpecFault::PortZero);
        }
        if !targets.insert((spec.target, protocol)) {
            let port = spec.target;
            return Err(SpecFault::DuplicateTarget { port, protocol });
        }
        if let Some(port) = spec.published
            && !published.insert((port, protocol))
        {
            return Err(SpecFault::DuplicatePublished { port, protocol });
        }
        if let Some(ip) = &spec.host_ip
            && ip.parse::<IpAddr>().is_err()
        {
            return Err(SpecFault::BadHostIp(ip.chars().take(80).collect()));
        }
    }
    Ok(())
}

fn check_limits(reservation: Resources, limit: Resources) -> Result<(), SpecFault> {
    let pairs = [
        ("cpu", limit.cpu_millis, reservation.cpu_millis),
        ("memory", limit.memory, reservation.memory),
        ("disk", limit.disk, reservation.disk),
    ];
    for (what, limit, reservation) in pairs {
        if limit != 0 && limit < reservation {
            return Err(SpecFault::LimitBelowReservation {
                what,
                limit,
                reservation,
            });
        }
    }
    Ok(())
}

fn check_volumes(spec: &ServiceSpec) -> Result<(), SpecFault> {
    check_list("volumes", spec.volumes.len())?;
    let mut targets = BTreeSet::new();
    for volume in &spec.volumes {
        check_text("the source of a volume", &volume.source)?;
        check_text("the target of a volume", &volume.target)?;
        let named = volume.is_bind() || is_volume_name(&volume.source);
        let fine = named && volume.target.starts_with('/') && targets.insert(&volume.target);
        if !fine {
            return Err(SpecFault::BadVolume {
                source_name: volume.source.clone(),
                target: volume.target.clone(),
            });
        }
    }
    Ok(())
}

fn check_stop(spec: &ServiceSpec) -> Result<(), SpecFault> {
    for signal in spec.stop_signal.iter().chain(&spec.secret_signal) {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '-';
        if signal.is_empty() || signal.len() > 16 || !signal.chars().all(known) {
            return Err(SpecFault::BadSignal(signal.chars().take(80).collect()));
        }
    }
    let mut times = [spec.stop_grace_ms, spec.drain_ms].into_iter().flatten();
    match times.find(|ms| *ms > MAX_STOP_GRACE_MS) {
        Some(grace) => Err(SpecFault::StopGraceTooLong(grace)),
        None => Ok(()),
    }
}

/// Checks labels that the cluster gives a node.
pub(super) fn check_labels<'a>(
    labels: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
) -> Result<(), SpecFault> {
    check_list("labels", labels.len())?;
    for (key, value) in labels {
        check_text("the key of a label", key)?;
        check_text("the value of a label", value)?;
        if key.is_empty() || key.chars().any(char::is_whitespace) {
            return Err(SpecFault::BadText {
                what: "the key of a label".to_owned(),
            });
        }
    }
    Ok(())
}
