//! The way to replicas on other nodes: one QUIC connection between two nodes, one stream in it for
//! each TCP connection.
//!
//! Either side may open the connection, and both use it. When both did at once, the one that the
//! smaller node id opened is kept, and the other ends with the streams that are on it already.
//! A node takes streams for its own ready replicas alone, by its own route table: it is asked for
//! a slot in an epoch, never for an address, so nobody can use it as a relay to anywhere else.

mod link;
mod reborn;
mod serve;
mod session;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_state::model::{NodeId, Protocol};
use dunlin_state::route::RouteTable;
use quinn::{ConnectionError, Endpoint, TokioRuntime, VarInt};
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub(crate) use self::link::Inbox;
pub(crate) use self::link::Link;
use self::serve::Server;
pub(crate) use self::session::{FarSink, FarStream, far};
use self::tls::Credentials;
pub(crate) use self::wire::Answer;
use self::wire::Request;
use super::counters::{Counters, Tally};
use super::pool::PortKey;
use super::relay::Wire;
use crate::balance::Target;

/// Reads the head of a stream as a node does that is asked for a replica, and writes it again;
/// `None` when it is refused. For tests with hostile input.
pub fn reread_request(bytes: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    if usize::from(u16::from_be_bytes(*length)) != rest.len() {
        return None;
    }
    Some(Request::decode(rest).ok()?.encode())
}

/// The data plane listens on so many ports after the membership port.
pub const PORT_OFFSET: u16 = 2;

/// Bytes that a stream may have on the way. One gigabit at 8 ms; two hosts in one data centre need
/// a tenth. What a slow replica does not take waits here and nowhere else.
const STREAM_WINDOW: u32 = 1 << 20;

/// Bytes that all streams of a connection may have on the way. So many replicas that take nothing
/// (256) have to be there before they hold up the others.
const CONNECTION_WINDOW: u32 = 256 << 20;

/// Bytes that may be sent and not acknowledged on a connection.
const SEND_WINDOW: u64 = 8 << 20;

/// Streams of one peer at a time. Further ones wait at the peer.
const STREAMS: u32 = 8_192;

/// Bytes of datagrams that wait to be sent or read; further ones replace the oldest.
const DATAGRAMS: usize = 1 << 20;

/// Between packets that keep an idle connection alive through middleboxes.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Silence after which a connection is given up. Membership is much quicker to tell; this is for
/// what it cannot see, a port that is blocked.
const IDLE: Duration = Duration::from_secs(30);

/// Bytes of the socket's buffers: bursts of a fast connection fit in (measured: without, a third of
/// the throughput on loopback).
const SOCKET_BUFFER: usize = 4 << 20;

/// The largest packets that are tried: those of networks with jumbo frames.
const MAX_MTU: u16 = 8_928;

/// After a failed attempt, further ones to that node fail at once for so long: each would hold a
/// client up for the whole of its time.
const FAILED_PAUSE: Duration = Duration::from_millis(300);

/// Handshakes of peers at a time.
const HANDSHAKES: usize = 256;

/// Connections that wait to be looked after.
const NEW_LINKS: usize = 64;

/// The code with which connections are closed.
const CLOSED: VarInt = VarInt::from_u32(0);

