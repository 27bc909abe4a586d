//! What nodes say to each other about secrets, and what the holder of keys is told.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_state::desired::Item;
use dunlin_state::model::{ContentId, ItemKey, NodeId};
use serde::{Deserialize, Serialize};

/// What nodes say to each other about secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Asks for the key of a version of a secret.
    Want {
        /// Which secret.
        secret: ItemKey,
        /// Which version.
        content: ContentId,
        /// The asker's certificates, when they are the reason why it may have it.
        proof: Option<Bytes>,
    },
    /// The key, sealed to who has asked.
    Give {
        /// Of which secret.
        secret: ItemKey,
        /// Of which version.
        content: ContentId,
        /// The sealed key.
        sealed: Bytes,
    },
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Want { secret, .. } => write!(f, "Want({secret})"),
            Self::Give { secret, .. } => write!(f, "Give({secret})"),
        }
    }
}

/// What the holder of keys is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Try to open a version of a secret: with what is kept from before, with the box for this node
    /// in desired state, or with this one. Answered by [`Answer::Opened`].
    Open {
        /// Which secret.
        secret: ItemKey,
        /// It, as in desired state.
        item: Arc<Item>,
        /// A sealed key that a peer has sent.
        sealed: Option<Bytes>,
    },
    /// Seal the key to a node. Answered by [`Answer::Sealed`].
    Seal {
        /// To whom.
        to: NodeId,
        /// Which secret.
        secret: ItemKey,
        /// Which version.
        content: ContentId,
    },
    /// Forget the keys of this secret.
    Forget(ItemKey),
}

/// What the holder of keys answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Whether a secret could be opened.
    Opened {
        /// Which secret.
        secret: ItemKey,
        /// Which version.
        content: ContentId,
        /// Whether it could.
        opened: bool,
    },
    /// A key was sealed.
    Sealed {
        /// To whom.
        to: NodeId,
        /// Of which secret.
        secret: ItemKey,
        /// Of which version.
        content: ContentId,
        /// The sealed key.
        sealed: Bytes,
    },
}
