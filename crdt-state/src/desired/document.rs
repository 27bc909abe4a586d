//! The document (being built).

use serde::{Deserialize, Serialize};

/// Identity of a document: only documents of one identity share history and can exchange changes.
/// The greater one wins and the other's registers are carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentId {
    /// Counts compactions.
    pub epoch: u64,
    /// Hash of the first change.
    pub root: [u8; 32],
}

/// Why a command was refused; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such service.
    #[error("no service is named '{0}'")]
    NoSuchService(crate::model::ServiceKey),
}
