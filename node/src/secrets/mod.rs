//! The holder of the keys of secrets on this node.
//!
//! What it does is ordered by the machine in `dunlin_core::secrets`, which decides who may have
//! which key. Keys and values are in this process's memory only; on disk the keys lie in one file,
//! sealed to this node's own key ([`KeyFile`]), so that a node that boots alone can start its
//! replicas again.

mod keyfile;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dunlin_core::secrets::{Answer, Order};
use dunlin_state::desired::{Item, Items, NewItem};
use dunlin_state::model::{
    ContentId, FileMount, ItemKey, ItemKind, NodeId, ServiceKey, ServiceSpec,
};
use dunlin_trust::{BadSecret, ContentKey, PublicKey, SealedKey, SecretKey};
use thiserror::Error;

use crate::identity::{IdentityError, io_error};

pub(crate) use keyfile::KeyKeeper;
use keyfile::{Kept, KeyFile};

/// Why a secret cannot be sealed.
#[derive(Debug, Error)]
pub(crate) enum SealError {
    /// No random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The cipher refused.
    #[error(transparent)]
    Cipher(#[from] BadSecret),
}

/// A secret or config as a file of a replica. It shows its content to nobody.
pub(crate) struct Content {
    pub(crate) kind: ItemKind,
    pub(crate) mount: FileMount,
    pub(crate) bytes: Vec<u8>,
}

/// Why a replica's files are not complete.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind} '{item}' cannot be read on this node yet")]
pub(crate) struct Lacking {
    kind: ItemKind,
    item: ItemKey,
}

/// Holds the keys of secrets, and the content of secrets and configs, for this node.
pub struct SecretVault {
    own: SecretKey,
    state: Mutex<State>,
}

struct State {
    items: Arc<Items>,
    open: BTreeMap<ItemKey, (ContentId, ContentKey)>,
    /// What the disk should hold.
    kept: tokio::sync::watch::Sender<KeyFile>,
}

impl fmt::Debug for SecretVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretVault(..)")
    }
}

impl SecretVault {
    /// The holder of a node, with what the disk has from an earlier life. A file that cannot be
    /// read is passed over: the keys come from other nodes again.
    pub(crate) fn open(own: SecretKey, dir: &Path) -> (Arc<Self>, KeyKeeper) {
        let path = dir.join(keyfile::NAME);
        let (kept, changes) = tokio::sync::watch::channel(KeyFile::read(&path));
        let state = State {
            items: Arc::default(),
            open: BTreeMap::new(),
            kept,
        };
        let vault = Self {
            own,
            state: Mutex::new(state),
        };
        (Arc::new(vault), KeyKeeper::new(path, changes))
    }

