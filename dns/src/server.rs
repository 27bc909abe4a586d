//! The shell: two sockets, and the newest index of names.
//!
//! The loops are ours and not hickory's: its server starts a task for each datagram, takes any
//! number of TCP connections from anyone, and logs each answer at the level of this program's own
//! messages. Here one task answers datagrams in turn, since an answer takes microseconds and waits
//! for nothing; what comes faster stays in the socket's buffer and is dropped by the kernel.
//!
//! A second task rebuilds the index when the route table changes. Readers hold an [`Arc`] of the
//! last one and take no lock unless there is a newer one.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::route::RouteTable;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::respond::{Transport, refuse, respond};
use crate::suffix::Suffix;
use crate::zone::Zone;

/// Largest query over UDP in bytes. A question is 271 bytes at most, EDNS options add little; what
/// is longer is cut by the kernel and refused as malformed.
const MAX_UDP_QUERY: usize = 1232;

/// Most TCP connections at once. TCP is for the answers that fit no datagram, so few are needed,
/// and a connection beyond is closed at once rather than kept waiting.
const MAX_TCP: usize = 64;

/// How long a TCP client may take for a query, from the first wait to its last byte, and for
/// reading the answer. RFC 7766, 6.2.3 leaves it to the server; slow clients hold one of
/// [`MAX_TCP`] places.
const TCP_PATIENCE: Duration = Duration::from_secs(5);

/// Pause after a change of the index. While a deployment runs, the table changes many times a
/// second; this makes one index of a burst and delays a change by no more than this.
const BUILD_PAUSE: Duration = Duration::from_millis(10);

/// Pause after a failed accept: it usually means that the process has no free descriptor, and at
/// once would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A UDP socket that fails so often in a row is broken, and the server ends.
const MAX_UDP_FAILURES: u32 = 100;

/// Tries to find a port that is free for UDP and TCP alike, when the system may choose.
const PORT_TRIES: u32 = 16;

/// Tells whether a client other than this host may ask. Called for each packet, so it must be
/// quick and must not block.
pub type Allow = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// A bound server that does not answer yet.
pub struct DnsServer {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
    allow: Option<Allow>,
}

/// The server could not take its address.
#[derive(Debug, Error)]
#[error("cannot answer DNS queries on {address} over {transport}: {source}; {hint}", hint = hint(source))]
pub struct BindError {
    /// The address asked for.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// The server ended although it was not asked to.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket fails again and again.
    #[error("the DNS socket on {address} is broken: {source}; restart the daemon")]
    Socket {
        /// The address of the server.
        address: SocketAddr,
        /// The last failure.
        source: io::Error,
    },
}

impl DnsServer {
    /// Takes an address for UDP and TCP. Port 0 lets the system choose one.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let mut tries = 1;
        loop {
            match Self::try_bind(address).await {
                Err(_taken) if address.port() == 0 && tries < PORT_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn try_bind(address: SocketAddr) -> Result<Self, BindError> {
        let fault = |transport| {
            move |source| BindError {
                address,
                transport,
                source,
            }
        };
        let tcp = TcpListener::bind(address).await.map_err(fault("TCP"))?;
        let bound = tcp.local_addr().map_err(fault("TCP"))?;
        let udp = UdpSocket::bind(bound).await.map_err(fault("UDP"))?;
        Ok(Self {
            udp,
            tcp,
            address: bound,
            allow: None,
        })
    }

    /// Also serves the clients that `allow` lets in. Without it, only those on this host are
    /// served: by a loopback address, or by the address that the server is bound to.
    #[must_use]
    pub fn allow(mut self, allow: Allow) -> Self {
        self.allow = Some(allow);
        self
    }

    /// The address that was taken, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers from the newest route table until `stop` is cancelled. When this returns, or is
    /// dropped, both ports are free and no task is left.
    pub async fn serve(
        self,
        mut routes: watch::Receiver<Arc<RouteTable>>,
        suffix: Suffix,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let door = Door {
            bound: self.address.ip(),
            allow: self.allow,
        };
        let first = Zone::new(&suffix, &routes.borrow_and_update().clone(), 1);
        let (newest, zones) = watch::channel(Arc::new(first));
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = keep_current(&suffix, routes, &newest) => Ok(()),
            () = serve_tcp(self.tcp, &door, zones.clone()) => Ok(()),
            result = serve_udp(&self.udp, &door, zones.clone()) => {
                result.map_err(|source| ServeError::Socket { address: self.address, source })
            }
        }
    }
}

impl fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsServer({})", self.address)
    }
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE, so choose a higher one"
        }
        io::ErrorKind::AddrInUse => "stop the resolver that has it, or choose another port",
        io::ErrorKind::AddrNotAvailable => "choose an address of this host",
        _other => "choose another address",
    }
}

