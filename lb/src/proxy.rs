//! The connections of one listener, each carried to a ready replica and back.
//!
//! A connection that finds no replica waits for one, within [`Limits::patience`]: while the only
//! replica of a service is being replaced, clients see a slow answer and not an error. All else is
//! copying: bytes both ways, and the end of either direction as the end of that direction alone.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_state::model::{Protocol, ServiceKey};
use dunlin_state::route::RouteTable;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::balance::{Balancer, Policy, Target};

/// Pause before the replicas that have all failed are tried again, unless the route table changes
/// first: short against the second or two that a replacement takes, long against a refused connect.
/// It doubles each time, up to [`MAX_RETRY_PAUSE`], so that thousands of waiting clients do not
/// become a storm of attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between attempts; a replica that comes up without a change of the table (one that
/// was ready all the time and did not listen) is found after this.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Pause after a failed accept: it usually means that the process has no free descriptor, and at
/// once would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of a [`Proxy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once. Further clients wait in the listener's backlog. A connection
    /// takes two descriptors and about 20 kB.
    pub connections: usize,
    /// Longest wait for one replica to take a connection. Longer than a lost SYN takes to be sent
    /// again (1 s), since a loaded replica is not a dead one.
    pub connect: Duration,
    /// Longest time from a client's connection until a replica has it, over all attempts. Beyond,
    /// the client's connection is reset. Longer than a replica takes to be replaced (p99 4 s).
    pub patience: Duration,
    /// How long open connections may go on after the proxy is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connect: Duration::from_millis(1_500),
            patience: Duration::from_secs(6),
            drain: Duration::from_secs(5),
        }
    }
}

/// Carries connections to one port of one service.
#[derive(Debug, Clone)]
pub struct Proxy {
    service: ServiceKey,
    target: u16,
    policy: Policy,
    limits: Limits,
}

impl Proxy {
    /// For the TCP port that `service`'s specification calls `target`.
    pub fn new(service: ServiceKey, target: u16) -> Self {
        Self {
            service,
            target,
            policy: Policy::default(),
            limits: Limits::default(),
        }
    }

    /// Chooses replicas by another policy.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Other bounds.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Accepts and carries connections until `stop` is cancelled. The listener is closed at once
    /// then; this returns when the open connections have ended or [`Limits::drain`] has passed.
    /// When it is dropped instead, all connections end.
    pub async fn run(
        self,
        listener: TcpListener,
        routes: watch::Receiver<Arc<RouteTable>>,
        stop: CancellationToken,
    ) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let drain = self.limits.drain;
        let shared = Arc::new(Shared::new(self, routes));
        let mut carried = JoinSet::new();
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = Arc::clone(&places).acquire_owned() => place,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((client, _from)) => {
                        let shared = Arc::clone(&shared);
                        carried.spawn(async move {
                            carry(client, shared).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        let service = &shared.proxy.service;
                        warn!(%error, %service, "no connection could be accepted; trying again");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = carried.join_next() => report(ended),
            }
        }
        drop(listener);
        let all = async {
            while let Some(ended) = carried.join_next().await {
                report(ended);
            }
        };
        if timeout(drain, all).await.is_err() {
            carried.shutdown().await;
        }
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "the task of a connection failed");
    }
}

/// What the connections of a proxy have in common.
struct Shared {
    proxy: Proxy,
    routes: watch::Receiver<Arc<RouteTable>>,
    balance: Mutex<Balance>,
    start: Instant,
}

/// The balancer with the table that it knows.
struct Balance {
    table: Option<Arc<RouteTable>>,
    balancer: Balancer,
}

impl Shared {
    fn new(proxy: Proxy, routes: watch::Receiver<Arc<RouteTable>>) -> Self {
        let balance = Mutex::new(Balance {
            table: None,
            balancer: Balancer::new(proxy.policy),
        });
        Self {
            proxy,
            routes,
            balance,
            start: Instant::now(),
        }
    }

