//! The contract between the command line (or any other client) and a node: HTTP with JSON bodies
//! under `/v1`, on a Unix socket, and from other hosts over TLS with keys on both sides (feature
//! `tls`).
//!
//! What stands here, both sides use: the request and answer types, the paths ([`routes`]), the
//! errors with their HTTP status and exit code ([`ErrorCode`]), the generated description
//! ([`openapi()`], checked in as `docs/openapi.json`), and behind the `client` feature a typed
//! client. Types that the cluster stores are those of [`dunlin_state::model`]; only what is made
//! for showing is defined here.
//!
//! Conventions: every instant is in milliseconds since the Unix epoch by the clock of the node that
//! wrote it; every duration is in milliseconds; every size in bytes. Answers may gain fields, so
//! readers ignore those they do not know. Streams are one JSON object per line.

#[cfg(feature = "client")]
pub mod client;
mod cluster;
mod error;
mod exec;
#[cfg(feature = "fake")]
pub mod fake;
mod insight;
mod item;
mod job;
mod maintenance;
mod metrics;
mod namespace;
mod openapi;
mod plan;
mod rebalance;
pub mod routes;
mod service;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
pub mod tls;
mod traffic;
mod volume;

pub use cluster::{
    AuditEntry, AuditList, AvailabilityRequest, Counts, DnsStatus, DocumentStatus, LabelsRequest,
    Membership, Node, NodeList, NodeState, NodeStatus, RedeemRequest, RemoveQuery, Ticket,
    TicketRequest, VersionInfo,
};
pub use error::{ErrorBody, ErrorCode, Exit};
pub use exec::{
    BadFrame, EXEC_TYPE, ExecFrame, ExecStart, ExecStarted, FrameReader, MAX_FRAME, PING_EVERY,
    SILENCE, TerminalSize,
};
pub use insight::{
    Check, CheckStatus, Convergence, ConvergenceQuery, DoctorReport, Explanation, History,
    HistoryEntry, NodeVerdict, RefusalReason, ServiceProgress, SlotState, Verdict,
};
pub use item::{ItemDetail, ItemList, ItemQuery, ItemRequest, ItemSummary};
pub use job::{JobList, JobQuery, JobRun, JobSummary, RunResponse};
pub use maintenance::{Maintenance, MaintenanceRequest, NamedWindow};
pub use metrics::{BadSample, METRICS_TYPE, Sample, parse_metrics};
pub use namespace::{NamespaceList, NamespaceSummary};
pub use openapi::{OPENAPI_JSON, openapi};
pub use plan::{
    DeployPlan, OustedReplica, PlannedChange, PlannedService, PlannedSlot, PlannedStep,
    PlannedVolume,
};
pub use rebalance::{NodeUse, PlannedMove, RebalancePlan, RebalanceRequest, StayingService};
pub use service::{
    AutoscaleStatus, ChangeResponse, DeployRequest, DeployResponse, DeployService, DeployedService,
    RemoveRequest, Replica, ReplicaList, ReplicaQuery, RevisionEntry, RevisionList, RolloutRequest,
    RolloutStatus, RolloutStep, ScaleRequest, ServiceDetail, ServiceList, ServiceQuery,
    ServiceSummary, WaitingService,
};
pub use stats::{StatsQuery, StatsRecord};
pub use stream::{EventQuery, EventRecord, LogQuery, LogRecord, LogStream};
pub use traffic::{
    PortRoute, ReplicaRoute, RouteEnd, RouteList, RouteListener, RouteQuery, RouteUsage,
    ServiceRoutes,
};
pub use volume::{
    Volume, VolumeCopy, VolumeCreated, VolumeList, VolumeQuery, VolumeRemoval, VolumeTarget,
};
