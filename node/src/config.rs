//! What `dunlin up` is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use dunlin_gossip::membership::Profile;
use dunlin_state::model::{Cidr, RuntimeKind};

/// Everything a person may choose for one node. All else is found out or generated.
#[derive(Debug, Clone)]
pub struct UpConfig {
    /// Where the node keeps its key, its state and its workloads.
    pub data_dir: PathBuf,
    /// Its name; the host's name when absent.
    pub name: Option<String>,
    /// The address others reach it at; the address of the default route when absent.
    pub advertise: Option<IpAddr>,
    /// Membership listens here on UDP, the control plane on the next port on UDP and TCP, and the
    /// data plane on the one after that on UDP.
    pub port: u16,
    /// Path of the API's Unix socket; `api.sock` in the data directory when absent.
    pub api: Option<PathBuf>,
    /// A group whose members may use that socket, besides root and the daemon's own user.
    pub api_group: Option<String>,
    /// Where the API also listens, over TLS, for holders of certificates; nowhere when absent.
    pub api_listen: Option<SocketAddr>,
    /// A ticket, or the path of a file that holds one.
    pub join: Option<String>,
    /// Runtimes to offer: one of them, or both when `Auto`.
    pub runtime: RuntimeKind,
    /// Labels of this node.
    pub labels: BTreeMap<String, String>,
    /// Timing preset of membership.
    pub profile: Profile,
    /// Whether to look for peers on the local network.
    pub mdns: bool,
    /// The IPv4 range of virtual addresses, the same on all nodes; chosen when absent.
    pub vip_cidr: Option<Cidr>,
    /// How long a stopped daemon's listening sockets are held for the next one; not at all when
    /// zero.
    pub hand_over: Duration,
    /// Where to answer DNS queries.
    pub dns: DnsChoice,
    /// The domain that service names are under; `dunlin.internal` when absent.
    pub dns_suffix: Option<String>,
    /// Resolvers that are asked about other names; those of the host when there are none.
    pub upstream_dns: Vec<SocketAddr>,
    /// Move a damaged state file aside and fetch the state from peers, even when none is known.
    pub recover: bool,
}

/// Where a node answers DNS queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsChoice {
    /// At the first of the usual places that can be had.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// Here, or the node does not start.
    At(SocketAddr),
}
