//! Why a node does not take a replica, in words a person can act on.

use std::fmt;

use dunlin_state::model::{Availability, Constraint, ConstraintOp, HostPort, Protocol, ServiceKey};
use dunlin_state::windows::in_words;
use serde::{Deserialize, Serialize};

use super::facts;
use crate::volumes::Elsewhere;

/// One condition that a node fails for a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A placement constraint does not hold.
    Constraint {
        /// The constraint.
        constraint: Constraint,
        /// What the node has instead.
        actual: Option<String>,
    },
    /// Not enough CPU time, in thousandths of a core.
    Cpu {
        /// What a replica reserves.
        need: u64,
        /// What is free.
        free: u64,
        /// What there is.
        total: u64,
    },
    /// Not enough memory, in bytes.
    Memory {
        /// What a replica reserves.
        need: u64,
        /// What is free.
        free: u64,
        /// What there is.
        total: u64,
    },
    /// Not enough disk, in bytes.
    Disk {
        /// What a replica reserves.
        need: u64,
        /// What is free.
        free: u64,
        /// What there is.
        total: u64,
    },
    /// A host port is taken.
    HostPort(HostPort),
    /// The service's `max_per_node` is reached.
    MaxPerNode(u32),
    /// This service, or one on the node, refuses the other's company.
    AntiAffinity(ServiceKey),
    /// The node has no replica of a service that this one follows.
    Affinity(ServiceKey),
    /// The service would be spread too unevenly.
    Skew {
        /// Over the values of what.
        key: String,
        /// The node's value.
        value: Option<String>,
        /// Replicas at that value.
        here: u32,
        /// Replicas at the value that has the fewest.
        fewest: u32,
        /// By how many they may differ.
        max: u32,
    },
    /// The data of a volume is on another node, and nobody said that an empty one will do.
    DataElsewhere(Box<Elsewhere>),
    /// The node does not offer the runtime.
    Runtime(String),
    /// An image was given and only processes can be run, which need a command.
    NoCommand,
    /// The node is cordoned or drained.
    Unavailable(Availability),
    /// The node is worked on.
    Maintenance {
        /// Until when, in milliseconds since the Unix epoch.
        until: u64,
    },
    /// The node's disk does not accept writes.
    DiskFailing,
    /// The node misses its probes.
    Suspect,
    /// The node is gone.
    Gone,
    /// What is free is offered in another auction that is not over yet: try again at once.
    Busy,
    /// The node ends replicas of lower priorities to make room for this service.
    MakingRoom,
    /// The node has made room for this slot a moment ago, and it did not last.
    Cooling,
    /// The node sees too few of the others to take what must not run on the wrong side of a division.
    CutOff,
    /// The node has not heard of this revision.
    StaleSpec,
    /// Starting this revision failed here a moment ago.
    FailedHere {
        /// How it failed.
        reason: String,
        /// Seconds until the node is willing again.
        retry_s: u64,
    },
    /// The offer had lapsed when the award came.
    Lapsed,
    /// The node holds this slot already.
    HoldsSlot,
}

impl Reason {
    /// Whether the same question may well be answered otherwise within a second.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Busy | Self::MakingRoom | Self::StaleSpec | Self::Lapsed | Self::HoldsSlot => {
                true
            }
            Self::Constraint { .. }
            | Self::Cpu { .. }
            | Self::Memory { .. }
            | Self::Disk { .. }
            | Self::HostPort(_)
            | Self::MaxPerNode(_)
            | Self::AntiAffinity(_)
            | Self::Affinity(_)
            | Self::Skew { .. }
            | Self::DataElsewhere(_)
            | Self::Runtime(_)
            | Self::NoCommand
            | Self::Unavailable(_)
            | Self::Maintenance { .. }
            | Self::DiskFailing
            | Self::Suspect
            | Self::Gone
            | Self::Cooling
            | Self::CutOff
            | Self::FailedHere { .. } => false,
        }
    }

    /// What a person can do about it.
    pub fn fix(&self) -> String {
        match self {
            Self::Constraint { constraint, .. } => fix_constraint(constraint),
            Self::Cpu { need, free, .. } => format!(
                "free {} CPUs or lower deploy.resources.reservations.cpus",
                Cpus(need.saturating_sub(*free))
            ),
            Self::Memory { need, free, .. } => format!(
                "free {} or lower deploy.resources.reservations.memory",
                Bytes(need.saturating_sub(*free))
            ),
            Self::Disk { need, free, .. } => format!(
                "free {} or lower the disk reservation",
                Bytes(need.saturating_sub(*free))
            ),
            Self::HostPort(_) => "stop what holds the port, publish another one, or publish in \
                                  ingress mode"
                .to_owned(),
            Self::MaxPerNode(_) => {
                "raise deploy.placement.max_replicas_per_node or add a node".to_owned()
            }
            Self::AntiAffinity(other) => {
                format!("move {other} elsewhere, drop the anti-affinity, or add a node")
            }
            Self::Affinity(other) => {
                format!("start a replica of {other} there, or drop the affinity")
            }
            Self::Skew { key, .. } => {
                format!("make room at the other values of {key}, or raise max_skew")
            }
            Self::DataElsewhere(elsewhere) => elsewhere.fix(),
            Self::Runtime(name) if name == "docker" => {
                "start Docker or Podman there and let the daemon reach its socket, or use \
                 runtime: process"
                    .to_owned()
            }
            Self::Runtime(name) => format!("start that daemon with --runtime {name} or auto"),
            Self::NoCommand => {
                "give the service a command, or start Docker or Podman there".to_owned()
            }
            Self::Unavailable(Availability::Active) => "nothing to do".to_owned(),
            Self::Unavailable(Availability::Cordoned | Availability::Drained) => {
                "run `dunlin uncordon` for the node".to_owned()
            }
            Self::Maintenance { .. } => {
                "wait until then, or end it with `dunlin maintenance rm`".to_owned()
            }
            Self::DiskFailing => "free space or replace the disk of the data directory".to_owned(),
            Self::Suspect => "wait a moment; check the node's network and load if it stays".into(),
            Self::Gone => "start its daemon or check its network".to_owned(),
            Self::Busy | Self::MakingRoom | Self::StaleSpec | Self::Lapsed | Self::HoldsSlot => {
                "wait a moment: it is asked again by itself".to_owned()
            }
            Self::CutOff => "mend its network, or set on_isolation to keep".to_owned(),
            Self::Cooling => "wait a minute, and find out why the replica did not stay".to_owned(),
            Self::FailedHere { .. } => {
                "fix the cause, or deploy a corrected specification, which is tried at once"
                    .to_owned()
            }
        }
    }
}