/// The hop between nodes cannot be set up.
#[derive(Debug, Error)]
pub enum HopSetupError {
    /// The key is not usable.
    #[error("the node's key cannot be used for connections between nodes: {0}")]
    Key(String),
    /// The socket is not usable.
    #[error("cannot carry connections between nodes: {0}")]
    Socket(#[from] io::Error),
}

/// A replica on another node cannot be reached.
#[derive(Debug, Error)]
pub(crate) enum HopError {
    #[error("its node is not known here")]
    UnknownNode,
    #[error("its node could not be reached just now")]
    FailedBefore,
    #[error("its node cannot be reached: {0}")]
    Connect(String),
    #[error("the connection to its node broke: {0}")]
    Link(#[from] ConnectionError),
    #[error("its node broke the stream")]
    Stream,
    #[error("its node answered {0:?}")]
    Answer(Answer),
}

/// What a hop needs.
#[derive(Debug)]
pub struct HopConfig {
    /// This node.
    pub node: NodeId,
    /// The seed of its ed25519 key.
    pub seed: [u8; 32],
    /// Bound to the node's own address, [`PORT_OFFSET`] after the membership port.
    pub socket: UdpSocket,
}

/// Reaches replicas on other nodes.
pub struct Hop {
    node: NodeId,
    endpoint: Endpoint,
    credentials: Credentials,
    routes: watch::Receiver<Arc<RouteTable>>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    served: Arc<Counters>,
    opened: mpsc::Sender<Arc<Link>>,
}

/// What a hop does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HopView {
    /// The nodes that it has a connection with, ordered.
    pub links: Vec<NodeId>,
    /// What peers have brought to replicas of this node: connections, bytes of TCP, what was not
    /// served, what broke.
    pub served: Tally,
}

/// What is known of the way to one node.
#[derive(Default)]
struct Peer {
    state: Mutex<PeerState>,
    /// Held while a connection is made, so that only one is.
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct PeerState {
    link: Option<Arc<Link>>,
    failed: Option<Instant>,
}

/// The tasks of a hop.
pub struct HopTask {
    hop: Arc<Hop>,
    opened: mpsc::Receiver<Arc<Link>>,
    server: Server,
    /// Cancelled when nobody on this node uses the connections any more.
    users: Option<CancellationToken>,
}

impl Hop {
    /// Sets the hop up. Nothing is answered before [`HopTask::run`]. `places` bounds the streams of
    /// all peers together.
    ///
    /// # Errors
    /// When the socket or the key cannot be used.
    pub fn new(
        config: HopConfig,
        routes: watch::Receiver<Arc<RouteTable>>,
        places: Arc<Semaphore>,
    ) -> Result<(Arc<Self>, HopTask), HopSetupError> {
        let HopConfig { node, seed, socket } = config;
        let credentials = Credentials::new(node, &seed, routes.clone())
            .map_err(|error| HopSetupError::Key(error.to_string()))?;
        enlarge(&socket);
        socket.set_nonblocking(true)?;
        let crypto = credentials.server().map_err(HopSetupError::Key)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(Arc::new(transport()));
        let endpoint = Endpoint::new(
            reborn::endpoint(&seed),
            Some(server),
            socket,
            Arc::new(TokioRuntime),
        )?;
        let (opened, links) = mpsc::channel(NEW_LINKS);
        let hop = Arc::new(Self {
            node,
            endpoint,
            credentials,
            routes: routes.clone(),
            peers: Mutex::default(),
            served: Arc::default(),
            opened,
        });
        let task = HopTask {
            hop: Arc::clone(&hop),
            opened: links,
            server: Server::new(node, routes, places, Arc::clone(&hop.served)),
            users: None,
        };
        Ok((hop, task))
    }

    /// What it carries now and has carried, for those who show it.
    pub fn view(&self) -> HopView {
        let peers = self.lock();
        let live = peers.iter().filter(|(_, peer)| peer.live().is_some());
        HopView {
            links: live.map(|(node, _)| *node).collect(),
            served: self.served.tally(),
        }
    }

    /// Opens a stream to a replica and waits until the replica has taken the connection. The caller
    /// bounds the time.
    pub(crate) async fn open(
        &self,
        target: &Target,
        port: &PortKey,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Result<(Arc<Link>, Wire), HopError> {
        let link = self.link(target.node).await?;
        let (mut send, mut recv) = link.connection.open_bi().await?;
        let request = Request {
            protocol: port.protocol,
            service: port.service.clone(),
            slot: target.slot,
            epoch: target.epoch,
            target: port.target,
            client,
            server,
        };
        let broken = |_reason| HopError::Stream;
        send.write_all(&request.encode())
            .await
            .map_err(|_reason| HopError::Stream)?;
        let mut answer = [0; 1];
        recv.read_exact(&mut answer).await.map_err(broken)?;
        match Answer::read(answer[0]) {
            Some(Answer::Ready) => Ok((link, Wire::Hop(send, recv))),
            Some(other) => Err(HopError::Answer(other)),
            None => Err(HopError::Stream),
        }
    }

    /// The connection to a node, made if need be.
    async fn link(&self, node: NodeId) -> Result<Arc<Link>, HopError> {
        let peer = Arc::clone(self.lock().entry(node).or_default());
        if let Some(link) = peer.live() {
            return Ok(link);
        }
        let _only_one = peer.dialing.lock().await;
        if let Some(link) = peer.live() {
            return Ok(link);
        }
        let failed = peer.lock().failed;
        if failed.is_some_and(|at| at.elapsed() < FAILED_PAUSE) {
            return Err(HopError::FailedBefore);
        }
        // Noted beforehand: whoever gives up waiting has found out as much as an error would say.
        peer.lock().failed = Some(Instant::now());
        let connection = self.connect(node).await?;
        peer.lock().failed = None;
        let link = Link::new(node, connection, true);
        self.register(&link);
        if self.opened.send(Arc::clone(&link)).await.is_err() {
            link.connection.close(CLOSED, b"stopping");
            return Err(HopError::FailedBefore);
        }
        Ok(link)
    }

    async fn connect(&self, node: NodeId) -> Result<quinn::Connection, HopError> {
        let address = {
            let table = self.routes.borrow();
            table.nodes.get(&node).and_then(|n| n.address)
        };
        let mut address = address.ok_or(HopError::UnknownNode)?;
        address.set_port(address.port().saturating_add(PORT_OFFSET));
        let crypto = self.credentials.client(node).map_err(HopError::Connect)?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        // The name goes unused: who answers is told by its key.
        let connecting = self.endpoint.connect_with(config, address, "node");
        let connecting = connecting.map_err(|error| HopError::Connect(error.to_string()))?;
        debug!(node = %node.short(), %address, "connecting to a node");
        Ok(connecting.await?)
    }

    /// Uses a new connection for what is to come, unless there is one already that is to be kept.
    fn register(&self, link: &Arc<Link>) {
        let peer = Arc::clone(self.lock().entry(link.node).or_default());
        let mut state = peer.lock();
        let by_smaller = |link: &Link| link.dialed == (self.node < link.node);
        match &state.link {
            Some(known) if known.is_live() && by_smaller(known) && !by_smaller(link) => {
                link.retire();
            }
            Some(known) => {
                known.retire();
                state.link = Some(Arc::clone(link));
            }
            None => state.link = Some(Arc::clone(link)),
        }
    }

    /// Closes connections with those who are members no longer, and forgets them.
    fn drop_strangers(&self) {
        let table = self.routes.borrow().clone();
        self.lock().retain(|node, peer| {
            let known = table.nodes.contains_key(node);
            if !known && let Some(link) = &peer.lock().link {
                link.connection.close(CLOSED, b"no member");
            }
            known
        });
    }

    /// Nothing panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Hop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hop({})", self.node.short())
    }
}

impl std::fmt::Debug for HopTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HopTask({})", self.hop.node.short())
    }
}

