//! The control plane: connections between members over libp2p, and what travels on them.
//!
//! QUIC is dialed first and TCP (noise, yamux) a moment later, both on the port after the
//! membership port. Each connection passes the [`gate`] before anything sees it. On it travel
//! one-way [`messages`], [`rpc`] requests and probes, and [`streams`] both ways.
//!
//! One [`task`] owns the swarm. Everybody else holds a [`Control`] and reads [`ControlEvent`]s.
//! Connections are opened on demand; those that [`Control::connect`] has asked for are kept, the
//! others close after a minute without traffic.

mod admission;
mod frames;
mod gate;
mod identity;
mod messages;
mod peers;
mod rpc;
mod seldom;
mod streams;
mod task;
#[cfg(test)]
pub(super) mod testing;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_state::model::NodeId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::counters::Counters;

pub use self::frames::reread as reread_frames;
pub use self::messages::MAX_MESSAGE;
pub use self::rpc::{MAX_REQUEST, MAX_RESPONSE, MAX_RPC_TIME, PROBE_TIME};
pub use self::streams::PeerStream;
pub(super) use self::task::ControlTask;
pub(super) use self::transport::Listen;

/// Commands waiting for the task. It never waits for a peer, so a full queue means an overloaded
/// host.
const COMMANDS: usize = 2_048;

/// Of these, the part that messages leave to commands which nobody repeats.
const RESERVED: usize = 256;

/// Events waiting for the node. When they are full the swarm stops reading from its connections,
/// and peers are held up by flow control.
const EVENTS: usize = 1_024;

/// The node that has this ed25519 seed.
pub(super) fn node_of(seed: [u8; 32]) -> NodeId {
    let peer = libp2p::PeerId::from(identity::keypair(seed).public());
    identity::node_id(&peer).expect("the key was made as an ed25519 key")
}

/// What the control plane has to tell.
#[derive(Debug)]
pub enum ControlEvent {
    /// The first connection with a member is up.
    Connected(NodeId),
    /// The last connection with it is gone.
    Disconnected(NodeId),
    /// [`Control::connect`] or a message found no way to it. Nothing is retried here.
    Unreachable {
        /// Who was dialed.
        node: NodeId,
        /// Why it failed, for a person.
        reason: String,
    },
    /// A message from a connected member; never empty.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// At most [`MAX_MESSAGE`] bytes.
        bytes: Bytes,
    },
    /// A member asks something. Dropping `reply` refuses it.
    RpcRequest {
        /// The authenticated asker.
        from: NodeId,
        /// At most [`MAX_REQUEST`] bytes.
        bytes: Bytes,
        /// Takes at most [`MAX_RESPONSE`] bytes, within [`MAX_RPC_TIME`].
        reply: oneshot::Sender<Bytes>,
    },
    /// A member has opened a stream. Dropping it tells that member.
    Stream {
        /// The authenticated opener.
        from: NodeId,
        /// This end.
        stream: PeerStream,
    },
    /// mDNS has seen a libp2p node on the local network. Anybody can claim to be one: only a
    /// connection proves that it is a member.
    Discovered {
        /// Who it says it is.
        node: NodeId,
        /// Where its control plane listens: the port after the membership port.
        control: SocketAddr,
    },
}

/// Why the control plane did not start. Nothing is left bound.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no port after 65535.
    #[error("the control plane needs the port after the membership port {0}: choose a lower one")]
    NoPort(u16),
    /// Most likely something else listens there.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As a multiaddr.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The node key cannot be used.
    #[error("cannot derive a noise key from the node key: {0}")]
    Noise(#[source] libp2p::noise::Error),
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RpcError {
    /// The peer never saw it.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// Whether the peer has acted on it is not known.
    #[error("the connection broke before the answer came")]
    Disconnected,
    /// Whether the peer has acted on it is not known.
    #[error("no answer in time")]
    TimedOut,
    /// The peer is overloaded, or does not answer this kind of request.
    #[error("the node refused to answer: {0}")]
    Refused(String),
    /// Nothing was sent.
    #[error("a request of {0} bytes is over the limit of {MAX_REQUEST}")]
    TooLarge(usize),
    /// Nothing was sent: this node is overloaded or stopping.
    #[error("the control plane of this node takes no requests now")]
    Unavailable,
}

#[derive(Debug)]
enum Command {
    Send {
        node: NodeId,
        address: SocketAddr,
        bytes: Bytes,
    },
    Connect {
        node: NodeId,
        address: SocketAddr,
    },
    Disconnect(NodeId),
    Knock(SocketAddr),
    Expel(NodeId),
    Probe {
        node: NodeId,
        address: SocketAddr,
        reply: oneshot::Sender<bool>,
    },
    Rpc {
        node: NodeId,
        address: SocketAddr,
        bytes: Bytes,
        reply: oneshot::Sender<Result<Bytes, RpcError>>,
    },
    Open {
        node: NodeId,
        address: SocketAddr,
        reply: streams::Reply,
    },
}

/// Everybody's handle on the control plane. Every `address` is a node's *membership* address; the
/// control plane listens on the next port.
#[derive(Debug, Clone)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    counters: Arc<Counters>,
}

