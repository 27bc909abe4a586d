//! Everything one node decides, as one deterministic machine.
//!
//! [`engine::Engine`] wires the machines together: membership and replication from
//! `dunlin-gossip`, and from this crate the [`liveness`] judge, the [`bidding`], and the
//! reconciler. The daemon and the simulator run this very engine; nothing here reads a clock,
//! opens a socket or draws a random number of its own.

pub mod agent;
pub mod autoscale;
pub mod bidding;
mod cluster;
pub mod depend;
pub mod engine;
pub mod explain;
mod hashing;
mod health;
pub mod io;
mod isolation;
mod jobs;
pub mod lease;
pub mod liveness;
pub mod placement;
pub mod plan;
mod preempt;
pub mod rebalance;
mod reconcile;
mod rollout;
pub mod secrets;
mod timers;
pub(crate) mod volumes;
pub mod wire;