impl Peer {
    fn live(&self) -> Option<Arc<Link>> {
        let state = self.lock();
        state.link.as_ref().filter(|link| link.is_live()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HopTask {
    /// Keeps connections open after a stop until `users` is cancelled, within the drain: this
    /// node's own proxies are through then.
    #[must_use]
    pub fn used_until(mut self, users: CancellationToken) -> Self {
        self.users = Some(users);
        self
    }

    /// Looks after all connections until `stop` is cancelled. Then no stream is taken any more, and
    /// those that are open may go on for `drain`.
    pub async fn run(mut self, stop: CancellationToken, drain: Duration) {
        let mut routes = self.hop.routes.clone();
        let mut tasks = JoinSet::new();
        let mut alive = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(incoming) = self.hop.endpoint.accept() => {
                    if tasks.len() >= HANDSHAKES + self.hop.lock().len() * 2 {
                        incoming.refuse();
                        continue;
                    }
                    let (hop, server) = (Arc::clone(&self.hop), self.server.clone());
                    let stop = stop.clone();
                    tasks.spawn(async move {
                        match accept(&hop, incoming).await {
                            Ok(link) => server.serve(link, stop, drain).await,
                            Err(error) => debug!(error, "a connection of a node was not taken"),
                        }
                    });
                }
                Some(link) = self.opened.recv() => {
                    tasks.spawn(self.server.clone().serve(link, stop.clone(), drain));
                }
                changed = routes.changed(), if alive => {
                    alive = changed.is_ok();
                    self.hop.drop_strangers();
                }
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        warn!(%error, "the task of a connection between nodes failed");
                    }
                }
            }
        }
        let users = self.users;
        let all = async {
            while tasks.join_next().await.is_some() {}
            if let Some(users) = users {
                users.cancelled().await;
            }
        };
        if timeout(drain, all).await.is_err() {
            tasks.shutdown().await;
        }
        self.hop.endpoint.close(CLOSED, b"stopping");
        // Whoever is not told now finds out by silence.
        let _told = timeout(Duration::from_millis(100), self.hop.endpoint.wait_idle()).await;
    }
}

/// Asks for large buffers: past the system's limit where that is permitted, else as much as it
/// grants. With less, bursts lose packets, and whoever waits for one of those waits for tens of
/// milliseconds.
fn enlarge(socket: &UdpSocket) {
    if set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER).is_err() {
        let _granted = set_socket_recv_buffer_size(socket, SOCKET_BUFFER);
    }
    let _granted = set_socket_send_buffer_size(socket, SOCKET_BUFFER);
}

async fn accept(hop: &Hop, incoming: quinn::Incoming) -> Result<Arc<Link>, String> {
    let connection = incoming.await.map_err(|error| error.to_string())?;
    let node = tls::peer(&connection).ok_or("it showed no key")?;
    let link = Link::new(node, connection, false);
    hop.register(&link);
    Ok(link)
}

fn transport() -> quinn::TransportConfig {
    let mut config = quinn::TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(IDLE).ok();
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_MTU);
    config
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(idle)
        .mtu_discovery_config(Some(mtu));
    config
}

/// Whether a protocol is carried as streams of bytes.
fn is_stream(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => true,
        Protocol::Udp => false,
    }
}

#[cfg(test)]
mod tests;
