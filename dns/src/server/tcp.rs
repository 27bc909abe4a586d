//! Queries over TCP: for answers that fit no datagram, so few are needed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::current::{Answer, Current};
use super::door::{Door, Welcome};
use crate::forward::Back;
use crate::wire::Transport;

/// Most TCP connections at once. A connection beyond is closed at once rather than kept waiting.
pub(super) const MAX_TCP: usize = 64;

/// Most of them for one address that is not loopback, so that one slow client leaves room for
/// others.
const MAX_TCP_PER_CLIENT: usize = 16;

/// How long a TCP client may take for a query, from the first wait to its last byte, and for
/// reading the answer. RFC 7766, 6.2.3 leaves it to the server; slow clients hold one of
/// [`MAX_TCP`] places.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause after a failed accept: it usually means that the process has no free descriptor, and at
/// once would fail again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, mut door: Door, current: Current) {
    let mut clients: JoinSet<IpAddr> = JoinSet::new();
    let mut open: Vec<IpAddr> = Vec::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = clients.join_next() => {
                match ended {
                    Ok(ip) => if let Some(at) = open.iter().position(|o| *o == ip) {
                        open.swap_remove(at);
                    }
                    Err(error) => warn!(%error, "a task that answers DNS over TCP failed"),
                }
                continue;
            }
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "no TCP connection for DNS could be accepted; trying again");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let ip = client.ip().to_canonical();
        let own = open.iter().filter(|o| **o == ip).count();
        let room = clients.len() < MAX_TCP && (ip.is_loopback() || own < MAX_TCP_PER_CLIENT);
        if !room || door.meet(client, Instant::now()) != Welcome::Served {
            debug!(%client, "a TCP connection for DNS was turned away");
            continue;
        }
        open.push(ip);
        let current = current.clone();
        clients.spawn(async move {
            if let Err(error) = serve_client(stream, client, current).await {
                debug!(%error, %client, "a TCP client of DNS was lost");
            }
            ip
        });
    }
}

/// Answers one query after the other until the client goes or takes too long.
async fn serve_client(
    mut stream: TcpStream,
    client: SocketAddr,
    mut current: Current,
) -> io::Result<()> {
    let mut query = Vec::new();
    let mut reply = Vec::new();
    loop {
        timeout(PATIENCE, receive(&mut stream, &mut query)).await??;
        match current.answer(&query, Transport::Tcp, Instant::now(), &mut reply) {
            Answer::None => return Ok(()),
            Answer::Ready => {}
            Answer::Ask(asked) => {
                let (back, answer) = oneshot::channel();
                let taken = current
                    .forwarder()
                    .is_some_and(|f| f.ask(&asked, client.ip(), Back::Stream(back)));
                // The task ends no question without an answer, except when there are too many.
                match if taken { answer.await.ok() } else { None } {
                    Some(bytes) => reply = bytes,
                    None => current.fail(&asked, &mut reply),
                }
            }
        }
        // Length and message in one write: two packets would cost the client a round trip.
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        reply.splice(..0, length.to_be_bytes());
        timeout(PATIENCE, stream.write_all(&reply)).await??;
    }
}

async fn receive(stream: &mut TcpStream, query: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    query.resize(usize::from(length), 0);
    stream.read_exact(query).await?;
    Ok(())
}
