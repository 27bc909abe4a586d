//! Where a node's proxies and DNS lead now.

use std::net::{IpAddr, SocketAddr};

use dunlin_state::model::{
    Networks, NodeId, Phase, PortSpec, Protocol, ServiceKey, Slot, TrafficPolicy,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Whose routes to tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct RouteQuery {
    /// Only this namespace; all when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only this service, as `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub service: Option<ServiceKey>,
}

/// Where the proxies and the DNS server of one node lead now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteList {
    /// The node that answers, whose routes these are.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// Ordered by namespace and name.
    pub services: Vec<ServiceRoutes>,
}

/// The routes of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceRoutes {
    /// Which service.
    pub service: ServiceKey,
    /// Its DNS name; absent on a node that answers no names.
    pub name: Option<String>,
    /// Its virtual addresses on this node; none where the node has no range for them.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// The networks it is in, by their full names: services that share one reach each other.
    pub networks: Networks,
    /// How its connections are treated.
    pub policy: TrafficPolicy,
    /// Its ports.
    pub ports: Vec<PortRoute>,
    /// Its replicas, ordered by slot, used or not.
    pub replicas: Vec<ReplicaRoute>,
}

/// A port of a service on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortRoute {
    /// As it is specified.
    pub port: PortSpec,
    /// Where this node should answer for it.
    pub listeners: Vec<RouteListener>,
    /// Why it is not published on this node, when it should be.
    pub refused: Option<String>,
    /// Connections that wait for a replica.
    pub waiting: u32,
}

/// A place where a node answers for a port, or should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteListener {
    /// The address.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// Whether it is a virtual address, and not a published port.
    pub is_virtual: bool,
    /// Why nothing answers there.
    pub failure: Option<String>,
}

/// A replica as this node's proxies and DNS server treat it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaRoute {
    /// Its slot.
    pub slot: Slot,
    /// The node that runs it.
    pub node: NodeId,
    /// That node's name.
    pub node_name: String,
    /// Its own virtual addresses on this node, which DNS gives for it; none when it is not used, or
    /// where there are too many.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Where it is in its life; absent when its node reports it no longer.
    pub phase: Option<Phase>,
    /// Whether its node says that it may have traffic.
    pub ready: bool,
    /// Whether it gets connections and is named by DNS, and if not why not.
    pub usage: RouteUsage,
    /// Its ports; each may be ejected by itself.
    pub ends: Vec<RouteEnd>,
}

/// A port of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteEnd {
    /// The port as the specification calls it.
    pub target: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it answers, seen from its node.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// Whether this node's proxy gives it new connections, and if not why not.
    pub usage: RouteUsage,
    /// Connections of this node's proxy to it.
    pub open: u32,
    /// Smoothed microseconds that connecting to it took; absent when it was not tried.
    pub connect_us: Option<u32>,
    /// Milliseconds until one connection tries it again, when it is ejected.
    pub ejected_for_ms: Option<u64>,
}

/// Whether a replica is used, or why it is not.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RouteUsage {
    /// It gets connections.
    Used,
    /// It failed connections; one of them tries it now.
    Trial,
    /// It failed connections and gets none for a while, as long as there are others.
    Ejected,
    /// It has as many connections as it may have.
    Full,
    /// It is not ready.
    NotReady,
    /// It is being stopped; its connections may end.
    Leaving,
    /// Its service is stopped, or its slot is not one of the service's.
    NotWanted,
    /// Its node misses probes.
    NodeSuspect,
    /// Its node is down, or has left.
    NodeGone,
    /// Its node has not yet reported in its present life.
    NodeUnconfirmed,
}

impl RouteUsage {
    /// In words, as they follow "not used: " where it is not.
    pub fn words(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Trial => "on trial after failures",
            Self::Ejected => "ejected after failures",
            Self::Full => "has its most connections",
            Self::NotReady => "not ready",
            Self::Leaving => "draining",
            Self::NotWanted => "not wanted any more",
            Self::NodeSuspect => "its node is suspected",
            Self::NodeGone => "its node is gone",
            Self::NodeUnconfirmed => "its node has not reported yet",
        }
    }
}
