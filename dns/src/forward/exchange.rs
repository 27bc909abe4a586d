//! One question to the upstreams: over UDP, from a port of its own, then over TCP if the answer
//! does not fit, then to the next upstream.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::Key;
use super::stored::{BadReply, Stored, question};
use crate::wire::MAX_UDP;

/// How long one upstream gets for an answer over UDP. Resolvers answer from their caches in
/// milliseconds and seldom take a second for the rest; the next one is asked then.
const UDP_PATIENCE: Duration = Duration::from_millis(1_200);

/// How long one upstream gets over TCP.
const TCP_PATIENCE: Duration = Duration::from_secs(2);

/// How long a question may take in all: less than the five seconds after which the C library gives
/// up, so that it is told what happened.
const PATIENCE: Duration = Duration::from_millis(4_500);

/// How often all upstreams are asked: datagrams get lost.
const ROUNDS: usize = 2;

/// Packets that are read and found to be no answer before an upstream is given up: somebody
/// guesses.
const MAX_FOREIGN: usize = 16;

/// Why an upstream gave no answer.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    Late,
    #[error(transparent)]
    Bad(#[from] BadReply),
}

/// Asks one upstream after the other, beginning with `first`. Gives the answer and who gave it.
pub(super) async fn ask(
    upstreams: Arc<[SocketAddr]>,
    first: usize,
    key: Arc<Key>,
) -> Option<(Stored, usize)> {
    let tries = async {
        for turn in 0..upstreams.len() * ROUNDS {
            let index = (first + turn) % upstreams.len();
            let upstream = *upstreams.get(index)?;
            match ask_one(upstream, &key).await {
                Ok(stored) => return Some((stored, index)),
                Err(error) => tracing::debug!(%upstream, %error, "a resolver did not answer"),
            }
        }
        None
    };
    timeout(PATIENCE, tries).await.ok().flatten()
}

/// Sends a question to one upstream, to see whether it comes back. What it answers is of no
/// interest.
pub(super) async fn probe(upstream: SocketAddr, key: Arc<Key>) {
    if let Err(error) = over_udp(upstream, &key, true).await {
        tracing::debug!(%upstream, %error, "a resolver did not answer a probe");
    }
}

async fn ask_one(upstream: SocketAddr, key: &Key) -> Result<Stored, Failure> {
    let mut edns = true;
    let mut result = over_udp(upstream, key, edns).await;
    if matches!(result, Err(Failure::Bad(BadReply::NoEdns))) {
        edns = false;
        result = over_udp(upstream, key, edns).await;
    }
    match result {
        Err(Failure::Bad(BadReply::Cut)) => {
            let answered = timeout(TCP_PATIENCE, over_tcp(upstream, key, edns)).await;
            answered.map_err(|_elapsed| Failure::Late)?
        }
        other => other,
    }
}

/// The socket is connected, so that only the upstream is heard, and the kernel chooses its port at
/// random. With a random id that makes an answer hard to forge (RFC 5452, 9.2).
async fn over_udp(upstream: SocketAddr, key: &Key, edns: bool) -> Result<Stored, Failure> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    let id = rand::random();
    socket.send(&question(key, id, edns)).await?;
    let read = async {
        let mut buffer = [0; MAX_UDP as usize];
        for _ in 0..MAX_FOREIGN {
            let length = socket.recv(&mut buffer).await?;
            let packet = buffer.get(..length).unwrap_or_default();
            match Stored::read(packet, id, key) {
                Err(BadReply::Foreign) => {}
                other => return Ok(other?),
            }
        }
        Err(Failure::Bad(BadReply::Foreign))
    };
    timeout(UDP_PATIENCE, read)
        .await
        .map_err(|_elapsed| Failure::Late)?
}

async fn over_tcp(upstream: SocketAddr, key: &Key, edns: bool) -> Result<Stored, Failure> {
    let mut stream = TcpStream::connect(upstream).await?;
    let id = rand::random();
    let question = question(key, id, edns);
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), &question[..]].concat())
        .await?;
    let mut packet = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut packet).await?;
    Ok(Stored::read(&packet, id, key)?)
}
