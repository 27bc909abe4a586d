//! The files of an attempt's directory: the daemon and the supervisor talk through them, also
//! across versions of the daemon, so fields are only ever added.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dunlin_core::io::WorkloadId;
use dunlin_state::model::{Networks, Protocol, SlotId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cgroup::CgroupPlan;
use crate::runtime::Deadline;

/// Where things are in an attempt's directory.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    directory: PathBuf,
}

impl Paths {
    /// The files of this attempt.
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// [`LaunchSpec`]; mode 0600, since the environment may hold secrets.
    pub(crate) fn spec(&self) -> PathBuf {
        self.directory.join("spec.json")
    }

    /// [`RunRecord`].
    pub(crate) fn run(&self) -> PathBuf {
        self.directory.join("run.json")
    }

    /// [`ExitRecord`].
    pub(crate) fn exit(&self) -> PathBuf {
        self.directory.join("exit.json")
    }

    /// Locked as long as the supervisor lives.
    pub(crate) fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// FIFO that takes `stop <signal number> <grace in ms>` lines.
    pub(crate) fn control(&self) -> PathBuf {
        self.directory.join("control")
    }

    /// What the supervisor itself had to say: empty unless it panicked.
    pub(crate) fn complaint(&self) -> PathBuf {
        self.directory.join("supervisor.err")
    }

    /// The workload's own resolv.conf.
    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.directory.join("resolv.conf")
    }

    /// The workload's working directory, unless its specification names one.
    pub(crate) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }
}

/// [`WorkloadId`] as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredId {
    /// The slot.
    pub(crate) slot: SlotId,
    /// The claim's epoch.
    pub(crate) epoch: u64,
    /// The attempt under that claim.
    pub(crate) attempt: u32,
}

impl From<&WorkloadId> for StoredId {
    fn from(id: &WorkloadId) -> Self {
        Self {
            slot: id.slot.clone(),
            epoch: id.epoch,
            attempt: id.attempt,
        }
    }
}

impl From<StoredId> for WorkloadId {
    fn from(id: StoredId) -> Self {
        Self {
            slot: id.slot,
            epoch: id.epoch,
            attempt: id.attempt,
        }
    }
}

/// What the daemon asks the supervisor to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LaunchSpec {
    /// Which attempt.
    pub(crate) id: StoredId,
    /// Hash of the service's specification.
    pub(crate) revision: String,
    /// Program and arguments; not empty.
    pub(crate) argv: Vec<String>,
    /// What the program name `dunlin` stands for.
    pub(crate) dunlin: PathBuf,
    /// The whole environment but for the ports.
    pub(crate) environment: BTreeMap<String, String>,
    /// Where to start it; [`Paths::work`] when absent.
    pub(crate) working_dir: Option<PathBuf>,
    /// `user[:group]`, names or numbers.
    pub(crate) user: Option<String>,
    /// Where peers reach this node.
    pub(crate) address: IpAddr,
    /// The ports it wants.
    pub(crate) ports: Vec<PortWish>,
    /// Volume directories to be handed to the user it runs as.
    pub(crate) volumes: Vec<PathBuf>,
    /// Its own resolv.conf, where names are answered on DNS's own port.
    #[serde(default)]
    pub(crate) resolv_conf: Option<String>,
    /// The networks of its service, by their full names.
    #[serde(default)]
    pub(crate) networks: Networks,
    /// Its cgroup, where the node may make one.
    pub(crate) cgroup: Option<CgroupPlan>,
    /// When it has to be dead, in milliseconds of the host's monotonic clock, unless it is told of a
    /// later time.
    #[serde(default)]
    pub(crate) dead_by: Option<Deadline>,
    /// Bytes at which a log file is put aside; two are kept.
    pub(crate) log_file_bytes: u64,
}

/// A port that a workload wants.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct PortWish {
    /// As the specification names it.
    pub(crate) target: u16,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// Exactly this host port, or any when absent.
    pub(crate) fixed: Option<u16>,
}

/// A port that a workload was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenPort {
    /// As the specification names it.
    pub(crate) target: u16,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
    /// The host port that stands for it.
    pub(crate) port: u16,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessStamp {
    /// Its number.
    pub(crate) pid: i32,
    /// When it started, in clock ticks since the boot (field 22 of `/proc/<pid>/stat`).
    pub(crate) start: u64,
}

/// Written once the workload runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// The boot in which the two processes below mean anything.
    pub(crate) boot: String,
    /// The supervisor, whose number is also the session of everything below it.
    pub(crate) supervisor: ProcessStamp,
    /// The workload's first process, whose number is also its process group.
    pub(crate) workload: ProcessStamp,
    /// The ports it was given.
    pub(crate) ports: Vec<GivenPort>,
    /// What could not be honoured, in words.
    pub(crate) notes: Vec<String>,
}

/// Written when it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    /// Exit code; 128 + n for signal n.
    pub(crate) code: i32,
    /// Whether the kernel killed it for its memory.
    pub(crate) oom: bool,
    /// Milliseconds since the Unix epoch.
    pub(crate) at: u64,
}

/// The supervisor's one line on its standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Handshake {
    /// It runs.
    Started(Box<RunRecord>),
    /// It does not.
    Failed {
        /// Why, for a person.
        reason: String,
        /// Whether trying again on this node is pointless.
        hopeless: bool,
    },
}

/// Reads a record.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = std::fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

/// Replaces a record at once: readers see the old one or the new one. Not synced: after a power
/// loss there is no workload left that it could describe.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    io::Write::write_all(&mut file, &serde_json::to_vec(value)?)?;
    std::fs::rename(&fresh, path)
}

/// Identifies this boot of the kernel; empty where the kernel does not tell.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
