//! UDP: a session for each client, carried to one replica for as long as it lasts.
//!
//! Between nodes a session is a stream that says which replica it is for; its datagrams travel as
//! QUIC datagrams that name the stream. One that is too large for a packet goes by the stream
//! itself, after two bytes with its length. The session ends with the stream.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dunlin_state::model::Protocol;
use quinn::udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::carry::{Path, connect};
use super::counters::{Open, add};
use super::hop::{FarSink, FarStream, Inbox, far};
use super::pool::{Lease, Pool};
use super::relay::{Wire, quiet, with_shared};
use super::{Door, Shared};
use crate::origin::Peer;

/// Sessions of one listener. A flood of made-up sources fills them and then opens no more; those
/// that are there go on.
const SESSIONS: usize = 4_096;

/// Datagrams of a client that wait for their replica.
const QUEUE: usize = 64;

/// Largest payload of a datagram.
const MAX_DATAGRAM: usize = 65_535;

/// Silence after which a session ends, when the specification says nothing: above the 30 s after
/// which NAT devices may forget a session (RFC 4787 asks for two minutes, few do).
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// Pause after a receive that failed for a reason that may last.
const PAUSE: Duration = Duration::from_millis(50);

/// A socket that says at which of its addresses a datagram arrived, and answers from there.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

/// Who talks to which of our addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    client: SocketAddr,
    to: Option<IpAddr>,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let local = socket.local_addr()?;
        Ok(Self {
            socket,
            state,
            local,
        })
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<RecvMeta> {
        let read = || {
            let mut meta = [RecvMeta::default()];
            let mut slices = [IoSliceMut::new(buffer)];
            self.state
                .recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta)?;
            Ok(meta[0])
        };
        self.socket.async_io(Interest::READABLE, read).await
    }

    async fn answer(&self, pair: Pair, payload: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: pair.client,
            ecn: None,
            contents: payload,
            segment_size: None,
            src_ip: pair.to,
        };
        let write = || {
            self.state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
        };
        self.socket.async_io(Interest::WRITABLE, write).await
    }
}