/// Who is let in.
#[derive(Clone)]
struct Door {
    bound: IpAddr,
    allow: Option<Allow>,
}

impl Door {
    fn admits(&self, client: SocketAddr) -> bool {
        let ip = client.ip().to_canonical();
        // No answer to port 0: the system would reject it.
        let here = ip.is_loopback() || ip == self.bound.to_canonical();
        client.port() != 0 && (here || self.allow.as_ref().is_some_and(|allow| allow(ip)))
    }
}

/// Rebuilds the index when the table changes. When its writer is gone, the last one stays.
async fn keep_current(
    suffix: &Suffix,
    mut routes: watch::Receiver<Arc<RouteTable>>,
    newest: &watch::Sender<Arc<Zone>>,
) {
    let mut serial = 1_u32;
    while routes.changed().await.is_ok() {
        serial = serial.wrapping_add(1);
        let table = routes.borrow_and_update().clone();
        newest.send_replace(Arc::new(Zone::new(suffix, &table, serial)));
        sleep(BUILD_PAUSE).await;
    }
    std::future::pending().await
}

/// The newest index, cached: one atomic load per query as long as it does not change.
struct Current {
    zone: Arc<Zone>,
    zones: watch::Receiver<Arc<Zone>>,
    answers: u32,
}

impl Current {
    fn new(mut zones: watch::Receiver<Arc<Zone>>) -> Self {
        let zone = zones.borrow_and_update().clone();
        Self {
            zone,
            zones,
            answers: 0,
        }
    }

    fn answer(&mut self, query: &[u8], transport: Transport, reply: &mut Vec<u8>) -> bool {
        if self.zones.has_changed().unwrap_or(false) {
            self.zone = self.zones.borrow_and_update().clone();
        }
        self.answers = self.answers.wrapping_add(1);
        respond(&self.zone, query, transport, mix(self.answers), reply)
    }
}

/// Spreads a counter over all numbers (the finalizer of MurmurHash3), so that clients that ask for
/// A and AAAA in turn do not always meet the same remainder.
fn mix(counter: u32) -> u32 {
    let mut x = counter;
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

async fn serve_udp(
    socket: &UdpSocket,
    door: &Door,
    zones: watch::Receiver<Arc<Zone>>,
) -> io::Result<()> {
    let mut current = Current::new(zones);
    let mut query = [0; MAX_UDP_QUERY];
    let mut reply = Vec::with_capacity(MAX_UDP_QUERY);
    let mut failures = 0;
    loop {
        let (length, client) = match socket.recv_from(&mut query).await {
            Ok(received) => received,
            Err(error) if failures >= MAX_UDP_FAILURES => return Err(error),
            Err(error) => {
                failures += 1;
                debug!(%error, "no DNS query could be received");
                continue;
            }
        };
        failures = 0;
        let query = query.get(..length).unwrap_or_default();
        let answered = if door.admits(client) {
            current.answer(query, Transport::Udp, &mut reply)
        } else {
            client.port() != 0 && refuse(query, &mut reply)
        };
        if !answered {
            continue;
        }
        // An answer that cannot be sent is lost, as datagrams may be: the client asks again.
        if let Err(error) = socket.send_to(&reply, client).await {
            debug!(%error, %client, "a DNS answer could not be sent");
        }
    }
}

async fn serve_tcp(listener: TcpListener, door: &Door, zones: watch::Receiver<Arc<Zone>>) {
    let mut clients = JoinSet::new();
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "no TCP connection for DNS could be accepted; trying again");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while let Some(ended) = clients.try_join_next() {
            if let Err(error) = ended {
                warn!(%error, "a task that answers DNS over TCP failed");
            }
        }
        if clients.len() >= MAX_TCP || !door.admits(client) {
            debug!(%client, "a TCP connection for DNS was turned away");
            continue;
        }
        let current = Current::new(zones.clone());
        clients.spawn(async move {
            if let Err(error) = serve_client(stream, current).await {
                debug!(%error, %client, "a TCP client of DNS was lost");
            }
        });
    }
}

/// Answers one query after the other until the client goes or takes too long.
async fn serve_client(mut stream: TcpStream, mut current: Current) -> io::Result<()> {
    let mut query = Vec::new();
    let mut reply = Vec::new();
    loop {
        timeout(TCP_PATIENCE, receive(&mut stream, &mut query)).await??;
        if !current.answer(&query, Transport::Tcp, &mut reply) {
            return Ok(());
        }
        // Length and message in one write: two packets would cost the client a round trip.
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        reply.splice(..0, length.to_be_bytes());
        timeout(TCP_PATIENCE, stream.write_all(&reply)).await??;
    }
}

async fn receive(stream: &mut TcpStream, query: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    query.resize(usize::from(length), 0);
    stream.read_exact(query).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
