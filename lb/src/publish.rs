//! Opens and closes the listeners of published ports, as the route table says.
//!
//! Every node publishes every ingress port, whether it runs a replica or not. A port that cannot be
//! opened is tried again for as long as it is wanted, and named in an event.

pub mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::ServiceKey;
use dunlin_state::route::RouteTable;
use rustix::net::sockopt::set_ipv6_v6only;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::plan::{Refusal, Wish, plan};
use crate::proxy::{Limits, Proxy};

/// Pause before a failed listener is tried again. It doubles with each failure up to
/// [`MAX_RETRY`].
const RETRY: Duration = Duration::from_millis(50);

/// Longest pause between tries: how late a port is noticed to have become free.
const MAX_RETRY: Duration = Duration::from_secs(5);

/// The failure in a row that is worth an event. The first ones may only mean that a listener of
/// our own on the same address is not closed yet.
const FAILURES_TO_TELL: u32 = 3;

/// Connections that the kernel keeps while all of [`Limits::connections`] are taken; what Linux
/// grants at most by default is 4096.
const BACKLOG: u32 = 1024;

/// Something that people want to know of published ports. Shown by its `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishEvent {
    /// A published port answers.
    Opened {
        /// Whose.
        service: ServiceKey,
        /// Where.
        address: SocketAddr,
    },
    /// A published port answers no longer: it is not wanted any more.
    Closed {
        /// Whose it was.
        service: ServiceKey,
        /// Where it answered.
        address: SocketAddr,
    },
    /// A warning: the address could not be taken. It is tried again.
    Failed {
        /// Whose port.
        service: ServiceKey,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// A warning: the port will not be published on this node as it is specified.
    Refused(Refusal),
}

impl fmt::Display for PublishEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { service, address } => write!(f, "{service} is published on {address}"),
            Self::Closed { service, address } => {
                write!(f, "{service} is no longer published on {address}")
            }
            Self::Failed {
                service,
                address,
                reason,
            } => write!(
                f,
                "{service} cannot be published on {address}: {reason}; it is tried again until the \
                 address is free or the port is published elsewhere"
            ),
            Self::Refused(refusal) => write!(
                f,
                "port {} of {} is not published: {}",
                refusal.published, refusal.service, refusal.reason
            ),
        }
    }
}

/// The publisher ended although it was not asked to.
#[derive(Debug, Error)]
pub enum PublishError {
    /// A defect: the task of a port panicked, and its port is closed.
    #[error("the proxy of a published port failed: {0}; restart the daemon and report this")]
    Proxy(#[source] JoinError),
}

/// Keeps the listeners of one node.
pub struct Publisher {
    bind_ip: IpAddr,
    limits: Limits,
    tell: Box<dyn Fn(PublishEvent) + Send + Sync>,
}

impl Publisher {
    /// Publishes on `bind_ip` what names no host address; `0.0.0.0` and `::` are all addresses.
    /// `tell` gets the events. It must not block.
    pub fn new(bind_ip: IpAddr, tell: impl Fn(PublishEvent) + Send + Sync + 'static) -> Self {
        Self {
            bind_ip,
            limits: Limits::default(),
            tell: Box::new(tell),
        }
    }

    /// Other bounds for the proxy of each port.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Follows the table until `stop` is cancelled; then closes all listeners at once and returns
    /// when the connections have ended, [`Limits::drain`] later at most. Dropped instead, it closes
    /// everything.
    pub async fn run(
        self,
        mut routes: watch::Receiver<Arc<RouteTable>>,
        stop: CancellationToken,
    ) -> Result<(), PublishError> {
        let mut ports = Ports {
            publisher: self,
            routes: routes.clone(),
            stop: stop.clone(),
            open: BTreeMap::new(),
            failed: BTreeMap::new(),
            refused: BTreeSet::new(),
            proxies: JoinSet::new(),
        };
        let mut alive = true;
        loop {
            let table = routes.borrow_and_update().clone();
            ports.follow(&table);
            tokio::select! {
                () = stop.cancelled() => break,
                changed = routes.changed(), if alive => alive = changed.is_ok(),
                () = until(ports.next_try()) => {}
                Some(ended) = ports.proxies.join_next() => ended.map_err(PublishError::Proxy)?,
            }
        }
        while let Some(ended) = ports.proxies.join_next().await {
            ended.map_err(PublishError::Proxy)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Publisher({})", self.bind_ip)
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What is open, and what could not be.
struct Ports {
    publisher: Publisher,
    routes: watch::Receiver<Arc<RouteTable>>,
    stop: CancellationToken,
    open: BTreeMap<SocketAddr, Open>,
    failed: BTreeMap<SocketAddr, Failed>,
    refused: BTreeSet<Refusal>,
    proxies: JoinSet<()>,
}

struct Open {
    wish: Wish,
    stop: CancellationToken,
}

struct Failed {
    wish: Wish,
    failures: u32,
    again: Instant,
}

impl Ports {
    fn follow(&mut self, table: &RouteTable) {
        let (wishes, refusals) = plan(table, self.publisher.bind_ip);
        let refusals: BTreeSet<Refusal> = refusals.into_iter().collect();
        for refusal in refusals.difference(&self.refused) {
            self.tell(PublishEvent::Refused(refusal.clone()));
        }
        self.refused = refusals;
        self.close_unwanted(&wishes);
        for (address, wish) in wishes {
            let waits = |f: &Failed| f.again > Instant::now();
            if !self.open.contains_key(&address) && !self.failed.get(&address).is_some_and(waits) {
                self.try_open(address, wish);
            }
        }
    }

    fn close_unwanted(&mut self, wishes: &BTreeMap<SocketAddr, Wish>) {
        let mut closed = Vec::new();
        self.open.retain(|address, open| {
            let wanted = wishes.get(address) == Some(&open.wish);
            if !wanted {
                open.stop.cancel();
                closed.push((open.wish.service.clone(), *address));
            }
            wanted
        });
        self.failed
            .retain(|address, failed| wishes.get(address) == Some(&failed.wish));
        for (service, address) in closed {
            self.tell(PublishEvent::Closed { service, address });
        }
    }

    fn try_open(&mut self, address: SocketAddr, wish: Wish) {
        let service = wish.service.clone();
        match listen(address, wish.only_v6) {
            Ok(listener) => {
                let stop = self.stop.child_token();
                let proxy = Proxy::new(service.clone(), wish.target).limits(self.publisher.limits);
                let running = proxy.run(listener, self.routes.clone(), stop.clone());
                self.proxies.spawn(running);
                self.failed.remove(&address);
                self.open.insert(address, Open { wish, stop });
                self.tell(PublishEvent::Opened { service, address });
            }
            Err(error) => {
                let failures = self.failed.get(&address).map_or(0, |f| f.failures) + 1;
                let pause = RETRY.saturating_mul(1 << failures.min(10)).min(MAX_RETRY);
                let again = Instant::now() + pause;
                let failed = Failed {
                    wish,
                    failures,
                    again,
                };
                self.failed.insert(address, failed);
                if failures == FAILURES_TO_TELL {
                    let reason = error.to_string();
                    self.tell(PublishEvent::Failed {
                        service,
                        address,
                        reason,
                    });
                }
            }
        }
    }

    fn next_try(&self) -> Option<Instant> {
        self.failed.values().map(|failed| failed.again).min()
    }

    fn tell(&self, event: PublishEvent) {
        (self.publisher.tell)(event);
    }
}

/// Takes an address. It may be taken again at once after it was closed, though connections of
/// before linger in the kernel.
fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            set_ipv6_v6only(&socket, only_v6)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests;