    /// Deletes what the disk has: the node has left its cluster.
    pub(crate) fn forget(dir: &Path) -> Result<(), IdentityError> {
        let path = dir.join(keyfile::NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error("delete", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A holder that keeps nothing over a restart: for tests of what delivers secrets.
    pub fn in_memory(own: SecretKey) -> Arc<Self> {
        let (kept, _) = tokio::sync::watch::channel(KeyFile::default());
        let state = State {
            items: Arc::default(),
            open: BTreeMap::new(),
            kept,
        };
        let state = Mutex::new(state);
        Arc::new(Self { own, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn me(&self) -> NodeId {
        NodeId::from_bytes(self.own.public().0)
    }

    /// Desired state has other secrets or configs now.
    pub fn set_items(&self, items: &Arc<Items>) {
        let mut state = self.state();
        if !Arc::ptr_eq(&state.items, items) {
            state.items = Arc::clone(items);
        }
    }

    /// Carries out an order of the machine.
    pub fn perform(&self, order: Order) -> Option<Answer> {
        match order {
            Order::Open {
                secret,
                item,
                sealed,
            } => {
                let opened = self.unlock(&secret, &item, sealed.as_deref());
                Some(Answer::Opened {
                    secret,
                    content: item.content,
                    opened,
                })
            }
            Order::Seal {
                to,
                secret,
                content,
            } => {
                let sealed = self.seal_key(to, &secret, content)?;
                Some(Answer::Sealed {
                    to,
                    secret,
                    content,
                    sealed,
                })
            }
            Order::Forget(secret) => {
                let mut state = self.state();
                state.open.remove(&secret);
                state.kept.send_if_modified(|kept| kept.remove(&secret));
                None
            }
        }
    }

    /// Tries everything that may open this version.
    fn unlock(&self, secret: &ItemKey, item: &Item, given: Option<&[u8]>) -> bool {
        let mut state = self.state();
        if state
            .open
            .get(secret)
            .is_some_and(|(c, _)| *c == item.content)
        {
            return true;
        }
        let name = secret.to_string();
        let kept = state.kept.borrow().get(secret, item.content);
        let beside = item.boxes.get(&self.me()).cloned();
        let boxes = kept.into_iter().chain(beside);
        let boxes = boxes.chain(given.map(Bytes::copy_from_slice));
        for sealed in boxes {
            let key = SealedKey::open(&self.own, &name, &item.stored, &sealed);
            // A lying peer may seal a key that opens nothing.
            let Some(key) = key.ok().filter(|key| key.open(&name, &item.stored).is_ok()) else {
                continue;
            };
            let kept = Kept {
                content: item.content,
                sealed,
            };
            state.open.insert(secret.clone(), (item.content, key));
            state
                .kept
                .send_if_modified(|file| file.insert(secret, kept));
            return true;
        }
        false
    }

    fn seal_key(&self, to: NodeId, secret: &ItemKey, content: ContentId) -> Option<Bytes> {
        let state = self.state();
        let item = state
            .items
            .secrets
            .get(secret)
            .filter(|i| i.content == content)?;
        let (_, key) = state.open.get(secret).filter(|(c, _)| *c == content)?;
        let (to, name) = (PublicKey(*to.as_bytes()), secret.to_string());
        let sealed = SealedKey::seal(&to, random().ok()?, &name, &item.stored, key);
        sealed.ok().map(Bytes::from)
    }

    /// Seals a new value, and its key to each of these nodes.
    pub(crate) fn seal(
        &self,
        secret: &ItemKey,
        value: &[u8],
        to: &BTreeSet<NodeId>,
    ) -> Result<NewItem, SealError> {
        let name = secret.to_string();
        let key = ContentKey::new(random()?);
        let stored = key.seal(&name, random()?, value)?;
        let mut boxes = BTreeMap::new();
        // The own one first: it must not fall out of the list when there are too many.
        let others = to.iter().filter(|node| **node != self.me());
        let most = dunlin_state::desired::MAX_SECRET_BOXES;
        for node in std::iter::once(&self.me()).chain(others).take(most) {
            let key_of = PublicKey(*node.as_bytes());
            let sealed = SealedKey::seal(&key_of, random()?, &name, &stored, &key)?;
            boxes.insert(*node, Bytes::from(sealed));
        }
        Ok(NewItem {
            stored: stored.into(),
            boxes,
            labels: None,
            existing: None,
        })
    }

    /// Whether a secret has this value already; `false` too when it cannot be opened here.
    pub(crate) fn has_value(&self, secret: &ItemKey, value: &[u8]) -> bool {
        let state = self.state();
        let held = read(&state, ItemKind::Secret, secret);
        held.is_some_and(|held| held == value)
    }

    /// The files of a replica.
    pub(crate) fn contents(
        &self,
        spec: &ServiceSpec,
        service: &ServiceKey,
    ) -> Result<Vec<Content>, Lacking> {
        let state = self.state();
        let secrets = spec.secrets.iter().map(|m| (ItemKind::Secret, m));
        let configs = spec.configs.iter().map(|m| (ItemKind::Config, m));
        let mut contents = Vec::new();
        for (kind, mount) in secrets.chain(configs) {
            // Names were checked when the specification was taken.
            let Ok(item) = ItemKey::new(service.namespace(), &mount.source) else {
                continue;
            };
            let mount = mount.clone();
            match read(&state, kind, &item) {
                Some(bytes) => contents.push(Content { kind, mount, bytes }),
                None => return Err(Lacking { kind, item }),
            }
        }
        Ok(contents)
    }
}

fn read(state: &State, kind: ItemKind, key: &ItemKey) -> Option<Vec<u8>> {
    let item = state.items.of(kind).get(key)?;
    match kind {
        ItemKind::Config => Some(item.stored.to_vec()),
        ItemKind::Secret => {
            let (content, opener) = state.open.get(key)?;
            (*content == item.content)
                .then(|| opener.open(&key.to_string(), &item.stored).ok())
                .flatten()
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_error| SealError::Random)?;
    Ok(bytes)
}
