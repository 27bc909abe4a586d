//! Desired state: what people asked the cluster to be.
//!
//! Commands ([`Command`]) go into the [`Document`] and become changes that travel; an immutable
//! snapshot ([`Desired`]) comes out, and with each change a list of what is different
//! ([`DesiredChange`]). What the document promises is told in [`document`].

mod audit;
mod change;
mod command;
pub mod depend;
mod document;
mod draft;
mod engine;
mod history;
mod items;
mod jobs;
mod keys;
mod pending;
mod quotas;
mod rebalancing;
mod rebase;
mod refused;
mod register;
mod rejection;
mod remote;
mod rules;
mod snapshot;
mod table;
mod trust;
mod validate;
mod value;
mod vips;

pub use audit::AuditRecord;
pub use change::DesiredChange;
pub use command::{Command, RolloutChange};
pub use depend::dependency_cycle;
pub use document::{
    COMPACT_AT, Document, DocumentId, InvalidRegister, MAX_CHANGE_BYTES, MAX_REVISIONS, Recovered,
};
pub use draft::{MAX_COMMANDS, MAX_SERVICES, preview, revision_of};
pub use history::{Conflict, HistoryEntry};
pub use items::{Item, Items, MAX_ITEMS, MAX_SECRET_BOXES, NewItem, items_of};
pub use jobs::{
    Ask, Collected, Jobs, MAX_ASKS, MAX_RUNS, Outcome, Run, RunRecord, RunResult, RunState, Told,
};
pub use keys::Aspect;
pub use rebase::{Adopted, MAX_DOCUMENT_BYTES, TOMBSTONE_AGE_MS};
pub use refused::{LoadError, Refused};
pub use register::{Actor, Stamp};
pub use rejection::Rejection;
pub use remote::{Applied, MAX_BATCH_BYTES, MAX_STEP_BYTES, SyncSession};
pub use rules::Rules;
pub use snapshot::{Desired, NodeIntent, Previous, Rollout, Service};
pub use trust::{InviteRecord, KeyringRecord, PERSON, Revocation, TrustCommand, TrustRecords};
pub use validate::{
    MAX_COMPLETIONS, MAX_ENVIRONMENT_BYTES, MAX_REGISTER_BYTES, MAX_REPLICAS, SpecFault, check_spec,
};
pub use vips::Assigned;

#[cfg(test)]
mod tests;
