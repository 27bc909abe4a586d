//! Why something from a peer, or from disk, was not taken.

use thiserror::Error;

use super::document::DocumentId;

/// Why bytes from a peer were not taken. The document is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// More bytes than allowed.
    #[error("{what} takes {bytes} bytes, at most {max} are taken; the sender is faulty or hostile")]
    TooLarge {
        /// A change, a batch, a step or a document.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// It is not what it claims to be.
    #[error("{what} is malformed ({reason}); the sender is faulty or hostile")]
    Malformed {
        /// A change, a step or a document.
        what: &'static str,
        /// In words.
        reason: String,
    },
    /// The same bytes have been refused before and are not looked at again.
    #[error("change {0} has been refused before")]
    Quarantined(String),
    /// A change does not continue its writer's earlier ones: two writers share an identity, most
    /// likely because a data directory was copied or restored from a backup.
    #[error(
        "change {number} of writer {actor} does not continue what is known of it (expected {expected}); two nodes share an identity, or one lost its latest writes: remove that node's data directory and join it anew"
    )]
    SplitHistory {
        /// The writer.
        actor: String,
        /// The number of the change.
        number: u64,
        /// The number it should have.
        expected: u64,
    },
    /// A counter leaps, which would exhaust it.
    #[error("a change leaps ahead of every counter known; the sender is faulty or hostile")]
    CounterLeap,
    /// A whole document that is another one than claimed.
    #[error("the document is {found}, and not {claimed} as its sender claims")]
    WrongDocument {
        /// As claimed.
        claimed: DocumentId,
        /// As found.
        found: DocumentId,
    },
    /// A whole document that does not supersede ours.
    #[error("document {theirs} does not supersede {ours}; nothing to do")]
    NotGreater {
        /// Ours.
        ours: DocumentId,
        /// Theirs.
        theirs: DocumentId,
    },
    /// This node does not know yet whom to believe.
    #[error("this node has not been let in yet and cannot tell whom to believe")]
    NotJoined,
    /// Our own part failed.
    #[error("the state document failed ({0}) and is as before")]
    Internal(String),
}

/// Why a saved document could not be loaded. Peers hold the same state: start empty on purpose
/// (with `Document::new`), and it comes back from them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The saved document itself.
    #[error(
        "the saved state document ({bytes} bytes) is corrupted ({reason}); move it away and start with a fresh one: the peers' copy takes its place"
    )]
    SavedCorrupt {
        /// Its size.
        bytes: usize,
        /// In words.
        reason: String,
    },
    /// One of the changes after it.
    #[error(
        "change {index} of {count} after the saved state document is corrupted ({reason}); the part before it can be kept, and peers bring the rest"
    )]
    ChangeCorrupt {
        /// Which, from 0.
        index: usize,
        /// How many there are.
        count: usize,
        /// In words.
        reason: String,
    },
}
