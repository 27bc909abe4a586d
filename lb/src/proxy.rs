//! The connections of listeners, each carried to a ready replica and back.
//!
//! A connection that finds no replica waits for one, within [`Limits::patience`]: while the only
//! replica of a service is being replaced, clients see a slow answer and not an error. Replicas on
//! this node are connected to directly, those on others through the [`hop`] to their node.

mod carry;
mod counters;
mod header;
pub mod hop;
mod pool;
mod relay;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::{NodeId, Protocol, ServiceKey, Slot};
use dunlin_state::route::RouteTable;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::counters::add;
pub use self::counters::{LATENCY_BUCKETS, Tally};
use self::hop::Hop;
pub(crate) use self::pool::Pool;
pub use self::pool::{DEFAULT_DRAIN, PortKey, PortView};
pub(crate) use self::udp::{Listener as UdpListener, serve as serve_udp};
use crate::origin::{Origins, Peer, origin};

/// Longest wait for one replica to take a connection, when the specification says nothing. Longer
/// than a lost SYN takes to be sent again (1 s), since a loaded replica is not a dead one.
pub const DEFAULT_CONNECT: Duration = Duration::from_millis(1_500);

/// Silence after which a TCP connection is ended, when the specification says nothing: database
/// pools and message queues are silent for minutes, and what is silent for an hour has mostly been
/// forgotten.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(3_600);

/// Pause after a failed accept: it usually means that the process has no free descriptor, and at
/// once would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of the proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections of one listener at once. Further clients wait in the listener's backlog. A
    /// connection takes two descriptors and about 3 kB.
    pub connections: usize,
    /// Longest wait for one replica to take a connection.
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
            connections: 16_384,
            connect: DEFAULT_CONNECT,
            patience: Duration::from_secs(6),
            drain: Duration::from_secs(5),
        }
    }
}

/// What all listeners of a node have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) node: Option<NodeId>,
    pub(crate) hop: Option<Arc<Hop>>,
    /// Room for connections on this node.
    pub(crate) places: Arc<Semaphore>,
}

impl Shared {
    /// The hop, if a replica on that node is reached by it. Without one, every replica is taken to
    /// be reachable at its address.
    fn hop_to(&self, node: NodeId) -> Option<&Hop> {
        let hop = self.hop.as_deref()?;
        (self.node != Some(node)).then_some(hop)
    }
}

/// What is behind a listener.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) pool: Arc<Pool>,
    /// Tells who connects, where networks are kept apart; published ports are everybody's.
    pub(crate) origins: Option<Arc<dyn Origins>>,
    /// The one replica that it leads to; any when absent.
    pub(crate) only: Option<Slot>,
}

impl Door {
    /// The pool that a connection is carried by: a share of those to a service may go to another.
    fn share(&self) -> Arc<Pool> {
        match self.only {
            Some(_) => Arc::clone(&self.pool),
            None => self.pool.share(rand::random()),
        }
    }

    /// Whether who connects may come in.
    async fn is_open_to(&self, peer: Peer, patience: Duration) -> bool {
        let Some(origins) = self.origins.as_deref() else {
            return true;
        };
        let networks = self.pool.networks();
        // One that nobody can tell of in all that time is not let in: it may be anyone's.
        let found = timeout(patience, origin(origins, peer, &networks)).await;
        let open = found.is_ok_and(|origin| origin.reaches(&networks));
        if !open {
            add(&self.pool.counters.isolated, 1);
        }
        open
    }
}

/// What ends a listener.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// The listener is not wanted any more. Cancelled with `stop`.
    pub(crate) close: CancellationToken,
    /// The whole proxy stops.
    pub(crate) stop: CancellationToken,
}

impl Ends {
    /// Waits until the connections of a closed listener have had their time: that of their service
    /// while the proxy goes on, else what a stop allows.
    async fn time_is_over(&self, drain: Duration, on_stop: Duration) {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => sleep(on_stop).await,
            () = sleep(drain) => {}
        }
    }
}

/// Accepts and carries connections until the listener is to be closed, and closes it at once then;
/// this returns when the open connections have ended or had their time. Those that have not ended
/// then are reset, as all are when this is dropped.
pub(crate) async fn serve_tcp(
    listener: Arc<TcpListener>,
    door: Door,
    shared: Arc<Shared>,
    ends: Ends,
) {
    let stop = &ends.close;
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    let mut carried = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let room = tokio::select! {
            () = stop.cancelled() => break,
            room = Arc::clone(&shared.places).acquire_owned() => room,
        };
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((client, from)) => {
                    let (door, shared) = (door.clone(), Arc::clone(&shared));
                    carried.spawn(async move {
                        carry::carry(client, from, door, shared).await;
                        drop((place, room));
                    });
                }
                Err(error) => {
                    warn!(%error, port = %door.pool.key, "no connection could be accepted; trying again");
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
    tokio::select! {
        () = all => {}
        () = ends.time_is_over(door.pool.drain(), shared.limits.drain) => carried.shutdown().await,
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "the task of a connection failed");
    }
}

/// Carries the connections of one listener to one port of one service, by itself: what a node does
/// for all of its listeners is done by [`crate::Publisher`].
#[derive(Debug)]
pub struct Proxy {
    pool: Arc<Pool>,
    shared: Shared,
}

impl Proxy {
    /// For the TCP port that `service`'s specification calls `target`.
    pub fn new(service: ServiceKey, target: u16) -> Self {
        let limits = Limits::default();
        Self {
            pool: Pool::new(
                PortKey {
                    service,
                    target,
                    protocol: Protocol::Tcp,
                },
                Arc::default(),
            ),
            shared: Shared {
                limits,
                node: None,
                hop: None,
                places: Arc::new(Semaphore::new(limits.connections)),
            },
        }
    }

    /// Other bounds.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.shared.limits = limits;
        self
    }

    /// Reaches replicas on nodes other than `node` by a hop.
    #[must_use]
    pub fn hop(mut self, node: NodeId, hop: Arc<Hop>) -> Self {
        self.shared.node = Some(node);
        self.shared.hop = Some(hop);
        self
    }

    /// Accepts and carries connections until `stop` is cancelled. The listener is closed at once
    /// then; this returns when the open connections have ended or [`Limits::drain`] has passed.
    /// When it is dropped instead, all connections end.
    pub async fn run(
        self,
        listener: TcpListener,
        mut routes: watch::Receiver<Arc<RouteTable>>,
        stop: CancellationToken,
    ) {
        let (pool, node) = (self.pool, self.shared.node);
        let close = stop.clone();
        let ends = Ends { close, stop };
        let door = Door {
            pool: Arc::clone(&pool),
            origins: None,
            only: None,
        };
        let serving = serve_tcp(Arc::new(listener), door, Arc::new(self.shared), ends);
        let mut serving = std::pin::pin!(serving);
        let mut alive = true;
        loop {
            let table = routes.borrow_and_update().clone();
            pool.follow(&table, node, None);
            let due = pool.reap(Instant::now());
            tokio::select! {
                () = &mut serving => return,
                changed = routes.changed(), if alive => alive = changed.is_ok(),
                () = until(due) => {}
            }
        }
    }
}

/// Waits until a time, or for ever.
pub(crate) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
