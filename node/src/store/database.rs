//! The tables.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dunlin_core::io::{Recovered, Write};
use dunlin_state::model::{Claim, HeldVolume};
use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::de::DeserializeOwned;

use super::StoreError;

/// Name of the file in the data directory.
pub(super) const FILE: &str = "state.redb";

/// Appended changes, by order of arrival.
const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
/// Registers of other nodes that tell of volumes, by node.
const HOLDERS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("holders");
/// Single values, by name.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

const DOCUMENT: &str = "document";
const CLAIMS: &str = "claims";
const PEERS: &str = "peers";
const VOLUMES: &str = "volumes";

/// The database caches pages on top of the kernel; a node's state is small and read once.
const CACHE_BYTES: usize = 1 << 20;
const CHECKSUM_BYTES: usize = 8;

pub(super) struct Database {
    /// Absent after a failed write: the library wants the file opened anew.
    db: Option<redb::Database>,
    path: PathBuf,
    next_change: u64,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let length = std::fs::metadata(path).map(|m| m.len()).ok();
        if length == Some(0) {
            // The library would take it for a new one, and the cluster's state for an empty one.
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                what: "it is empty".to_owned(),
            });
        }
        let existed = length.is_some();
        let db = open_file(path).map_err(|error| match error {
            redb::DatabaseError::Storage(redb::StorageError::Io(e))
                if e.kind() != std::io::ErrorKind::InvalidData
                    && e.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                StoreError::Open {
                    path: path.to_owned(),
                    reason: e.to_string(),
                }
            }
            other if existed => StoreError::Damaged {
                path: path.to_owned(),
                what: other.to_string(),
            },
            other => StoreError::Open {
                path: path.to_owned(),
                reason: other.to_string(),
            },
        })?;
        restrict(path)?;
        Ok(Self {
            db: Some(db),
            path: path.to_owned(),
            next_change: 0,
        })
    }

    /// Reads everything an earlier life left.
    pub(super) fn recover(&mut self) -> Result<Recovered, StoreError> {
        let Some(db) = &self.db else {
            return Err(self.damaged("it could not be written"));
        };
        create_tables(db).map_err(|e| self.damaged(&e.to_string()))?;
        let read = || -> Result<_, redb::Error> {
            let transaction = db.begin_read()?;
            let values = transaction.open_table(VALUES)?;
            let value = |name: &str| -> Result<Option<Vec<u8>>, redb::Error> {
                Ok(values.get(name)?.map(|v| v.value().to_vec()))
            };
            let mut changes = Vec::new();
            for entry in transaction.open_table(CHANGES)?.iter()? {
                let (key, bytes) = entry?;
                changes.push((key.value(), bytes.value().to_vec()));
            }
            let mut holders = Vec::new();
            for entry in transaction.open_table(HOLDERS)?.iter()? {
                holders.push(entry?.1.value().to_vec());
            }
            let names = [DOCUMENT, CLAIMS, PEERS, VOLUMES];
            let values = names
                .map(value)
                .into_iter()
                .collect::<Result<Vec<_>, _>>()?;
            Ok((values, changes, holders))
        };
        let (values, changes, holders) = read().map_err(|e| self.damaged(&e.to_string()))?;
        let mut values = values.into_iter();
        let mut next = || values.next().flatten();
        let (document, claims, peers, volumes) = (next(), next(), next(), next());
        self.next_change = changes.last().map_or(0, |(key, _)| key + 1);
        let changes = changes
            .into_iter()
            .map(|(key, sealed)| self.unseal(&format!("change {key}"), &sealed))
            .collect::<Result<Vec<_>, _>>()?;
        let document = match document {
            Some(sealed) => Some((self.unseal(DOCUMENT, &sealed)?, changes)),
            None if changes.is_empty() => None,
            None => Some((Bytes::new(), changes)),
        };
        Ok(Recovered {
            document,
            claims: self.unseal_json::<Vec<Claim>>(CLAIMS, claims)?,
            peers: self.unseal_json::<Vec<SocketAddr>>(PEERS, peers)?,
            volumes: self.unseal_json::<Vec<HeldVolume>>(VOLUMES, volumes)?,
            holders: holders
                .iter()
                .map(|sealed| self.unseal("what another node said of its volumes", sealed))
                .collect::<Result<_, _>>()?,
            rules: None,
        })
    }

    /// Writes all in one transaction and syncs. On an error nothing of it will be found again, and
    /// the next call starts with a freshly opened file: the library refuses everything after an
    /// error of the disk, also once there is space again.
    pub(super) fn write<'a>(
        &mut self,
        writes: impl Iterator<Item = &'a Write>,
    ) -> Result<(), String> {
        let result = self.try_write(writes);
        if result.is_err() {
            self.db = None;
        }
        result.map_err(|e| format!("{}: {e}", self.path.display()))
    }

    fn try_write<'a>(
        &mut self,
        writes: impl Iterator<Item = &'a Write>,
    ) -> Result<(), redb::Error> {
        let mut next = self.next_change;
        let db = match &mut self.db {
            Some(db) => db,
            closed @ None => closed.insert(reopen(&self.path, next)?),
        };
        let transaction = db.begin_write()?;
        {
            let mut values = transaction.open_table(VALUES)?;
            let mut changes = transaction.open_table(CHANGES)?;
            let mut holders = transaction.open_table(HOLDERS)?;
            for write in writes {
                match write {
                    Write::Document(bytes) => {
                        values.insert(DOCUMENT, &*seal(bytes))?;
                        changes.retain(|_, _| false)?;
                    }
                    Write::Change(bytes) => {
                        changes.insert(next, &*seal(bytes))?;
                        next += 1;
                    }
                    Write::Claims(claims) => {
                        values.insert(CLAIMS, &*seal(&json(claims)))?;
                    }
                    Write::Peers(peers) => {
                        values.insert(PEERS, &*seal(&json(peers)))?;
                    }
                    Write::Volumes(volumes) => {
                        values.insert(VOLUMES, &*seal(&json(volumes)))?;
                    }
                    Write::Holder(node, bytes) if bytes.is_empty() => {
                        holders.remove(node.as_bytes().as_slice())?;
                    }
                    Write::Holder(node, bytes) => {
                        holders.insert(node.as_bytes().as_slice(), &*seal(bytes))?;
                    }
                }
            }
        }
        transaction.commit()?;
        self.next_change = next;
        Ok(())
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }

    fn unseal(&self, what: &str, sealed: &[u8]) -> Result<Bytes, StoreError> {
        match sealed.split_first_chunk::<CHECKSUM_BYTES>() {
            Some((sum, content)) if *sum == checksum(content) => {
                Ok(Bytes::copy_from_slice(content))
            }
            _ => Err(self.damaged(&format!("the checksum of '{what}' does not match"))),
        }
    }

    fn unseal_json<T: DeserializeOwned + Default>(
        &self,
        what: &str,
        sealed: Option<Vec<u8>>,
    ) -> Result<T, StoreError> {
        let Some(sealed) = sealed else {
            return Ok(T::default());
        };
        let content = self.unseal(what, &sealed)?;
        serde_json::from_slice(&content).map_err(|e| self.damaged(&format!("'{what}': {e}")))
    }
}