fn fix_constraint(constraint: &Constraint) -> String {
    let (key, value) = (constraint.key(), constraint.value());
    let label = key.strip_prefix(Constraint::LABEL_PREFIX);
    match (label, constraint.op()) {
        (Some(label), ConstraintOp::Equal) => {
            format!("set the label {label}={value} on the node or drop the constraint")
        }
        (Some(label), _) => {
            format!("change the label {label} of the node or drop the constraint")
        }
        (None, _) => "add a node that matches or drop the constraint".to_owned(),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constraint { constraint, actual } => {
                write!(f, "needs {constraint}, ")?;
                let bytes = actual
                    .as_ref()
                    .filter(|_| facts::is_bytes(constraint.key()));
                match (actual, bytes.and_then(|b| b.parse().ok())) {
                    (_, Some(bytes)) => write!(f, "has {}", Bytes(bytes)),
                    (Some(actual), None) => write!(f, "has '{actual}'"),
                    (None, None) => f.write_str("has none"),
                }
            }
            Self::Cpu { need, free, total } => write!(
                f,
                "needs {} CPUs, {} of {} free",
                Cpus(*need),
                Cpus(*free),
                Cpus(*total)
            ),
            Self::Memory { need, free, total } => short_of(f, "memory", *need, *free, *total),
            Self::Disk { need, free, total } => short_of(f, "disk", *need, *free, *total),
            Self::HostPort(port) => write!(f, "host port {} is taken", PortText(*port)),
            Self::MaxPerNode(max) => write!(f, "already runs its maximum of {max} per node"),
            Self::AntiAffinity(other) => write!(f, "must not share a node with {other}"),
            Self::Affinity(other) => write!(f, "has no replica of {other}"),
            Self::Skew {
                key,
                value,
                here,
                fewest,
                max,
            } => {
                let value = value.as_deref().unwrap_or("none");
                write!(
                    f,
                    "{here} replicas are at {key} {value} and {fewest} elsewhere, which may differ \
                     by {max}"
                )
            }
            Self::DataElsewhere(elsewhere) => elsewhere.fmt(f),
            Self::Runtime(name) => write!(f, "does not offer the {name} runtime"),
            Self::NoCommand => f.write_str(
                "has no container engine, and a service with an image but no command cannot run \
                 as a process",
            ),
            Self::Unavailable(Availability::Active) => f.write_str("is active"),
            Self::Unavailable(Availability::Cordoned) => f.write_str("is cordoned"),
            Self::Unavailable(Availability::Drained) => f.write_str("is drained"),
            Self::Maintenance { until } => {
                write!(f, "is in maintenance until {}", in_words(*until))
            }
            Self::DiskFailing => f.write_str("its disk does not accept writes"),
            Self::Suspect => f.write_str("misses its probes"),
            Self::Gone => f.write_str("is gone"),
            Self::Busy => f.write_str("what it has free is on offer in another auction"),
            Self::MakingRoom => f.write_str("ends replicas of lower priorities to make room"),
            Self::Cooling => f.write_str("has made room for it a moment ago, which did not last"),
            Self::CutOff => f.write_str("sees fewer than half of the others"),
            Self::StaleSpec => f.write_str("has not heard of this revision yet"),
            Self::FailedHere { reason, retry_s } => {
                write!(f, "failed to start here, next try in {retry_s} s: {reason}")
            }
            Self::Lapsed => f.write_str("its offer had lapsed"),
            Self::HoldsSlot => f.write_str("holds this slot already"),
        }
    }
}

fn short_of(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    need: u64,
    free: u64,
    total: u64,
) -> fmt::Result {
    let (need, free, total) = (Bytes(need), Bytes(free), Bytes(total));
    write!(f, "needs {need} of {what}, {free} of {total} free")
}

/// Thousandths of a core as cores, with as many digits as needed.
struct Cpus(u64);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        if rest.is_multiple_of(100) {
            write!(f, "{whole}.{}", rest / 100)
        } else {
            write!(f, "{whole}.{rest:03}")
        }
    }
}

/// Bytes in the largest unit that keeps them readable.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] = [
            ("TiB", 1 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ];
        match UNITS.iter().find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) if self.0.is_multiple_of(*size) => {
                write!(f, "{} {unit}", self.0 / size)
            }
            Some((unit, size)) => {
                let tenths = u128::from(self.0) * 10 / u128::from(*size);
                write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} B", self.0),
        }
    }
}

struct PortText(HostPort);

impl fmt::Display for PortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.protocol {
            Protocol::Tcp => write!(f, "{}/tcp", self.0.port),
            Protocol::Udp => write!(f, "{}/udp", self.0.port),
        }
    }
}
