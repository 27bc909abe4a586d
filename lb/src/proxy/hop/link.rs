//! One connection with another node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use dunlin_state::model::NodeId;
use quinn::SendDatagramError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// UDP datagrams of one session that wait to be passed on; further ones are dropped, as a socket's
/// buffer would.
const QUEUE: usize = 128;

/// Bytes before a datagram that say which session it belongs to.
const SESSION_BYTES: usize = 8;

/// A connection with another node, as this side sees it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) node: NodeId,
    pub(super) connection: quinn::Connection,
    /// Whether this side opened it.
    pub(super) dialed: bool,
    retired: CancellationToken,
    /// The UDP sessions on it, by the number of their stream.
    sessions: Mutex<BTreeMap<u64, mpsc::Sender<Bytes>>>,
}

impl Link {
    pub(super) fn new(node: NodeId, connection: quinn::Connection, dialed: bool) -> Arc<Self> {
        Arc::new(Self {
            node,
            connection,
            dialed,
            retired: CancellationToken::new(),
            sessions: Mutex::default(),
        })
    }

    /// Whether new streams may be opened on it.
    pub(super) fn is_live(&self) -> bool {
        !self.is_retired() && self.connection.close_reason().is_none()
    }

    /// Ends it with the streams that are on it.
    pub(super) fn retire(&self) {
        self.retired.cancel();
    }

    pub(super) async fn retired(&self) {
        self.retired.cancelled().await;
    }

    fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// Sends a datagram of a session. `false` when it is too large for a packet and has to go by
    /// the session's stream.
    pub(crate) fn send(&self, session: u64, payload: &[u8]) -> bool {
        let mut datagram = BytesMut::with_capacity(SESSION_BYTES + payload.len());
        datagram.put_u64(session);
        datagram.put_slice(payload);
        match self.connection.send_datagram(datagram.freeze()) {
            Ok(()) => true,
            Err(SendDatagramError::TooLarge) => false,
            Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => false,
            // The session finds out by its stream.
            Err(SendDatagramError::ConnectionLost(_)) => true,
        }
    }

    /// Passes a datagram on to its session. One that belongs to none, or finds no room, is dropped.
    pub(super) fn dispatch(&self, mut datagram: Bytes) {
        let Some((head, _payload)) = datagram.split_first_chunk::<SESSION_BYTES>() else {
            return;
        };
        let session = u64::from_be_bytes(*head);
        let payload = datagram.split_off(SESSION_BYTES);
        if let Some(queue) = self.lock().get(&session) {
            let _full = queue.try_send(payload);
        }
    }

    /// Starts to receive the datagrams of a session.
    pub(crate) fn listen(self: &Arc<Self>, session: u64) -> Inbox {
        let (sender, datagrams) = mpsc::channel(QUEUE);
        self.lock().insert(session, sender);
        Inbox {
            link: Arc::clone(self),
            session,
            datagrams,
        }
    }

    /// Nothing panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, mpsc::Sender<Bytes>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The datagrams of one session, until it is dropped.
#[derive(Debug)]
pub(crate) struct Inbox {
    link: Arc<Link>,
    session: u64,
    pub(crate) datagrams: mpsc::Receiver<Bytes>,
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.link.lock().remove(&self.session);
    }
}
