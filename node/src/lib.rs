//! The daemon: builds, wires, supervises and stops everything a node is made of.
//!
//! [`daemon::run`] is the composition root. It alone reads the environment, files and signals;
//! it binds every socket before it starts anything, then hands listeners and stores to the parts.
//! The decisions are made by [`dunlin_core::engine::Engine`]; what stands here performs them.

pub mod api;
mod cluster;
mod config;
pub mod daemon;
pub mod handover;
mod host;
mod identity;
pub mod runtime;
mod seal;
mod secrets;
mod store;
mod streams;
pub mod supervisor;
mod vips;
mod volumes;

pub use cluster::{ClusterError, ROOT_FILE, cluster_of, read_root, write_root};
pub use config::{DnsChoice, UpConfig};
pub use daemon::{UpError, run};
pub use dunlin_gossip::membership::Profile;
pub use identity::IdentityError;
pub use secrets::SecretVault;
pub use vips::VipError;
