//! Why somebody is not let in, and why a connection is not used.

use thiserror::Error;

use crate::Seconds;
use crate::chain::ChainError;
use crate::encode::Malformed;
use crate::keys::ClusterId;

/// Why somebody was not let in, as both sides are told.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The ticket is for another cluster.
    #[error("the ticket is for another cluster ({0})")]
    ForeignTicket(ClusterId),
    /// Nobody has heard of the ticket.
    #[error(
        "the ticket is not known here: it is too old, was altered, or was made a moment ago in a part of the cluster that cannot be reached"
    )]
    UnknownTicket,
    /// Its proof is wrong.
    #[error("the ticket's proof is wrong: it was altered")]
    BadProof,
    /// Too late.
    #[error("the ticket expired {0} s ago: make a new one with `dunlin ticket`")]
    ExpiredTicket(Seconds),
    /// Too often.
    #[error(
        "the ticket has been used {0} times, which is all it was made for: make a new one with `dunlin ticket`"
    )]
    UsedUp(u32),
    /// The listener may not grant the ticket's role.
    #[error("a ticket for the role '{0}' is redeemed at a node of an admin, and this one is none")]
    NotHere(String),
    /// It is for a host.
    #[error("the ticket is for a host: `dunlin up --join` takes it")]
    ForHosts,
    /// The dialer was removed.
    #[error("the node was removed from the cluster")]
    Removed,
    /// Its certificate proves nothing.
    #[error("the certificate is not valid: {0}")]
    Chain(#[from] ChainError),
    /// It is somebody else's, or not a node's.
    #[error("the certificate is not that of a node with this key")]
    NotItsOwn,
    /// It was admitted with a key that is no longer trusted.
    #[error(
        "the certificate was made with a key that was replaced when a member was removed, and this node is not on record: join again with a new ticket"
    )]
    Outdated,
    /// One of those who vouch for it was removed.
    #[error(
        "the certificate was vouched for by a member that was removed: join again with a new ticket"
    )]
    RemovedIssuer,
    /// The listener itself is not a member yet.
    #[error("this node has not been let in itself yet")]
    NotYetMember,
}

/// Why a connection is not used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GateError {
    /// It was refused here.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The other side refused.
    #[error("refused by the other side: {0}")]
    RefusedUs(String),
    /// The other side showed an admin's order: this node was removed.
    #[error("this node was removed from its cluster")]
    WasRemoved,
    /// The other side is of another cluster.
    #[error("the other side belongs to another cluster")]
    Foreign,
    /// What it said is no message of the gate.
    #[error("it speaks another protocol: {0}")]
    Malformed(#[from] Malformed),
}
