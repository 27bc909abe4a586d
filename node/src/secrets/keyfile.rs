//! The keys of secrets on disk, each sealed to this node's own key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dunlin_state::model::{ContentId, ItemKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity::write_durably;

/// Its name in the data directory.
pub(super) const NAME: &str = "secret-keys.json";

/// Bytes of the file: 1,000 keys of some 300.
const MAX_FILE: u64 = 1024 * 1024;

/// One sealed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) content: ContentId,
    pub(super) sealed: Bytes,
}

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct KeyFile(BTreeMap<ItemKey, Kept>);

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    keys: BTreeMap<ItemKey, StoredKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    content: ContentId,
    sealed: String,
}

const VERSION: u32 = 1;

impl KeyFile {
    pub(super) fn read(path: &Path) -> Self {
        let fits = std::fs::metadata(path).is_ok_and(|m| m.len() <= MAX_FILE);
        let bytes = if fits { std::fs::read(path).ok() } else { None };
        let stored = bytes.and_then(|bytes| serde_json::from_slice::<Stored>(&bytes).ok());
        let Some(stored) = stored.filter(|stored| stored.version == VERSION) else {
            if path.exists() {
                tracing::warn!(path = %path.display(), "cannot be read; other nodes are asked for the keys of secrets again");
            }
            return Self::default();
        };
        let decode = |(key, stored): (ItemKey, StoredKey)| {
            let sealed = data_encoding::BASE64.decode(stored.sealed.as_bytes());
            let kept = Kept {
                content: stored.content,
                sealed: sealed.ok()?.into(),
            };
            Some((key, kept))
        };
        Self(stored.keys.into_iter().filter_map(decode).collect())
    }

    fn encode(&self) -> Vec<u8> {
        let keys = self.0.iter().map(|(key, kept)| {
            let stored = StoredKey {
                content: kept.content,
                sealed: data_encoding::BASE64.encode(&kept.sealed),
            };
            (key.clone(), stored)
        });
        let stored = Stored {
            version: VERSION,
            keys: keys.collect(),
        };
        // Texts and numbers always serialise.
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    pub(super) fn get(&self, secret: &ItemKey, content: ContentId) -> Option<Bytes> {
        let kept = self.0.get(secret).filter(|kept| kept.content == content)?;
        Some(kept.sealed.clone())
    }

    /// Whether that changes anything.
    pub(super) fn insert(&mut self, secret: &ItemKey, kept: Kept) -> bool {
        if self.0.get(secret) == Some(&kept) {
            return false;
        }
        self.0.insert(secret.clone(), kept);
        true
    }

    /// Whether that changes anything.
    pub(super) fn remove(&mut self, secret: &ItemKey) -> bool {
        self.0.remove(secret).is_some()
    }
}

/// Writes the file whenever it should hold something else: beside the engine, which waits for no
/// disk. A write that is lost costs a question to another node after a restart.
#[derive(Debug)]
pub(crate) struct KeyKeeper {
    path: PathBuf,
    changes: watch::Receiver<KeyFile>,
}

impl KeyKeeper {
    pub(super) fn new(path: PathBuf, mut changes: watch::Receiver<KeyFile>) -> Self {
        changes.mark_unchanged();
        Self { path, changes }
    }

    /// Runs until told to stop; what has changed by then is written.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let ended = tokio::select! {
                () = stop.cancelled() => true,
                changed = self.changes.changed() => changed.is_err(),
            };
            if !ended || self.changes.has_changed().unwrap_or(false) {
                self.write().await;
            }
            if ended {
                return;
            }
        }
    }

    async fn write(&mut self) {
        let (path, bytes) = (self.path.clone(), self.changes.borrow_and_update().encode());
        let written = tokio::task::spawn_blocking(move || write_durably(&path, &bytes)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the keys of secrets are not kept over a restart");
        }
    }
}