impl Control {
    /// Sends a message, connecting first if need be. Never waits and never fails: a message that
    /// is empty, too large ([`MAX_MESSAGE`]), or finds no connection or no room is dropped and
    /// counted.
    pub fn send(&self, node: NodeId, address: SocketAddr, bytes: Bytes) {
        if bytes.len() > MAX_MESSAGE {
            self.counters.messages_oversize.add_one();
        } else if bytes.is_empty() || self.commands.capacity() < RESERVED {
            self.counters.messages_dropped.add_one();
        } else {
            self.command(Command::Send {
                node,
                address,
                bytes,
            });
        }
    }

    /// Asks for a lasting connection, and dials unless there is one. When it cannot be had or is
    /// lost, an event says so; dialing again is the caller's business.
    pub fn connect(&self, node: NodeId, address: SocketAddr) {
        self.command(Command::Connect { node, address });
    }

    /// Wants no lasting connection any more. Connections that this node has dialed close now; what
    /// the peer has dialed is for the peer to close.
    pub fn disconnect(&self, node: NodeId) {
        self.command(Command::Disconnect(node));
    }

    /// Dials whoever lives at a membership address, of whom no more is known: for who holds a
    /// ticket, and for who has lost sight of everybody. What comes of it are the events of any
    /// connection, and those of the gate.
    pub fn knock(&self, address: SocketAddr) {
        self.command(Command::Knock(address));
    }

    /// Closes all connections with a node, also those that it has dialed. Whether it may come
    /// again is decided at the gate.
    pub fn expel(&self, node: NodeId) {
        self.command(Command::Expel(node));
    }

    /// Whether `node` answers within [`PROBE_TIME`], over the connection there is or a new one.
    pub async fn probe(&self, node: NodeId, address: SocketAddr) -> bool {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Probe {
            node,
            address,
            reply,
        });
        matches!(timeout(PROBE_TIME, answer).await, Ok(Ok(true)))
    }

    /// Asks `node` something and waits for the answer, at most `deadline` (and [`MAX_RPC_TIME`]).
    pub async fn rpc(
        &self,
        node: NodeId,
        address: SocketAddr,
        bytes: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, RpcError> {
        if bytes.len() > MAX_REQUEST {
            return Err(RpcError::TooLarge(bytes.len()));
        }
        let (reply, answer) = oneshot::channel();
        self.command(Command::Rpc {
            node,
            address,
            bytes,
            reply,
        });
        match timeout(deadline.min(MAX_RPC_TIME), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(RpcError::Unavailable),
            Err(_elapsed) => Err(RpcError::TimedOut),
        }
    }

    /// Opens a stream to `node`, connecting first if need be; waits at most `deadline` (and
    /// [`MAX_RPC_TIME`]).
    pub async fn open_stream(
        &self,
        node: NodeId,
        address: SocketAddr,
        deadline: Duration,
    ) -> Result<PeerStream, RpcError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Open {
            node,
            address,
            reply,
        });
        match timeout(deadline.min(MAX_RPC_TIME), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_dropped)) => Err(RpcError::Unavailable),
            Err(_elapsed) => Err(RpcError::TimedOut),
        }
    }

    fn command(&self, command: Command) {
        if self.commands.try_send(command).is_err() {
            self.counters.commands_dropped.add_one();
        }
    }
}
