//! Proof of membership, before anything else sees a connection.
//!
//! QUIC's TLS and TCP's noise authenticate *who* the other side is; neither says whether it belongs
//! to this cluster. So the first substream of every connection carries one message each way, and
//! only then does the connection reach the swarm. A stranger thus never meets a protocol handler.
//!
//! Each message holds a MAC under a key derived from the cluster's, over the cluster's id, both
//! node ids and the sender's role. No nonce is needed: the transport has already proven that each
//! side holds its node's private key, so a recorded MAC is of use only to the node it names. The
//! role keeps one from being sent back as an answer.
//!
//! The dialer speaks first, and the listener answers a stranger with a refusal and no MAC.

use std::io;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use dunlin_state::model::NodeId;
use futures::future::{self, Either};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use thiserror::Error;
use tokio::time::Instant;

use super::identity;
use crate::net::ClusterSecret;
use crate::net::counters::Counters;

/// Time for the whole exchange: one round trip, at most some 600 ms on a bad path.
const DEADLINE: Duration = Duration::from_secs(3);

/// Time between warnings about refused connections; those between are counted and in the debug log.
const WARN_EVERY: Duration = Duration::from_secs(10);

const MAGIC: [u8; 7] = *b"dunlin1";
const HELLO: u8 = 1;
const REFUSED: u8 = 0;
const MAC_LEN: usize = blake3::OUT_LEN;
const MAC_AT: usize = MAGIC.len() + 1;

/// Magic, kind, MAC under the current key, MAC under the previous key.
const MESSAGE_LEN: usize = MAC_AT + 2 * MAC_LEN;

const KEY_CONTEXT: &str = "dunlin 2026 control connection gate v1";

/// Why a connection was closed before anyone saw it.
#[derive(Debug, Error)]
pub(crate) enum GateError {
    /// It may be a Dunlin node, but of another cluster.
    #[error(
        "{0} is not a member of this cluster: its ticket is for another cluster, or its key was changed while it was away"
    )]
    Stranger(NodeId),
    /// The other side thinks that of this node.
    #[error(
        "{0} does not accept this node as a member: it belongs to another cluster, or this node's ticket does"
    )]
    RefusedUs(NodeId),
    /// Something else listens there.
    #[error("{0} speaks another protocol: it is no Dunlin node, or of an incompatible version")]
    NotDunlin(NodeId),
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
    local: NodeId,
    cluster: [u8; 16],
    /// Current key first; the previous one, or the current again.
    keys: [[u8; 32]; 2],
    counters: Arc<Counters>,
    last_warning: Arc<Mutex<Option<Instant>>>,
}

impl Gate {
    pub(crate) fn new(local: NodeId, secret: &ClusterSecret, counters: Arc<Counters>) -> Self {
        let previous = secret.previous_key.as_ref().unwrap_or(&secret.key);
        Self {
            local,
            cluster: secret.id,
            keys: [&secret.key, previous].map(|key| blake3::derive_key(KEY_CONTEXT, key)),
            counters,
            last_warning: Arc::default(),
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
            GateError::Stranger(_) | GateError::NotDunlin(_) | GateError::KeyType(_) => {
                self.counters.strangers_refused.add_one();
            }
            GateError::RefusedUs(_) => {}
            GateError::TimedOut(_) | GateError::Io { .. } => {
                tracing::debug!(%address, "{error}");
                return;
            }
        }
        if self.may_warn() {
            tracing::warn!(%address, "connection refused: {error}");
        } else {
            tracing::debug!(%address, "connection refused: {error}");
        }
    }

