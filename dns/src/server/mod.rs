//! The shell: sockets, the newest index of names, and who is let in.
//!
//! The loops are ours and not hickory's: its server starts a task for each datagram, takes any
//! number of TCP connections from anyone, and logs each answer at the level of this program's own
//! messages. Here one task for each address answers datagrams in turn, since an answer takes less
//! than a microsecond and waits for nothing; what comes faster stays in the socket's buffer and is
//! dropped by the kernel. Names that others must be asked about leave this task at once.
//!
//! Another task renews the index when the route table changes. Readers hold an [`Arc`] of the last
//! one and take no lock unless there is a newer one.

mod current;
mod door;
mod tcp;
mod udp;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use dunlin_state::route::RouteTable;
use thiserror::Error;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::forward::{Upstreams, forwarder};
use crate::suffix::Suffix;
use crate::tally::Counters;
use crate::zone::Zone;

use current::{Current, keep_current};
pub use door::Allow;
use door::Door;
pub(crate) use door::is_of_this_host;
pub(crate) use udp::Datagrams;

/// Tries to find a port that is free for UDP and TCP alike, when the system may choose.
const PORT_TRIES: u32 = 16;

/// A bound server that does not answer yet.
pub struct DnsServer {
    listeners: Vec<Listener>,
    allow: Option<Allow>,
    upstreams: Option<Upstreams>,
    counters: Counters,
}

struct Listener {
    udp: Datagrams,
    tcp: TcpListener,
    address: SocketAddr,
}

/// The sockets of one address, which a server may leave to the one after it.
#[derive(Debug)]
pub struct Bound {
    /// For datagrams.
    pub udp: OwnedFd,
    /// For connections.
    pub tcp: OwnedFd,
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
    /// A task panicked: a bug.
    #[error("a task of the DNS server failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl DnsServer {
    /// Takes an address for UDP and TCP. Port 0 lets the system choose one.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let listener = Listener::bind(address).await?;
        Ok(Self {
            listeners: vec![listener],
            allow: None,
            upstreams: None,
            counters: Counters::default(),
        })
    }

    /// Answers on sockets that are bound to this address already, and what has queued in them.
    ///
    /// # Errors
    /// They are no such sockets, or bound to another address.
    pub fn on(address: SocketAddr, bound: Bound) -> io::Result<Self> {
        Ok(Self {
            listeners: vec![Listener::on(address, bound)?],
            allow: None,
            upstreams: None,
            counters: Counters::default(),
        })
    }

    /// The sockets once more, by their addresses: as long as one of them is open, queries queue.
    pub fn bound(&self) -> io::Result<Vec<(SocketAddr, Bound)>> {
        let listeners = self.listeners.iter();
        listeners.map(|l| Ok((l.address, l.bound()?))).collect()
    }

    /// Takes one more address.
    pub async fn also_bind(&mut self, address: SocketAddr) -> Result<(), BindError> {
        self.listeners.push(Listener::bind(address).await?);
        Ok(())
    }

    /// Also serves the clients that `allow` lets in. Without it, only those on this host are served.
    #[must_use]
    pub fn allow(mut self, allow: Allow) -> Self {
        self.allow = Some(allow);
        self
    }

    /// Asks these about names that are not the cluster's. Without it such names are refused.
    #[must_use]
    pub fn upstreams(mut self, upstreams: Upstreams) -> Self {
        self.upstreams = Some(upstreams);
        self
    }

    /// What it counts.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The addresses that were taken, with their ports; the first is that of [`DnsServer::bind`].
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|l| l.address).collect()
    }

    /// Answers from the newest route table until `stop` is cancelled. When this returns, the ports
    /// are free and no task is left.
    pub async fn serve(
        self,
        mut routes: watch::Receiver<Arc<RouteTable>>,
        suffix: Suffix,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let own = self.addresses();
        let first = routes.borrow_and_update().clone();
        let (newest, zones) = watch::channel(Arc::new(Zone::new(&suffix, &first)));
        let mut tasks: JoinSet<Result<(), ServeError>> = JoinSet::new();
        let forwarder = self.upstreams.map(|upstreams| {
            let (forwarder, asking) = forwarder(upstreams, own);
            tasks.spawn(async move {
                asking.run().await;
                Ok(())
            });
            forwarder
        });
        tasks.spawn(async move {
            keep_current(first, routes, newest).await;
            Ok(())
        });
        for Listener { udp, tcp, address } in self.listeners {
            let current = Current::new(zones.clone(), forwarder.clone(), self.counters.clone());
            let door = || Door::new(address.ip(), self.allow.clone());
            let served = tcp::serve(tcp, door(), current.clone());
            tasks.spawn(async move {
                served.await;
                Ok(())
            });
            let served = udp::serve(Arc::new(udp), door(), current);
            let fault = move |source| ServeError::Socket { address, source };
            tasks.spawn(async move { served.await.map_err(fault) });
        }
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Some(ended) = tasks.join_next() => ended.map_err(ServeError::from).flatten(),
        };
        tasks.shutdown().await;
        result
    }
}

impl Listener {
    async fn bind(address: SocketAddr) -> Result<Self, BindError> {
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
            udp: Datagrams::new(udp).map_err(fault("UDP"))?,
            tcp,
            address: bound,
        })
    }
}

impl Listener {
    fn on(address: SocketAddr, bound: Bound) -> io::Result<Self> {
        let udp = StdUdpSocket::from(bound.udp);
        let tcp = StdTcpListener::from(bound.tcp);
        if udp.local_addr()? != address || tcp.local_addr()? != address {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self {
            udp: Datagrams::new(UdpSocket::from_std(udp)?)?,
            tcp: TcpListener::from_std(tcp)?,
            address,
        })
    }

    fn bound(&self) -> io::Result<Bound> {
        Ok(Bound {
            udp: self.udp.as_fd().try_clone_to_owned()?,
            tcp: self.tcp.as_fd().try_clone_to_owned()?,
        })
    }
}

impl fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsServer({:?})", self.addresses())
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

#[cfg(test)]
mod tests;
