//! Streams both ways between two connected nodes, protocol `/dunlin/stream/1`.
//!
//! For what is neither a message nor a question with one answer: a command that is run beside a
//! replica of another node, the content of a volume. What travels is opaque here; both ends have
//! proven who they are. Each stream has its own flow control, so that one whose reader is slow
//! holds up nobody else, and dropping an end tells the other.
//!
//! A connection with open streams is not closed for want of traffic.

mod handler;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use dunlin_state::model::NodeId;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::FromSwarm;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use self::handler::{Handler, Open};
use super::peers::{self, Opener};
use super::{RpcError, identity};

/// Who asked for a stream.
pub(super) type Reply = oneshot::Sender<Result<PeerStream, RpcError>>;

/// One end of a stream to another node.
#[derive(Debug)]
pub struct PeerStream {
    inner: Compat<libp2p::Stream>,
    /// Counted as long as the stream is open.
    _open: Arc<()>,
}

impl PeerStream {
    fn new(stream: libp2p::Stream, open: &Arc<()>) -> Self {
        Self {
            inner: stream.compat(),
            _open: Arc::clone(open),
        }
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A connection as far as streams go.
#[derive(Debug)]
struct Connection {
    opener: Opener,
    /// Held by its handler, and by every open stream.
    open: Weak<()>,
}

/// libp2p's half of this module: one [`Handler`] per connection.
#[derive(Debug)]
pub(super) struct Behaviour {
    local: NodeId,
    connections: BTreeMap<NodeId, BTreeMap<ConnectionId, Connection>>,
    /// At most as long as what one poll of the swarm and the commands before it bring.
    events: VecDeque<ToSwarm<(NodeId, PeerStream), Open>>,
}

impl Behaviour {
    pub(super) fn new(local: NodeId) -> Self {
        Self {
            local,
            connections: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Opens a stream on the connection with `to` that stays, if there are two.
    pub(super) fn open(&mut self, to: &NodeId, reply: Reply) {
        let keeper = peers::keeper(&self.local, to);
        let connections = self.connections.get(to);
        let best = connections.and_then(|all| all.iter().min_by_key(|(_, c)| c.opener != keeper));
        let Some((id, _)) = best else {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(Err(RpcError::Disconnected));
            return;
        };
        self.events.push_back(ToSwarm::NotifyHandler {
            peer_id: identity::peer_id(to),
            handler: NotifyHandler::One(*id),
            event: Open(reply),
        });
    }

    /// The connections that carry streams now.
    pub(super) fn busy(&self) -> BTreeSet<ConnectionId> {
        let all = self.connections.values().flatten();
        let busy = all.filter(|(_, connection)| connection.open.strong_count() > 1);
        busy.map(|(id, _)| *id).collect()
    }

    fn handler(&mut self, id: ConnectionId, peer: PeerId, opener: Opener) -> Handler {
        let open = Arc::new(());
        if let Some(node) = identity::node_id(&peer) {
            let connection = Connection {
                opener,
                open: Arc::downgrade(&open),
            };
            let connections = self.connections.entry(node).or_default();
            connections.insert(id, connection);
        }
        Handler::new(open)
    }

    fn forget(&mut self, node: NodeId, id: ConnectionId) {
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
    type ToSwarm = (NodeId, PeerStream);

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer, Opener::Them))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id, peer, Opener::Us))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some((node, id)) = identity::ended(&event) {
            self.forget(node, id);
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _id: ConnectionId, stream: PeerStream) {
        if let Some(node) = identity::node_id(&peer) {
            self.events
                .push_back(ToSwarm::GenerateEvent((node, stream)));
        }
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Polled after every event of a connection and every command to the swarm's owner.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
