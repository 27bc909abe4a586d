//! What goes into the replication machine and what comes out.

use bytes::Bytes;
use dunlin_state::desired::{Command, Rules};
use dunlin_state::model::{NodeId, NodeReport, Version};
use serde::{Deserialize, Serialize};

use super::pushed::Pushed;

/// Names a local write until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// Names a request to the disk until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// What the machine may be told.
#[derive(Debug, Clone)]
pub enum Input {
    /// A person's change, through this node's API.
    Propose {
        /// Comes back in the answer.
        id: ProposalId,
        /// Become one change: all or none.
        commands: Vec<Command>,
        /// Who asks, for the history.
        author: String,
    },
    /// This node's own report has changed.
    Report(Box<NodeReport>),
    /// A control connection with a peer is up.
    Connected(NodeId),
    /// The control connection with a peer is gone.
    Disconnected(NodeId),
    /// A message from a connected peer.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// The disk has synced a write.
    Persisted(PersistId),
    /// The disk refused a write.
    PersistFailed {
        /// Which.
        id: PersistId,
        /// Why, in words.
        reason: String,
    },
    /// Forget what a departed node reported.
    Forget(NodeId),
    /// A node was removed from the cluster: forget it and take nothing from it any more.
    Expel(NodeId),
    /// Whom to believe from now on, and in whose name to write.
    Rules(Box<Rules>),
}

/// What the machine wants done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send to a connected peer; losing it is harmless.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Write in this order, sync, and answer with the id.
    Persist {
        /// Comes back in the answer.
        id: PersistId,
        /// What to write, atomically.
        writes: Vec<Write>,
    },
    /// A proposal is durable here and on its way, or was refused and changed nothing.
    Proposed {
        /// Which.
        id: ProposalId,
        /// Whether it changed anything, or why it was refused.
        result: Result<bool, dunlin_state::desired::Rejection>,
    },
    /// Desired state has changed; read the new snapshot.
    DesiredChanged,
    /// These nodes' registers have changed.
    ObservedChanged(Vec<NodeId>),
    /// Something that an operator should know, such as a peer that sends rubbish.
    Warning(String),
}

/// A write of desired state to disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Replace everything by this saved document.
    Document(Bytes),
    /// Append one change.
    Change(Bytes),
}

/// What peers tell each other. Every size is checked before and after decoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Push: changes of the document with this identity, oldest first.
    Changes {
        /// The document's identity (epoch and root).
        document: dunlin_state::desired::DocumentId,
        /// Encoded changes.
        changes: Vec<Bytes>,
    },
    /// Anti-entropy: what the sender has, in a few bytes. Whoever finds a difference acts on it.
    Summary {
        /// The sender's document.
        document: dunlin_state::desired::DocumentId,
        /// Fingerprint of its history: equal ones mean equal documents.
        heads: [u8; 32],
        /// Hash of the versions of all registers; absent in an answer, so that registers are
        /// compared once per exchange.
        table: Option<[u8; 16]>,
        /// Whether the receiver should answer with a summary of its own when the sender is the
        /// one who must act.
        reply: bool,
    },
    /// Anti-entropy of the document: one step of automerge's sync protocol.
    Sync {
        /// The sender's document.
        document: dunlin_state::desired::DocumentId,
        /// The exchange that this step belongs to. The smaller of two nodes opens exchanges and
        /// numbers them upwards; a step of another one is stale.
        round: u64,
        /// The encoded step.
        step: Bytes,
    },
    /// The whole document, for a peer whose document has another identity.
    Document {
        /// The sender's document.
        document: dunlin_state::desired::DocumentId,
        /// As saved.
        saved: Bytes,
    },
    /// Push: registers, whole or what has changed in them.
    Registers(Vec<Pushed>),
    /// The sender cannot use a push, because it does not know what that builds on: it knows these
    /// versions, or nothing, and wants what is newer.
    Want(Vec<(NodeId, Option<Version>)>),
    /// Anti-entropy of registers in a large cluster: a hash for each of 64 groups of nodes, so
    /// that only the groups that differ are compared register by register.
    Buckets(Vec<u64>),
    /// Anti-entropy of registers: the versions the sender knows; it wants what is newer, and
    /// `reply` asks for the receiver's digest when that one lacks something.
    Digest {
        /// Known versions.
        versions: Vec<(NodeId, Version)>,
        /// The groups of nodes that this is about, one bit for each. Of a node in one of them that
        /// is not listed, the sender knows nothing.
        buckets: u64,
        /// Whether the receiver should answer with a digest of its own.
        reply: bool,
    },
}
