//! Nodes, tickets, versions.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dunlin_state::model::{Availability, Facts, NodeId, Resources};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Maintenance;

/// What software answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// Version of the daemon, by semantic versioning.
    pub version: String,
    /// Version of this contract: `v1`.
    pub api: String,
    /// Operating system: `linux`.
    pub os: String,
    /// Architecture as Docker writes it: `amd64`, `arm64`.
    pub arch: String,
}

impl VersionInfo {
    /// The contract that this crate describes.
    pub const API: &'static str = "v1";

    /// What a program of this version that runs here says of itself.
    pub fn of_this_host(version: &str) -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            version: version.to_owned(),
            api: Self::API.to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: arch.to_owned(),
        }
    }
}

/// The node that answers, in detail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Everything that other nodes can say of it too.
    pub node: Node,
    /// Identity of the cluster.
    pub cluster: String,
    /// Where this API listens, such as `unix:///run/dunlin/api.sock`.
    pub api: String,
    /// Timing preset: `lan`, `wan` or `local`.
    pub profile: String,
    /// The data directory.
    pub data_dir: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Milliseconds since the daemon started.
    pub uptime_ms: u64,
    /// Resident memory of the daemon in bytes.
    pub rss: u64,
    /// Where it answers DNS queries, if it does.
    #[serde(default)]
    pub dns: Option<DnsStatus>,
    /// The desired-state document.
    pub document: DocumentStatus,
    /// How much of everything there is.
    pub counts: Counts,
    /// Whether an admin has removed this node from its cluster.
    #[serde(default)]
    pub removed: bool,
}

/// A node's DNS server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DnsStatus {
    /// Where it answers, over UDP and TCP.
    pub addresses: Vec<String>,
    /// The domain of service names, such as `dunlin.internal`.
    pub suffix: String,
    /// The address of the server as replicas here are told it; absent when they are told none,
    /// because it answers on another port than 53 or on a loopback address only.
    pub for_replicas: Option<String>,
}

/// The desired-state document as this node holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct DocumentStatus {
    /// Its identity: `epoch-root`, the same on all nodes that agree.
    pub id: String,
    /// Digest of its newest changes: the same on all nodes that have the same state.
    pub heads: String,
    /// Changes it holds.
    pub changes: u64,
}

/// How much of everything this node sees.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Counts {
    /// Members that answer, this one included.
    pub alive: u32,
    /// All members it remembers.
    pub nodes: u32,
    /// Services.
    pub services: u32,
    /// Replicas in the whole cluster.
    pub replicas: u32,
    /// Replicas on this node.
    pub replicas_here: u32,
    /// Control connections with peers.
    pub connections: u32,
}

/// All nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// Ordered by name, then id.
    pub nodes: Vec<Node>,
}

/// A node as the answering node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// Its name; not necessarily unique.
    pub name: String,
    /// Whether it is the one that answers.
    pub this: bool,
    /// What is believed of it.
    pub state: NodeState,
    /// Whether it takes replicas.
    pub availability: Availability,
    /// When it is worked on.
    #[serde(default)]
    pub maintenance: Maintenance,
    /// Its membership address.
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// Labels, those from the cluster winning over those from its command line.
    pub labels: BTreeMap<String, String>,
    /// Its fingerprint.
    pub facts: Facts,
    /// What its replicas may use in total.
    pub capacity: Resources,
    /// What they have reserved.
    pub reserved: Resources,
    /// Runtimes it offers: `process`, `docker`.
    pub runtimes: Vec<String>,
    /// Whether its disk accepts writes.
    pub disk_ok: bool,
    /// How many replicas it holds.
    pub replicas: u32,
    /// Version of its daemon.
    pub version: String,
    /// How often it has started.
    pub boot: u64,
    /// When it started.
    pub started_at: u64,
}

/// What membership believes of a node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It answers.
    Alive,
    /// It misses probes; it gets no traffic, and nothing has moved yet.
    Suspect,
    /// It is believed gone, and its replicas are re-homed.
    Down,
    /// It said goodbye.
    Left,
}

/// Asks a node to take replicas, keep what it has, or hand everything over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AvailabilityRequest {
    /// What it shall do.
    pub availability: Availability,
}

/// Changes the labels that the cluster gives a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LabelsRequest {
    /// Labels to set.
    pub set: BTreeMap<String, String>,
    /// Keys to drop.
    pub remove: Vec<String>,
}

/// Asks for a ticket with which another host may join, or a person may use the API from afar.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TicketRequest {
    /// For how many milliseconds it shall be good; the node's own rule when absent.
    pub ttl_ms: Option<u64>,
    /// What its bearer becomes: `node` when absent, `operator`, `operator:NAMESPACE[,…]`, `viewer`
    /// or `admin`. All but `node` need an admin's node, now and when the ticket is used.
    pub role: Option<String>,
    /// How many may use it, 0 for any number. When absent, any number of hosts, and one for other
    /// roles than `node`.
    pub uses: Option<u32>,
}

/// A ticket with which another host may join. It is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ticket {
    /// The text for `dunlin up --join`.
    pub ticket: String,
    /// When it lapses.
    pub expires_at: Option<u64>,
    /// What its bearer becomes.
    pub role: String,
}

/// How to remove a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
pub struct RemoveQuery {
    /// Also when it is the node that is asked, or is known by nothing but its id.
    pub force: bool,
    /// Why, for those who ask later.
    pub reason: Option<String>,
}

/// One signed change of desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Milliseconds since the Unix epoch, by the clock of the node that took it.
    pub at: u64,
    /// What was written: a key of desired state.
    pub what: String,
    /// Whether it was removed by this.
    pub removed: bool,
    /// The person or program, as the node that took it knew it.
    pub author: String,
    /// The key that signed it.
    pub key: Option<String>,
    /// What that key may do.
    pub role: Option<String>,
    /// Whether it counts for nothing, because its signer had been removed.
    pub void: bool,
}

/// Who changed what, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct AuditList {
    /// The changes that are still kept.
    pub entries: Vec<AuditEntry>,
}

/// Asks for the role that a ticket stands for, with the key of the TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedeemRequest {
    /// Which ticket: its invite key, in base32.
    pub invite: String,
    /// The invite key's signature over cluster, asking key and answering node, in hexadecimal.
    pub proof: String,
}

/// What a person becomes who has redeemed a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Membership {
    /// The role: `viewer`, `operator`, `operator:NAMESPACE[,NAMESPACE…]` or `admin`.
    pub role: String,
    /// The certificates from the cluster's root key to the asking key, in hexadecimal.
    pub chain: String,
    /// Until when they are valid.
    pub expires_at: u64,
}