    /// Once in a while: strangers must not be able to fill the log.
    fn may_warn(&self) -> bool {
        let mut last = self.last_warning.lock().unwrap_or_else(|e| e.into_inner());
        let due = last.is_none_or(|at| at.elapsed() >= WARN_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
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
        let (ours, theirs) = if dialer {
            (Role::Dialer, Role::Listener)
        } else {
            (Role::Listener, Role::Dialer)
        };
        let hello = self.hello(self.local, node, ours);
        if dialer {
            stream.write_all(&hello).await.map_err(broke)?;
            stream.flush().await.map_err(broke)?;
        }
        let mut heard = [0; MESSAGE_LEN];
        stream.read_exact(&mut heard).await.map_err(broke)?;
        let verdict = self.check(&heard, node, theirs);
        if !dialer {
            let answer = if verdict.is_ok() { hello } else { refusal() };
            stream.write_all(&answer).await.map_err(broke)?;
            stream.flush().await.map_err(broke)?;
        }
        verdict?;
        stream.close().await.map_err(broke)
    }

    fn check(&self, heard: &[u8; MESSAGE_LEN], node: NodeId, role: Role) -> Result<(), GateError> {
        if heard[..MAGIC.len()] != MAGIC {
            return Err(GateError::NotDunlin(node));
        }
        if heard[MAGIC.len()] == REFUSED {
            return Err(GateError::RefusedUs(node));
        }
        let known = self.macs(node, self.local, role);
        let known_mac = |offered: &[u8]| {
            let offered = offered.try_into().map(blake3::Hash::from_bytes);
            // `blake3::Hash` compares in constant time.
            offered.is_ok_and(|offered| known.contains(&offered))
        };
        if heard[MAC_AT..].chunks_exact(MAC_LEN).any(known_mac) {
            Ok(())
        } else {
            Err(GateError::Stranger(node))
        }
    }

    fn hello(&self, from: NodeId, to: NodeId, role: Role) -> [u8; MESSAGE_LEN] {
        let mut message = [0; MESSAGE_LEN];
        message[..MAGIC.len()].copy_from_slice(&MAGIC);
        message[MAGIC.len()] = HELLO;
        let macs = self.macs(from, to, role);
        for (slot, mac) in message[MAC_AT..].chunks_exact_mut(MAC_LEN).zip(macs) {
            slot.copy_from_slice(mac.as_bytes());
        }
        message
    }

    /// What `from` must send to `to` when it speaks in this role.
    fn macs(&self, from: NodeId, to: NodeId, role: Role) -> [blake3::Hash; 2] {
        self.keys.map(|key| {
            let mut mac = blake3::Hasher::new_keyed(&key);
            mac.update(&self.cluster);
            mac.update(from.as_bytes());
            mac.update(to.as_bytes());
            mac.update(&[role as u8]);
            mac.finalize()
        })
    }
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

#[derive(Debug, Clone, Copy)]
enum Role {
    Dialer = 1,
    Listener = 2,
}

fn refusal() -> [u8; MESSAGE_LEN] {
    let mut message = [0; MESSAGE_LEN];
    message[..MAGIC.len()].copy_from_slice(&MAGIC);
    message[MAGIC.len()] = REFUSED;
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(local: u8, cluster: u8, key: u8, previous: Option<u8>) -> Gate {
        let secret = ClusterSecret {
            id: [cluster; 16],
            key: [key; 32],
            previous_key: previous.map(|key| [key; 32]),
        };
        Gate::new(NodeId::from_bytes([local; 32]), &secret, Arc::default())
    }

    fn accepts(listener: &Gate, dialer: &Gate) -> bool {
        let hello = dialer.hello(dialer.local, listener.local, Role::Dialer);
        listener.check(&hello, dialer.local, Role::Dialer).is_ok()
    }

    #[test]
    fn members_are_accepted_and_strangers_are_not() {
        let listener = gate(1, 1, 1, None);
        assert!(accepts(&listener, &gate(2, 1, 1, None)));
        assert!(!accepts(&listener, &gate(2, 1, 9, None)), "another key");
        assert!(!accepts(&listener, &gate(2, 9, 1, None)), "another cluster");
    }

    #[test]
    fn a_key_change_splits_nobody() {
        let old = gate(1, 1, 1, None);
        let new = gate(2, 1, 2, Some(1));
        assert!(accepts(&old, &new) && accepts(&new, &old));
        assert!(!accepts(&gate(3, 1, 2, None), &old));
    }

    #[test]
    fn a_hello_is_of_no_use_to_others_nor_as_an_answer() {
        let (a, b, c) = (
            gate(1, 1, 1, None),
            gate(2, 1, 1, None),
            gate(3, 1, 1, None),
        );
        let hello = a.hello(a.local, b.local, Role::Dialer);
        assert!(b.check(&hello, a.local, Role::Dialer).is_ok());
        assert!(b.check(&hello, c.local, Role::Dialer).is_err());
        assert!(c.check(&hello, a.local, Role::Dialer).is_err());
        assert!(b.check(&hello, a.local, Role::Listener).is_err());
        assert!(a.check(&hello, b.local, Role::Listener).is_err());
    }

    #[test]
    fn a_refusal_and_another_protocol_are_told_apart() {
        let gate = gate(1, 1, 1, None);
        let node = NodeId::from_bytes([2; 32]);
        let refused = gate.check(&refusal(), node, Role::Listener);
        assert!(matches!(refused, Err(GateError::RefusedUs(_))));
        let noise = gate.check(&[b'x'; MESSAGE_LEN], node, Role::Listener);
        assert!(matches!(noise, Err(GateError::NotDunlin(_))));
    }
}
