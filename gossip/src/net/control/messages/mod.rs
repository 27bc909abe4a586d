//! One-way messages between connected nodes, protocol `/dunlin/control/1`.
//!
//! Every connection carries two long-lived streams in each direction, one for small messages and
//! one for large ones, so that a whole document under way does not hold up a bid. On each, messages
//! keep their order, cost four bytes beyond themselves, and need no round trip. (One stream per
//! message, as libp2p's request-response does it, costs a protocol negotiation each and keeps no
//! order.)
//!
//! Every stream has a bounded queue before it; what does not fit is dropped and counted. So a peer
//! that reads slowly, or not at all any more, costs a bounded amount of memory and no time.
//!
//! TCP has no keep-alive that ends a dead connection within seconds, so on TCP empty frames flow
//! when nothing else does, and a silent connection is closed. QUIC does that by itself.

mod handler;
mod queue;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use dunlin_state::model::NodeId;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::FromSwarm;
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use self::handler::{FromHandler, Handler};
use self::queue::Bound;
use self::wire::Budget;
use super::identity;
use super::peers::{self, Opener};
use crate::net::counters::Counters;

/// Bytes of the largest message: a saved document of 8 MiB and its envelope.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024 + 100 * 1024;

/// Bytes from which a message travels on the stream for large ones.
const LARGE: usize = 64 * 1024;

/// Small messages waiting for a connection: several seconds of a busy node's traffic to one peer.
const SMALL_BOUND: Bound = Bound {
    messages: 256,
    bytes: 4 * 1024 * 1024,
};

/// Large messages waiting for a connection: room for two documents and some bundles of changes.
const LARGE_BOUND: Bound = Bound {
    messages: 16,
    bytes: 2 * MAX_MESSAGE,
};

/// The stream that a message travels on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Small,
    Large,
}

impl Lane {
    fn of(bytes: &Bytes) -> Self {
        if bytes.len() < LARGE {
            Self::Small
        } else {
            Self::Large
        }
    }
}

/// What the swarm's owner is told.
#[derive(Debug)]
pub(super) enum MessagesEvent {
    /// A message has arrived; never empty.
    Received(NodeId, Bytes),
    /// After [`Behaviour::finish`], a peer has read everything.
    Finished,
    /// A connection is of no use any more. Closing it properly may take TCP minutes, so it counts
    /// as gone from now on.
    Dead(NodeId, ConnectionId),
}

/// The queues of one connection.
#[derive(Debug)]
struct Connection {
    opener: Opener,
    small: queue::Sender,
    large: queue::Sender,
}

/// libp2p's half of this module: one [`Handler`] per connection.
#[derive(Debug)]
pub(super) struct Behaviour {
    local: NodeId,
    connections: BTreeMap<NodeId, BTreeMap<ConnectionId, Connection>>,
    /// Connections whose queues have ended and whose peer has not read everything yet.
    finishing: BTreeSet<ConnectionId>,
    /// At most as long as what one poll of the swarm brings.
    events: VecDeque<ToSwarm<MessagesEvent, std::convert::Infallible>>,
    budget: Budget,
    counters: Arc<Counters>,
}

impl Behaviour {
    pub(super) fn new(local: NodeId, counters: Arc<Counters>) -> Self {
        Self {
            local,
            connections: BTreeMap::new(),
            finishing: BTreeSet::new(),
            events: VecDeque::new(),
            budget: Budget::new(),
            counters,
        }
    }

    /// Queues a message on the connection with `to` that stays, if there are two. False when there
    /// is none, or its queue is full.
    pub(super) fn send(&self, to: &NodeId, bytes: Bytes) -> bool {
        let keeper = peers::keeper(&self.local, to);
        let connections = self.connections.get(to);
        let best = connections.and_then(|all| all.values().min_by_key(|c| c.opener != keeper));
        let Some(connection) = best else {
            return false;
        };
        match Lane::of(&bytes) {
            Lane::Small => connection.small.push(bytes),
            Lane::Large => connection.large.push(bytes),
        }
    }

    /// Ends all queues. From now on nothing can be sent.
    pub(super) fn finish(&mut self) {
        let all = std::mem::take(&mut self.connections).into_values();
        self.finishing.extend(all.flat_map(BTreeMap::into_keys));
    }

    /// Whether, since [`Behaviour::finish`], the peers have read everything.
    pub(super) fn is_finished(&self) -> bool {
        self.finishing.is_empty()
    }

    fn handler(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        opener: Opener,
    ) -> Handler {
        let (small, small_out) = queue::queue(SMALL_BOUND);
        let (large, large_out) = queue::queue(LARGE_BOUND);
        if let Some(node) = identity::node_id(&peer) {
            let connections = self.connections.entry(node).or_default();
            let connection = Connection {
                opener,
                small,
                large,
            };
            connections.insert(id, connection);
        }
        let tcp = identity::socket_address(address).is_some_and(|(_, tcp)| tcp);
        Handler::new([small_out, large_out], tcp, self.budget.clone())
    }

    /// Sends nothing over this connection any more.
    pub(super) fn forget(&mut self, node: NodeId, id: ConnectionId) {
        self.finishing.remove(&id);
        if let Some(connections) = self.connections.get_mut(&node) {
            connections.remove(&id);
            if connections.is_empty() {
                self.connections.remove(&node);
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = MessagesEvent;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer, remote, Opener::Them))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer, address, Opener::Us))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some((node, id)) = identity::ended(&event) {
            self.forget(node, id);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: FromHandler) {
        let Some(node) = identity::node_id(&peer) else {
            return;
        };
        match event {
            FromHandler::Message(bytes) => {
                self.counters.messages_received.add_one();
                let received = MessagesEvent::Received(node, bytes);
                self.events.push_back(ToSwarm::GenerateEvent(received));
            }
            FromHandler::Finished => {
                self.finishing.remove(&id);
                self.events
                    .push_back(ToSwarm::GenerateEvent(MessagesEvent::Finished));
            }
            FromHandler::Broken(error) => {
                if error.kind() == std::io::ErrorKind::InvalidData {
                    self.counters.messages_oversize.add_one();
                }
                tracing::debug!(%node, %error, "control connection given up");
                self.forget(node, id);
                let dead = MessagesEvent::Dead(node, id);
                self.events.push_back(ToSwarm::GenerateEvent(dead));
                self.events.push_back(ToSwarm::CloseConnection {
                    peer_id: peer,
                    connection: CloseConnection::One(id),
                });
            }
        }
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Woken by the swarm, which polls behaviours after every event of a connection.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
