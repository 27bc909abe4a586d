//! Proof of membership, before anything else sees a connection.
//!
//! QUIC's TLS and TCP's noise authenticate *who* the other side is; neither says whether it belongs
//! to this cluster. So the first substream of every connection carries one message each way, and
//! only then does the connection reach the swarm. A stranger thus never meets a protocol handler.
//!
//! What is said and how it is judged is [`Gatekeeper`](dunlin_trust::Gatekeeper)'s business; here
//! the messages travel, each with its length before it, bounded in size and in time. The dialer
//! speaks first. A listener that refuses says why and keeps the connection until the dialer has
//! read that.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use dunlin_state::model::NodeId;
use dunlin_trust::{Answered, GateError as Verdict, MAX_GATE_MESSAGE};
use futures::future::{self, Either};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use thiserror::Error;
use tokio::time::Instant;

use super::identity;
use super::seldom::Seldom;
use crate::net::counters::Counters;
use crate::net::trust::{Trust, TrustEvent, public, wall_seconds};

/// Time for the whole exchange: one round trip, at most some 600 ms on a bad path.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why a connection was closed before anyone saw it.
#[derive(Debug, Error)]
pub(crate) enum GateError {
    /// One of the two sides refused.
    #[error("{node}: {verdict}")]
    Refused {
        /// The other side.
        node: NodeId,
        /// Who refused, and why.
        verdict: Verdict,
    },
    /// A key type that node ids cannot name.
    #[error("peer {0} has no ed25519 key, and every node has one")]
    KeyType(PeerId),
    /// It did not finish in time.
    #[error("{0} did not prove its membership within {DEADLINE:?}")]
    TimedOut(NodeId),
    /// The connection broke.
    #[error("the connection with {node} broke while proving membership: {source}")]
    Io {
        /// The other side.
        node: NodeId,
        /// How it broke.
        source: io::Error,
    },
}

/// Proves this node's membership and checks the other side's.
#[derive(Clone)]
pub(crate) struct Gate {
    trust: Trust,
    counters: Arc<Counters>,
    warnings: Arc<Mutex<Seldom>>,
}

impl Gate {
    pub(crate) fn new(trust: Trust, counters: Arc<Counters>) -> Self {
        Self {
            trust,
            counters,
            warnings: Arc::default(),
        }
    }

    /// Passes the connection on when both sides have proven their membership.
    pub(crate) async fn admit(
        self,
        peer: PeerId,
        connection: StreamMuxerBox,
        point: ConnectedPoint,
    ) -> Result<(PeerId, StreamMuxerBox), GateError> {
        let admitted = self.exchange(peer, connection, point.is_dialer()).await;
        if let Err(error) = &admitted {
            self.report(error, &point);
        }
        admitted.map(|connection| (peer, connection))
    }

    fn report(&self, error: &GateError, point: &ConnectedPoint) {
        let address = point.get_remote_address();
        match error {
            GateError::Refused { node, verdict } => match verdict {
                Verdict::RefusedUs(reason) => self.trust.tell(TrustEvent::Refused {
                    by: *node,
                    reason: reason.clone(),
                }),
                Verdict::WasRemoved => self.trust.tell(TrustEvent::Removed),
                Verdict::Refused(_) | Verdict::Foreign | Verdict::Malformed(_) => {
                    self.counters.strangers_refused.add_one();
                }
            },
            GateError::KeyType(_) => self.counters.strangers_refused.add_one(),
            GateError::TimedOut(_) | GateError::Io { .. } => {
                tracing::debug!(%address, "{error}");
                return;
            }
        }
        let mut warnings = self.warnings.lock().unwrap_or_else(|e| e.into_inner());
        if warnings.may_warn(Instant::now()) {
            tracing::warn!(%address, "connection refused: {error}");
        } else {
            tracing::debug!(%address, "connection refused: {error}");
        }
    }

    async fn exchange(
        &self,
        peer: PeerId,
        mut connection: StreamMuxerBox,
        dialer: bool,
    ) -> Result<StreamMuxerBox, GateError> {
        let node = identity::node_id(&peer).ok_or(GateError::KeyType(peer))?;
        let exchange = async {
            let mut stream = future::poll_fn(|cx| {
                if dialer {
                    connection.poll_outbound_unpin(cx)
                } else {
                    connection.poll_inbound_unpin(cx)
                }
            })
            .await
            .map_err(|source| GateError::Io { node, source })?;
            let spoken = {
                let speak = std::pin::pin!(self.speak(node, &mut stream, dialer));
                match future::select(speak, drive(&mut connection)).await {
                    Either::Left((spoken, _)) => spoken,
                    Either::Right((source, _)) => Err(GateError::Io { node, source }),
                }
            };
            if spoken.is_err() && !dialer {
                // The refusal must arrive before the connection is dropped; the dialer drops it on
                // reading that.
                let read = &mut [0];
                future::select(stream.read(read), drive(&mut connection)).await;
            }
            spoken
        };
        match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(spoken) => spoken.map(|()| connection),
            Err(_elapsed) => Err(GateError::TimedOut(node)),
        }
    }

    async fn speak<S>(&self, node: NodeId, stream: &mut S, dialer: bool) -> Result<(), GateError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let broke = |source| GateError::Io { node, source };
        if dialer {
            let hello = self.trust.lock().hello(&public(&node));
            write(stream, &hello).await.map_err(broke)?;
            let answer = read(stream).await.map_err(broke)?;
            self.judge(node, answer.as_deref())?;
        } else {
            let hello = read(stream).await.map_err(broke)?;
            let hello = hello.unwrap_or_default();
            let heard = self
                .trust
                .lock()
                .hear(&hello, &public(&node), wall_seconds());
            write(stream, &heard.answer).await.map_err(broke)?;
            let used = heard
                .verdict
                .map_err(|verdict| GateError::Refused { node, verdict })?;
            if let Some((invite, role)) = used {
                self.trust.tell(TrustEvent::Admitted { node, invite, role });
            }
        }
        stream.close().await.map_err(broke)
    }

    /// Acts on the listener's answer. A welcome counts at once, so that the next connection is
    /// already a member's; should this node crash before it is on disk, the ticket lets the same
    /// node in again.
    fn judge(&self, node: NodeId, answer: Option<&[u8]>) -> Result<(), GateError> {
        let answer = answer.unwrap_or_default();
        let now = wall_seconds();
        let judged = self.trust.lock().judge(answer, &public(&node), now);
        match judged.map_err(|verdict| GateError::Refused { node, verdict })? {
            Answered::Accepted => {}
            Answered::NewKeyring(keyring) => self.trust.tell(TrustEvent::NewKeyring(keyring)),
            Answered::Welcomed(welcome) => {
                self.trust.update(|gatekeeper| {
                    gatekeeper.set_standing(dunlin_trust::Standing::Member {
                        root: welcome.root,
                        chain: welcome.node.clone(),
                        keyring: welcome.keyring.clone(),
                    });
                });
                self.trust.tell(TrustEvent::Welcomed(welcome));
            }
        }
        Ok(())
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(message).await?;
    stream.flush().await
}

/// Reads a message; `None` when it is too long to be one, of which nothing is read then.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
    if len > MAX_GATE_MESSAGE {
        return Ok(None);
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Moves a connection's bytes until it breaks: yamux does so only while it is polled as a whole,
/// QUIC by itself.
fn drive(connection: &mut StreamMuxerBox) -> impl Future<Output = io::Error> + Unpin {
    future::poll_fn(|cx| {
        loop {
            match connection.poll_unpin(cx) {
                Poll::Ready(Ok(_address_change)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
}