fn open_file(path: &Path) -> Result<redb::Database, redb::DatabaseError> {
    redb::Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
}

/// Opens the file after a failed write. A write that failed at its very end may be there all the
/// same: its changes, from `next` on, were refused and are removed.
fn reopen(path: &Path, next: u64) -> Result<redb::Database, redb::Error> {
    let db = open_file(path)?;
    let transaction = db.begin_write()?;
    transaction
        .open_table(CHANGES)?
        .retain(|key, _| key < next)?;
    transaction.commit()?;
    Ok(db)
}

fn create_tables(db: &redb::Database) -> Result<(), redb::Error> {
    let transaction = db.begin_write()?;
    transaction.open_table(VALUES)?;
    transaction.open_table(CHANGES)?;
    transaction.open_table(HOLDERS)?;
    transaction.commit()?;
    Ok(())
}

fn restrict(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(|e| {
        StoreError::Open {
            path: path.to_owned(),
            reason: e.to_string(),
        }
    })
}

fn seal(content: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + content.len());
    sealed.extend_from_slice(&checksum(content));
    sealed.extend_from_slice(content);
    sealed
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&blake3::hash(content).as_bytes()[..CHECKSUM_BYTES]);
    sum
}

/// These types have string keys and no fallible serialisers, so this cannot fail; should it ever,
/// the checksum over an empty value makes the next start say so instead of losing it quietly.
fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
