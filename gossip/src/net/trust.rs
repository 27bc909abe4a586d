//! What the shell's tasks share about trust: the rules of the gate with what they are applied to,
//! and the keys of membership datagrams that follow from it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_state::model::NodeId;
use dunlin_trust::{
    Chain, Gatekeeper, Keyring, PublicKey, Refusal, Role, Seconds, Signature, Standing, Welcome,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::seal::SealKey;

/// What happened at the gate and waits for the node. More than a few a second come only when a
/// whole cluster joins at once; what is lost is noticed at the next connection.
const EVENTS: usize = 256;

/// How long datagrams under the keyring before the last are taken: long enough for the new one to
/// reach every node that can be reached, and short, because a removed node still has the old one.
const PREVIOUS_LIFE: Duration = Duration::from_secs(30);

/// What happened at the gate.
#[derive(Debug)]
pub enum TrustEvent {
    /// This node let a newcomer in: to be recorded in desired state.
    Admitted {
        /// Whom.
        node: NodeId,
        /// By which ticket.
        invite: PublicKey,
        /// As what.
        role: Role,
    },
    /// This node gave a person a certificate: to be recorded in desired state.
    Redeemed {
        /// Whose key.
        person: PublicKey,
        /// By which ticket.
        invite: PublicKey,
        /// As what.
        role: Role,
    },
    /// This node was let in: to be kept on disk.
    Welcomed(Box<Welcome>),
    /// Another node had a newer keyring: to be kept on disk.
    NewKeyring(Box<Keyring>),
    /// Somebody did not let this node in.
    Refused {
        /// Who.
        by: NodeId,
        /// Why, in words.
        reason: String,
    },
    /// An admin has removed this node; the order was checked.
    Removed,
}

/// The keys of membership datagrams at one time.
#[derive(Clone)]
pub(super) struct DatagramKeys {
    pub(super) current: Option<SealKey>,
    pub(super) previous: Option<(SealKey, Instant)>,
    pub(super) revoked: Arc<BTreeSet<PublicKey>>,
}

/// A cheap handle on what is shared.
#[derive(Clone)]
pub struct Trust {
    gatekeeper: Arc<Mutex<Gatekeeper>>,
    keys: Arc<watch::Sender<DatagramKeys>>,
    events: mpsc::Sender<TrustEvent>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    pub(super) fn new(gatekeeper: Gatekeeper) -> (Self, mpsc::Receiver<TrustEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let (keys, _) = watch::channel(DatagramKeys {
            current: None,
            previous: None,
            revoked: Arc::default(),
        });
        let trust = Self {
            gatekeeper: Arc::new(Mutex::new(gatekeeper)),
            keys: Arc::new(keys),
            events,
        };
        trust.update(|_| ());
        (trust, receiver)
    }

    /// Reads or changes the rules; the keys of datagrams follow. Must not wait for anything.
    pub fn update<T>(&self, change: impl FnOnce(&mut Gatekeeper) -> T) -> T {
        let mut gatekeeper = self.lock();
        let result = change(&mut gatekeeper);
        let current = match gatekeeper.standing() {
            Standing::Invited(_) => None,
            Standing::Member { keyring, .. } => Some(SealKey::new(&keyring.secret.datagram_key())),
        };
        let revoked: BTreeSet<PublicKey> = gatekeeper.knowledge().revoked.keys().copied().collect();
        self.keys.send_if_modified(|keys| {
            let rotated = keys.current != current;
            if rotated {
                let until = Instant::now() + PREVIOUS_LIFE;
                keys.previous = keys.current.take().map(|old| (old, until));
                keys.current = current;
            }
            let removed = *keys.revoked != revoked;
            if removed {
                keys.revoked = Arc::new(revoked);
            }
            rotated || removed
        });
        result
    }

    /// Gives a person who has proven a ticket the role that it stands for, and has that recorded.
    ///
    /// # Errors
    /// Why not.
    pub fn redeem(
        &self,
        invite: &PublicKey,
        person: &PublicKey,
        proof: &Signature,
        now: Seconds,
    ) -> Result<Chain, Refusal> {
        let (chain, role) = self.lock().redeem(invite, person, proof, now)?;
        let (person, invite) = (*person, *invite);
        self.tell(TrustEvent::Redeemed {
            person,
            invite,
            role,
        });
        Ok(chain)
    }

    pub(super) fn keys(&self) -> watch::Receiver<DatagramKeys> {
        self.keys.subscribe()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Gatekeeper> {
        self.gatekeeper.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn tell(&self, event: TrustEvent) {
        if self.events.try_send(event).is_err() {
            tracing::debug!("an event of the gate was dropped: the node is busy");
        }
    }
}

/// The time as certificates know it.
pub(super) fn wall_seconds() -> Seconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// A node's key, as trust knows it.
pub(super) fn public(node: &NodeId) -> PublicKey {
    PublicKey(*node.as_bytes())
}
