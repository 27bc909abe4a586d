//! One connection: admitted, given to a replica, and carried.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::{Protocol, Slot};
use thiserror::Error;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::counters::{Open, add};
use super::header::header;
use super::hop::{HopError, Link};
use super::pool::{Lease, Pool};
use super::relay::{Carried, End, Wire, relay};
use super::{DEFAULT_IDLE, Door, Shared, udp};
use crate::balance::{Target, source_hash};
use crate::origin::Peer;

/// Pause before the replicas that have all failed are tried again, unless the route table changes
/// first: short against the second or two that a replacement takes, long against a refused connect.
/// It doubles each time, up to [`MAX_RETRY_PAUSE`], so that thousands of waiting clients do not
/// become a storm of attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between attempts; a replica that comes up without a change of the table (one that
/// was ready all the time and did not listen) is found after this.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The way to a replica.
#[derive(Debug)]
pub(crate) enum Path {
    /// On this node.
    Tcp(TcpStream),
    /// On this node.
    Udp(UdpSocket),
    /// On another node. The link is held so that it stays as long as this is used.
    Hop(Arc<Link>, Wire),
}

/// Too many wait already.
#[derive(Debug)]
pub(crate) struct Overflow;

#[derive(Debug, Error)]
enum DialError {
    #[error("{0}")]
    Local(#[from] io::Error),
    #[error("{0}")]
    Hop(#[from] HopError),
    #[error("it did not answer in time")]
    Late,
}

/// Takes a client's TCP connection to a replica and carries it to its end.
pub(crate) async fn carry(stream: TcpStream, from: SocketAddr, door: Door, shared: Arc<Shared>) {
    // Whoever batches small writes does so itself. What comes from another node may come in two
    // pieces, and the second would wait until the client has acknowledged the first (40 ms). It
    // fails for a client that is gone, which is found out soon enough.
    let _gone = stream.set_nodelay(true);
    let peer = Peer {
        protocol: Protocol::Tcp,
        from,
        to: stream.local_addr().unwrap_or(from),
    };
    let mut client = Wire::Tcp(stream);
    let (pool, patience) = (&door.pool, shared.limits.patience);
    if pool.admit(from.ip()).is_err() || !door.is_open_to(peer, patience).await {
        return client.reset();
    }
    let pool = door.share();
    add(&pool.counters.connections, 1);
    let _open = Open::count(&pool.counters.active);
    to_replica(&mut client, peer, (&pool, door.only), &shared).await;
}

async fn to_replica(
    client: &mut Wire,
    peer: Peer,
    (pool, only): (&Arc<Pool>, Option<Slot>),
    shared: &Shared,
) {
    let patience = pool.patience(shared.limits.patience);
    let found = timeout(patience, connect(shared, (pool, only), peer.from, peer.to));
    let (lease, path) = match found.await {
        Ok(Ok(found)) => found,
        Ok(Err(Overflow)) => return client.reset(),
        Err(_elapsed) => {
            let port = &pool.key;
            debug!(%port, "no ready replica took a connection within {patience:?}; it is reset");
            add(&pool.counters.unserved, 1);
            return client.reset();
        }
    };
    let (_link, mut server) = match path {
        Path::Tcp(stream) => (None, Wire::Tcp(stream)),
        Path::Hop(link, wire) => (Some(link), wire),
        Path::Udp(_) => return client.reset(),
    };
    let idle = pool.policy().idle_timeout_ms;
    let idle = idle.map_or(DEFAULT_IDLE, Duration::from_millis);
    let (carried, counters) = (Carried::default(), &pool.counters);
    let end = relay(client, &mut server, &carried, counters, idle, &lease.cut).await;
    let answered = carried.down() > 0;
    let asked = carried.up() > 0;
    match end {
        End::Done if answered || asked => lease.judged(answered),
        // A client that only looked whether the port is open.
        End::Done => {}
        End::Broken(error) => {
            debug!(%error, "a connection broke");
            add(&counters.broken, 1);
            lease.judged(answered);
        }
        End::Idle => {
            add(&counters.idle, 1);
            if asked {
                lease.judged(answered);
            }
        }
        End::Cut => add(&counters.cut, 1),
    }
}

/// Tries one replica after the other until one takes the connection; for ever, so that the caller
/// sets the limit.
pub(crate) async fn connect(
    shared: &Shared,
    (pool, only): (&Arc<Pool>, Option<Slot>),
    from: SocketAddr,
    to: SocketAddr,
) -> Result<(Lease, Path), Overflow> {
    let mut tried = BTreeSet::new();
    let mut pause = RETRY_PAUSE;
    let mut queued = None;
    let source = source_hash(from.ip());
    loop {
        let changed = pool.changed();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        let Ok(lease) = pool.pick(&tried, (only, source)) else {
            if queued.is_none() {
                queued = Some(pool.queue().ok_or(Overflow)?);
            }
            tried.clear();
            pause = if timeout(pause, changed).await.is_ok() {
                RETRY_PAUSE
            } else {
                (pause * 2).min(MAX_RETRY_PAUSE)
            };
            continue;
        };
        let begun = Instant::now();
        match dial(shared, pool, &lease.target, from, to).await {
            Ok(path) => {
                lease.connected(begun.elapsed());
                return Ok((lease, path));
            }
            Err(error) => {
                let address = lease.target.address;
                debug!(%error, %address, "a replica could not be connected to; trying another");
                tried.insert(lease.failed());
            }
        }
    }
}

async fn dial(
    shared: &Shared,
    pool: &Pool,
    target: &Target,
    from: SocketAddr,
    to: SocketAddr,
) -> Result<Path, DialError> {
    let policy = pool.policy();
    let limit = policy.connect_timeout_ms;
    let limit = limit.map_or(shared.limits.connect, Duration::from_millis);
    let dialing = async {
        if let Some(hop) = shared.hop_to(target.node) {
            let (link, wire) = hop.open(target, &pool.key, from, to).await?;
            return Ok(Path::Hop(link, wire));
        }
        match pool.key.protocol {
            Protocol::Udp => Ok(Path::Udp(udp::socket_to(target.address).await?)),
            Protocol::Tcp => {
                let mut stream = TcpStream::connect(target.address).await?;
                stream.set_nodelay(true)?;
                if let Some(version) = policy.proxy_protocol {
                    stream.write_all(&header(version, from, to)).await?;
                }
                Ok(Path::Tcp(stream))
            }
        }
    };
    timeout(limit, dialing)
        .await
        .map_err(|_late| DialError::Late)?
}
