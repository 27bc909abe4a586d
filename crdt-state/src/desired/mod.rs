//! Desired state: what people asked the cluster to be.

mod command;
mod document;
mod snapshot;

pub use command::Command;
pub use document::{DocumentId, Rejection};
pub use snapshot::{Desired, NodeIntent, Service};
