//! What a node says of itself: the payload of its register.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{
    HeldVolume, HostPort, Load, NodeId, Outputs, Preempted, Protocol, Resources, ScaleDecision,
    ServiceKey, ServiceSpec, SlotId,
};

/// The age of a register: boots count before writes within a boot. Newer is greater.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Version {
    /// How often the node has started; bumped and synced to disk at each start.
    pub boot: u64,
    /// Writes since that start.
    pub seq: u64,
}

/// The single-writer register of one node. The newest [`Version`] wins; there is no history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRegister {
    /// The only writer.
    pub node: NodeId,
    /// Its age.
    pub version: Version,
    /// Its content.
    pub report: NodeReport,
}

/// What a node reports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeReport {
    /// Its name, unique by agreement of people, not by force.
    pub name: String,
    /// Version of its daemon.
    pub dunlin_version: String,
    /// Where it can be reached: the membership address; the control plane listens on the next port.
    pub address: Option<SocketAddr>,
    /// What it is.
    pub facts: Facts,
    /// Labels from its command line. Labels set through the cluster are desired state and win.
    pub labels: BTreeMap<String, String>,
    /// What its replicas may use in total.
    pub capacity: Resources,
    /// Whether it offers container runtimes: `process`, `docker`.
    pub runtimes: Vec<String>,
    /// Whether its disk accepts writes; a node that cannot write takes no new work.
    pub disk_ok: bool,
    /// The slots it holds.
    pub claims: Vec<Claim>,
    /// Replicas that it ended for services of a higher priority, the oldest first, as far as their
    /// slots are wanted: at most [`super::MAX_PREEMPTED`].
    pub preempted: Vec<Preempted>,
    /// The volumes of which it has data, ordered: at most [`super::MAX_VOLUMES`].
    pub volumes: Vec<HeldVolume>,
    /// The load of services that follow theirs, as far as this node sees it: at most
    /// [`super::MAX_SCALED`].
    pub loads: BTreeMap<ServiceKey, Load>,
    /// How many replicas such services shall have, decided by this node or passed on from one that
    /// is gone: at most [`super::MAX_SCALED`].
    pub scales: BTreeMap<ServiceKey, ScaleDecision>,
    /// Milliseconds since the Unix epoch at which it started, by its own clock.
    pub started_at: u64,
}

/// The fingerprint of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Facts {
    /// `linux`.
    pub os: String,
    /// The distribution, such as `debian 12`.
    pub distribution: String,
    /// As Docker writes it: `amd64`, `arm64`, …
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Size in bytes of the disk that holds the data directory.
    pub disk: u64,
    /// Version of the container engine, if one answers.
    pub engine: Option<String>,
    /// Kinds of devices that replicas may want, and how many of each there are: `kvm`, `nvidia`, …
    pub devices: BTreeMap<String, u32>,
}

/// A node's word that it holds a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Which slot.
    pub slot: SlotId,
    /// The fencing epoch: the newest award of this slot has the highest.
    pub epoch: u64,
    /// Identifies the specification that the replica runs: a hash of it.
    pub revision: String,
    /// Where the replica is in its life.
    pub phase: Phase,
    /// Whether it should get traffic.
    pub ready: bool,
    /// Whether the holder wants to hand the slot over (drain, or it no longer matches).
    pub leaving: bool,
    /// Milliseconds since the Unix epoch when the claim was made, by the holder's clock.
    pub since: u64,
    /// What it takes from the node.
    pub resources: Resources,
    /// Host ports it takes from the node.
    pub host_ports: Vec<HostPort>,
    /// Where its ports answer.
    pub endpoints: Vec<Endpoint>,
    /// Starts beyond the first.
    pub restarts: u32,
    /// How it last ended.
    pub last_exit: Option<ExitReport>,
    /// Why it is not running, in words, cut to 300 characters.
    pub message: Option<String>,
    /// The container's or process group's id.
    pub workload: Option<String>,
    /// When the current attempt started, milliseconds since the Unix epoch.
    pub started_at: Option<u64>,
    /// Whether this revision has proven itself here.
    #[serde(default)]
    pub trial: Trial,
    /// Whose replica it takes the place of, of one that was moved to even out nodes. Until it is
    /// ready, and while that one serves, it may give up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_from: Option<NodeId>,
    /// Where it was before, oldest first, at most [`MAX_HISTORY`] entries.
    #[serde(default)]
    pub history: Vec<PhaseChange>,
    /// What it has told, as a part of a run that has ended with success.
    #[serde(default, skip_serializing_if = "Outputs::is_empty")]
    pub outputs: Outputs,
}

impl Claim {
    /// The claim of a slot that was just won, before anything was started.
    pub fn won(slot: SlotId, epoch: u64, revision: &str, spec: &ServiceSpec, since: u64) -> Self {
        Self {
            slot,
            epoch,
            revision: revision.to_owned(),
            phase: Phase::Claimed,
            ready: false,
            leaving: false,
            since,
            resources: spec.reservation,
            host_ports: spec.host_ports().collect(),
            endpoints: Vec::new(),
            restarts: 0,
            last_exit: None,
            message: None,
            workload: None,
            started_at: None,
            trial: Trial::Pending,
            moved_from: None,
            history: Vec::new(),
            outputs: Outputs::default(),
        }
    }
}

/// How a replica fares with its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Trial {
    /// It has not been ready for long enough yet.
    #[default]
    Pending,
    /// It was ready for long enough once.
    Proven,
    /// It ended, could not be started, or was not ready in time, before it was proven, in this
    /// round of the rollout.
    Failed(u32),
}

/// Phase changes that a claim remembers: enough to see a crash loop turn twice, and few enough for
/// every register to carry them.
pub const MAX_HISTORY: usize = 6;

/// Lines of its log that a failed replica leaves in its claim.
pub const MAX_LAST_WORDS: usize = 5;

/// Bytes of all of them together.
pub const MAX_LAST_WORDS_BYTES: usize = 600;

/// A step in the life of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PhaseChange {
    /// Milliseconds since the Unix epoch, by its node's clock.
    pub at: u64,
    /// The phase it came to.
    pub phase: Phase,
    /// Whether it should get traffic from then on.
    pub ready: bool,
    /// How the attempt ended, where this step is an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Whether the kernel had killed it for its memory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
}

/// The life of a replica on its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Phase {
    /// Awarded; nothing has been started.
    Claimed,
    /// The image is being fetched.
    Preparing,
    /// The runtime has been asked to start it.
    Starting,
    /// It runs.
    Running,
    /// It ended and waits to be started again.
    BackOff,
    /// It has ended so often that waiting is long; still tried.
    CrashLoop,
    /// It ended and the restart policy says to leave it.
    Completed,
    /// It ended in failure and the restart policy says to leave it.
    Failed,
    /// It has been asked to stop.
    Stopping,
}

/// Where one port of a replica answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Endpoint {
    /// The port as the specification names it.
    pub target: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it answers, as reachable from the replica's node.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: SocketAddr,
}

/// How a replica ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExitReport {
    /// Exit code; 128 + n when a signal ended it.
    pub code: i32,
    /// Whether the kernel killed it for its memory.
    pub oom: bool,
    /// Milliseconds since the Unix epoch.
    pub at: u64,
    /// The last lines of its log, of a failure: at most [`MAX_LAST_WORDS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<String>,
}