    /// Chooses a replica by the newest table.
    fn pick(self: &Arc<Self>, tried: &BTreeSet<Target>) -> Option<Lease> {
        let table = self.routes.borrow().clone();
        let mut balance = self.lock();
        if !balance
            .table
            .as_ref()
            .is_some_and(|t| Arc::ptr_eq(t, &table))
        {
            balance.balancer.update(self.ready(&table));
            balance.table = Some(table);
        }
        let target = balance.balancer.pick(tried, rand::random(), self.now())?;
        let shared = Arc::clone(self);
        Some(Lease { shared, target })
    }

    fn ready<'t>(&self, table: &'t RouteTable) -> impl Iterator<Item = Target> + use<'t> {
        let port = self.proxy.target;
        let route = table.services.get(&self.proxy.service);
        let backends = route.map(|r| r.backends.as_slice()).unwrap_or_default();
        backends.iter().flat_map(move |backend| {
            let ends = backend.endpoints.iter();
            ends.filter(move |end| end.target == port && end.protocol == Protocol::Tcp)
                .map(|end| Target {
                    slot: backend.slot,
                    node: backend.node,
                    address: end.address,
                })
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Nothing panics while it holds this lock, and a count that is off by one would do no harm.
    fn lock(&self) -> MutexGuard<'_, Balance> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection counted for a replica; dropping it ends the count, whatever happens to its task.
struct Lease {
    shared: Arc<Shared>,
    target: Target,
}

impl Lease {
    fn connected(&self) {
        self.shared.lock().balancer.connected(&self.target);
    }

    fn failed(self) -> Target {
        let target = self.target;
        let (entropy, now) = (rand::random(), self.shared.now());
        self.shared.lock().balancer.failed(&target, entropy, now);
        target
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.lock().balancer.closed(&self.target);
    }
}

/// Takes a client's connection to a replica and carries it to its end.
async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let patience = shared.proxy.limits.patience;
    let Ok((_lease, mut server)) = timeout(patience, connect(&shared)).await else {
        let service = &shared.proxy.service;
        warn!(%service, "no ready replica took a connection within {patience:?}; it is reset");
        reset(&client);
        return;
    };
    // Whoever batches small writes does so itself; doing it again here would delay them.
    let _unsupported = (client.set_nodelay(true), server.set_nodelay(true));
    if let Err(error) = copy_bidirectional(&mut client, &mut server).await {
        debug!(%error, "a connection broke");
        reset(&client);
        reset(&server);
    }
}

/// Ends a connection as broken, so that its peer does not take what it has for everything.
fn reset(stream: &TcpStream) {
    let _gone_already = stream.set_zero_linger();
}

/// Tries one replica after the other until one takes the connection; for ever, so that the caller
/// sets the limit.
async fn connect(shared: &Arc<Shared>) -> (Lease, TcpStream) {
    let mut tried = BTreeSet::new();
    let mut routes = shared.routes.clone();
    let mut pause = RETRY_PAUSE;
    loop {
        routes.mark_unchanged();
        let Some(lease) = shared.pick(&tried) else {
            tried.clear();
            pause = if timeout(pause, change(&mut routes)).await.is_ok() {
                RETRY_PAUSE
            } else {
                (pause * 2).min(MAX_RETRY_PAUSE)
            };
            continue;
        };
        let address = lease.target.address;
        match dial(address, shared.proxy.limits.connect).await {
            Ok(server) => {
                lease.connected();
                return (lease, server);
            }
            Err(error) => {
                debug!(%error, %address, "a replica could not be connected to; trying another");
                tried.insert(lease.failed());
            }
        }
    }
}

/// Waits for another table; for ever when there will be none.
async fn change(routes: &mut watch::Receiver<Arc<RouteTable>>) {
    if routes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn dial(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    timeout(limit, TcpStream::connect(address)).await?
}

#[cfg(test)]
mod tests;
