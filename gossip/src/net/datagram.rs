//! One task that owns the membership socket: seals what goes out, opens what comes in.
//!
//! Nothing here waits for anybody. A full queue drops the datagram and counts it: SWIM sends the
//! news again, and a late probe answer is worth nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_state::model::NodeId;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::seal::{OpenError, Opener, Sealer};
use super::trust::DatagramKeys;

/// Datagrams waiting in each direction. A node of a 1,000-node cluster sees some ten a second; this
/// is room for a burst of joins, and at 1,200 bytes each little over a megabyte.
const QUEUE: usize = 1_024;

/// Bytes read of one datagram: one more than the largest that is ours, so that a longer one is seen
/// to be longer.
const READ_BUFFER: usize = super::seal::MAX_SEALED + 1;

/// Reads that fail in a row until the socket counts as broken and the task ends, so that the node
/// stops with an error rather than spins.
const MAX_FAILURES: u32 = 10_000;

/// An opened datagram and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Source address; anybody can write one.
    pub from: SocketAddr,
    /// The member that signed it.
    pub sender: NodeId,
    /// Plain text.
    pub bytes: Bytes,
}

/// Sends membership datagrams.
#[derive(Debug, Clone)]
pub struct DatagramSender {
    queue: mpsc::Sender<(SocketAddr, Bytes)>,
    counters: Arc<Counters>,
}

impl DatagramSender {
    /// Queues `bytes` (plain text, at most [`super::seal::MAX_PLAIN`]) for `to`. Never waits; what
    /// does not fit is dropped and counted.
    pub fn send(&self, to: SocketAddr, bytes: Bytes) {
        if self.queue.try_send((to, bytes)).is_err() {
            self.counters.datagrams_unsent.add_one();
        }
    }
}

/// The task, ready to run.
pub(super) struct DatagramTask {
    socket: UdpSocket,
    sealer: Sealer,
    opener: Opener,
    keys: watch::Receiver<DatagramKeys>,
    outgoing: mpsc::Receiver<(SocketAddr, Bytes)>,
    incoming: mpsc::Sender<Datagram>,
    counters: Arc<Counters>,
}

impl DatagramTask {
    pub(super) fn new(
        socket: UdpSocket,
        sealer: Sealer,
        keys: watch::Receiver<DatagramKeys>,
        counters: Arc<Counters>,
    ) -> (Self, DatagramSender, mpsc::Receiver<Datagram>) {
        let (queue, outgoing) = mpsc::channel(QUEUE);
        let (incoming, received) = mpsc::channel(QUEUE);
        let sender = DatagramSender {
            queue,
            counters: Arc::clone(&counters),
        };
        let task = Self {
            socket,
            sealer,
            opener: Opener::default(),
            keys,
            outgoing,
            incoming,
            counters,
        };
        (task, sender, received)
    }

    /// Runs until `stop`, or until nobody listens any more. What is already queued when the stop
    /// comes is still sent: the last datagram is the goodbye.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut buffer = [0; READ_BUFFER];
        let mut failures = 0;
        // Until the runtime has seen the socket writable once, it refuses to try.
        let _ = self.socket.writable().await;
        while failures < MAX_FAILURES {
            tokio::select! {
                () = stop.cancelled() => break,
                Some((to, bytes)) = self.outgoing.recv() => self.send(to, &bytes),
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((len, from)) => {
                        failures = 0;
                        if !self.receive(from, &buffer[..len]) {
                            break;
                        }
                    }
                    // Mostly an ICMP answer to something that was sent; the peer's silence says
                    // the same.
                    Err(error) => {
                        failures += 1;
                        tracing::debug!(%error, "membership socket");
                    }
                }
            }
        }
        while let Ok((to, bytes)) = self.outgoing.try_recv() {
            self.send(to, &bytes);
        }
    }

    fn send(&mut self, to: SocketAddr, plain: &[u8]) {
        let sent = self.try_send(to, plain);
        match sent {
            Ok(()) => self.counters.datagrams_sent.add_one(),
            Err(error) => {
                self.counters.datagrams_unsent.add_one();
                tracing::debug!(%to, %error, "membership datagram not sent");
            }
        }
    }

    fn try_send(&mut self, to: SocketAddr, plain: &[u8]) -> io::Result<()> {
        let keys = self.keys.borrow();
        let Some(key) = &keys.current else {
            return Err(io::Error::other("this node has not been let in yet"));
        };
        let sealed = self
            .sealer
            .seal(key, plain)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let sent = self.socket.try_send_to(&sealed, to);
        // Linux reports an earlier datagram's ICMP error on the next call, whomever that is for.
        match sent {
            Err(error) if is_icmp(&error) => self.socket.try_send_to(&sealed, to).map(drop),
            other => other.map(drop),
        }
    }

    /// Opens and hands over a datagram. False when nobody listens any more.
    fn receive(&mut self, from: SocketAddr, sealed: &[u8]) -> bool {
        match self.open(sealed) {
            Ok(Some((sender, bytes))) => self.hand_over(Datagram {
                from,
                sender,
                bytes,
            }),
            // What a removed member says is worth nothing, however well it is sealed.
            Ok(None) => {
                self.counters.datagrams_refused.add_one();
                true
            }
            Err(error) => {
                self.counters.datagrams_refused.add_one();
                tracing::trace!(%from, %error, "datagram dropped");
                true
            }
        }
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Option<(NodeId, Bytes)>, OpenError> {
        let keys = self.keys.borrow();
        let previous = keys.previous.as_ref();
        let previous = previous.filter(|(_, until)| Instant::now() < *until);
        let mut known = keys.current.iter().chain(previous.map(|(key, _)| key));
        let key = known
            .find(|key| key.is_of(sealed))
            .ok_or(OpenError::UnknownKey)?;
        let (sender, bytes) = self.opener.open(key, sealed)?;
        let removed = keys.revoked.contains(&sender);
        Ok((!removed).then(|| (NodeId::from_bytes(sender.0), bytes)))
    }

    fn hand_over(&self, datagram: Datagram) -> bool {
        match self.incoming.try_send(datagram) {
            Ok(()) => self.counters.datagrams_received.add_one(),
            Err(TrySendError::Full(_)) => self.counters.datagrams_overrun.add_one(),
            Err(TrySendError::Closed(_)) => return false,
        }
        true
    }
}

fn is_icmp(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}