/// Carries the sessions of one listener until `stop` is cancelled; then they end at once, since
/// nobody can tell when a UDP client has finished.
pub(crate) async fn serve(
    listener: Arc<Listener>,
    door: Door,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let mut desk = Desk {
        listener,
        door,
        shared,
        sessions: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = desk.tasks.join_next() => match ended {
                Ok(pair) => drop(desk.sessions.remove(&pair)),
                Err(error) => warn!(%error, "the task of a UDP session failed"),
            },
            received = desk.listener.receive(&mut buffer) => match received {
                Ok(meta) => {
                    let pair = Pair { client: meta.addr, to: meta.dst_ip };
                    // The kernel may hand over several of one size in one piece.
                    let bytes = buffer.get(..meta.len).unwrap_or_default();
                    for payload in bytes.chunks(meta.stride.max(1)) {
                        desk.take(pair, Bytes::copy_from_slice(payload));
                    }
                }
                Err(error) => {
                    debug!(%error, "nothing could be received");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// The sessions of one listener.
struct Desk {
    listener: Arc<Listener>,
    door: Door,
    shared: Arc<Shared>,
    sessions: BTreeMap<Pair, mpsc::Sender<Bytes>>,
    tasks: JoinSet<Pair>,
}

impl Desk {
    /// Gives a datagram to its session, which is opened if need be.
    fn take(&mut self, pair: Pair, payload: Bytes) {
        let dropped = &self.door.pool.counters.dropped;
        if let Some(session) = self.sessions.get(&pair) {
            match session.try_send(payload) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => return add(dropped, 1),
                // It has just ended: this opens another.
                Err(TrySendError::Closed(again)) => return self.open(pair, again),
            }
        }
        if self.sessions.len() >= SESSIONS || self.door.pool.admit(pair.client.ip()).is_err() {
            return add(dropped, 1);
        }
        self.open(pair, payload);
    }

    fn open(&mut self, pair: Pair, payload: Bytes) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let _room = sender.try_send(payload);
        self.sessions.insert(pair, sender);
        let listener = Arc::clone(&self.listener);
        let (door, shared) = (self.door.clone(), Arc::clone(&self.shared));
        self.tasks.spawn(async move {
            session(&listener, pair, queue, door, &shared).await;
            pair
        });
    }
}

async fn session(
    listener: &Listener,
    pair: Pair,
    mut queue: mpsc::Receiver<Bytes>,
    door: Door,
    shared: &Shared,
) {
    let Ok(_place) = Arc::clone(&shared.places).try_acquire_owned() else {
        add(&door.pool.counters.dropped, 1);
        return;
    };
    let mut server = listener.local;
    if let Some(to) = pair.to {
        server.set_ip(to);
    }
    let patience = shared.limits.patience;
    let peer = Peer {
        protocol: Protocol::Udp,
        from: pair.client,
        to: server,
    };
    if !door.is_open_to(peer, patience).await {
        add(&door.pool.counters.dropped, 1);
        return;
    }
    let pool = door.share();
    let found = timeout(
        pool.patience(patience),
        connect(shared, (&pool, door.only), pair.client, server),
    )
    .await;
    let Ok(Ok((lease, path))) = found else {
        add(&pool.counters.unserved, 1);
        return;
    };
    add(&pool.counters.connections, 1);
    let _open = Open::count(&pool.counters.active);
    let idle = pool.policy().idle_timeout_ms;
    let idle = idle.map_or(IDLE, Duration::from_millis);
    let carried = Session {
        listener,
        pair,
        pool: &pool,
        touched: AtomicBool::new(false),
    };
    carried.run(&mut queue, lease, path, idle).await;
}

/// What a session needs to answer its client.
struct Session<'a> {
    listener: &'a Listener,
    pair: Pair,
    pool: &'a Pool,
    touched: AtomicBool,
}

impl Session<'_> {
    async fn run(
        &self,
        queue: &mut mpsc::Receiver<Bytes>,
        lease: Lease,
        path: Path,
        idle: Duration,
    ) {
        let counters = &self.pool.counters;
        let carry = async {
            match path {
                Path::Udp(socket) => self.local(queue, &socket).await,
                Path::Hop(link, Wire::Hop(send, recv)) => {
                    let (sink, inbox, stream) = far(link, send, recv);
                    self.remote(queue, sink, inbox, stream).await
                }
                Path::Tcp(_) | Path::Hop(_, Wire::Tcp(_)) => Ok(()),
            }
        };
        tokio::select! {
            ended = carry => if let Err(error) = ended {
                debug!(%error, "a UDP session broke; the client's next datagram opens another");
                add(&counters.broken, 1);
                lease.failed();
            },
            () = lease.cut.cancelled() => add(&counters.cut, 1),
            () = quiet(&self.touched, idle) => add(&counters.idle, 1),
        }
    }

    async fn local(&self, queue: &mut mpsc::Receiver<Bytes>, socket: &UdpSocket) -> io::Result<()> {
        loop {
            tokio::select! {
                payload = queue.recv() => {
                    let Some(payload) = payload else { return Ok(()) };
                    self.note(&self.pool.counters.received, payload.len());
                    socket.send(&payload).await?;
                }
                payload = receive(socket) => self.reply(&payload?).await?,
            }
        }
    }

    async fn remote(
        &self,
        queue: &mut mpsc::Receiver<Bytes>,
        mut sink: FarSink,
        mut inbox: Inbox,
        mut stream: FarStream,
    ) -> io::Result<()> {
        let up = async {
            while let Some(payload) = queue.recv().await {
                self.note(&self.pool.counters.received, payload.len());
                sink.send(&payload).await?;
            }
            Ok(())
        };
        let down = async {
            while let Some(payload) = inbox.datagrams.recv().await {
                self.reply(&payload).await?;
            }
            Ok(())
        };
        let large = async {
            while let Some(payload) = stream.next().await? {
                self.reply(&payload).await?;
            }
            Ok(())
        };
        tokio::select! {
            ended = up => ended,
            ended = down => ended,
            ended = large => ended,
        }
    }

    async fn reply(&self, payload: &[u8]) -> io::Result<()> {
        self.note(&self.pool.counters.sent, payload.len());
        self.listener.answer(self.pair, payload).await
    }

    fn note(&self, counter: &AtomicU64, bytes: usize) {
        self.touched.store(true, Ordering::Relaxed);
        add(counter, bytes as u64);
    }
}

/// The other side: carries a session that a peer has opened to this node's own replica.
pub(crate) async fn serve_far(
    mut sink: FarSink,
    mut inbox: Inbox,
    mut stream: FarStream,
    socket: UdpSocket,
    idle: Duration,
) {
    let touched = AtomicBool::new(false);
    let touch = || touched.store(true, Ordering::Relaxed);
    let small = async {
        while let Some(payload) = inbox.datagrams.recv().await {
            touch();
            socket.send(&payload).await?;
        }
        Ok(())
    };
    let large = async {
        while let Some(payload) = stream.next().await? {
            touch();
            socket.send(&payload).await?;
        }
        Ok(())
    };
    let back = async {
        loop {
            let payload = receive(&socket).await?;
            touch();
            sink.send(&payload).await?;
        }
    };
    let ended: io::Result<()> = tokio::select! {
        ended = small => ended,
        ended = large => ended,
        ended = back => ended,
        () = quiet(&touched, idle) => Ok(()),
    };
    if let Err(error) = ended {
        debug!(%error, "a UDP session of a peer broke");
    }
}

/// A socket that talks to one replica only.
pub(crate) async fn socket_to(replica: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match replica {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(replica).await?;
    Ok(socket)
}

/// The next datagram. The buffer is one of the thread's, so that thousands of sessions need none.
async fn receive(socket: &UdpSocket) -> io::Result<Bytes> {
    loop {
        socket.readable().await?;
        let received: io::Result<Bytes> = with_shared(|buffer| {
            let count = socket.try_recv(buffer)?;
            Ok(Bytes::copy_from_slice(
                buffer.get(..count).unwrap_or_default(),
            ))
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
