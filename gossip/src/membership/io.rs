//! What goes into the membership machine and what comes out.

use std::net::SocketAddr;

use bytes::Bytes;
use dunlin_state::model::NodeId;
use serde::{Deserialize, Serialize};

/// A member as SWIM knows it. `node` is who it is; a higher `boot` supersedes earlier lives of the
/// same node; `address` is where its membership datagrams go, and the control plane listens on the
/// next port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberId {
    /// The node's key.
    pub node: NodeId,
    /// How often it has started.
    pub boot: u64,
    /// Where it listens for membership datagrams.
    pub address: SocketAddr,
}

/// Timing presets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Hosts on one network, round trips under 50 ms.
    #[default]
    Lan,
    /// Hosts across the internet, round trips up to 500 ms.
    Wan,
    /// Daemons on one host, for demos and tests.
    Local,
}

/// What the machine may be told.
#[derive(Debug, Clone)]
pub enum Input {
    /// A membership datagram that has passed authentication. `from` is where it came from.
    Datagram {
        /// Source address.
        from: SocketAddr,
        /// Plain text.
        bytes: Bytes,
    },
    /// The same kind of message, received over an authenticated connection with `from`.
    Reliable {
        /// The authenticated sender.
        from: NodeId,
        /// The message.
        bytes: Bytes,
    },
    /// Try to join by asking whoever listens at this address.
    Join {
        /// A membership address.
        address: SocketAddr,
    },
    /// The same once, without remembering the address: it may belong to another cluster.
    Call {
        /// A membership address.
        address: SocketAddr,
    },
    /// Tell everybody goodbye.
    Leave,
    /// This node was removed from the cluster: believe that it has left, and take nothing from it
    /// and nothing about it any more.
    Expel {
        /// Who.
        node: NodeId,
    },
    /// Any authenticated sign of life of `node` outside membership (a message, an answered probe).
    Heard {
        /// Who was heard.
        node: NodeId,
    },
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram (the shell seals it).
    Send {
        /// Where.
        to: SocketAddr,
        /// Plain text, at most 1,030 bytes.
        bytes: Bytes,
    },
    /// Send over an authenticated connection, because the datagram path seems to lose packets.
    SendReliable {
        /// To whom.
        to: NodeId,
        /// The message.
        bytes: Bytes,
    },
    /// A change of belief.
    Event(MemberEvent),
}

/// A change of belief about a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberEvent {
    /// It is a member and answers; also after a refuted suspicion, a new boot or a new address.
    Alive(MemberId),
    /// It misses its probes: stop sending traffic to it, and move nothing yet.
    Suspect(MemberId),
    /// The cluster believes it is gone.
    Down(MemberId),
    /// It said goodbye.
    Left(MemberId),
}

/// What is believed of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberState {
    /// Answers.
    Alive,
    /// Misses probes.
    Suspect,
    /// Believed gone.
    Down,
    /// Said goodbye.
    Left,
}

/// One member as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberView {
    /// Who.
    pub id: MemberId,
    /// What is believed of it.
    pub state: MemberState,
    /// Last first-hand sign of life, monotonic milliseconds. Time during which this process stood
    /// still does not count as the member's silence, so after a stall this is later than the
    /// actual arrival. For a member only told of by others it is when they first did.
    pub last_heard: u64,
}
