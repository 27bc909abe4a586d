//! Automerge behind the few operations that the document needs. Nothing outside this folder names
//! a type of automerge.
//!
//! Three rules make it safe to feed it what peers send:
//! - Only changes of our own shape come in: puts of bytes and deletions at keys of the root map
//!   ([`Incoming::inspect`]), continuing their actor's sequence and the operation counter exactly.
//!   Lists, texts, marks and counters, where most of automerge's panics live, are never applied.
//!   How much work the bytes ask for is bounded before automerge decodes them ([`chunk`]).
//! - Whatever still panics is caught. Since an interrupted application may leave anything behind,
//!   the document is then rebuilt from its last checkpoint and the changes applied since. That
//!   costs a load (0.1 s at 20,000 changes) on an event that only an attacker causes; cloning the
//!   document before every change would cost 8 ms each time.
//! - No change waits inside automerge for its dependencies; the caller holds it back.

mod chunk;
#[cfg(test)]
pub(super) mod craft;
mod incoming;
mod sync;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ChangeHash, ROOT, ReadDoc, ScalarValue};
use bytes::Bytes;
use thiserror::Error;

pub(super) use incoming::Incoming;
pub(super) use sync::{Step, SyncState};

use super::document::DocumentId;
use super::keys::FORMAT_KEY;
use super::register::Actor;

/// Hash of a change.
pub(super) type Hash = [u8; 32];

/// Changes kept in memory since the last checkpoint, in bytes. A checkpoint costs one save (55 ms
/// at 20,000 changes), so that it is amortised over some thousand changes of usual size.
const CHECKPOINT_AFTER_BYTES: usize = 2 * 1024 * 1024;

/// First half of the actor that writes genesis and compactions; the second half is the epoch. No
/// node has such an actor, since a node's is a hash.
const EPOCH_ACTOR_PREFIX: [u8; 8] = *b"dunlin:\0";

/// Value of the format key.
const FORMAT: &[u8] = b"1";

/// The document did not take an operation; it is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum EngineFault {
    /// Automerge refused.
    #[error("{0}")]
    Refused(String),
    /// Automerge panicked; the document has been rebuilt.
    #[error("automerge panicked: {0}")]
    Panicked(String),
    /// Not a document of ours.
    #[error("{0}")]
    Foreign(&'static str),
}

/// An automerge document whose root is a flat map of bytes.
#[derive(Clone)]
pub(super) struct Engine {
    am: Automerge,
    id: DocumentId,
    /// The greatest operation counter of any change.
    max_op: u64,
    /// The greatest sequence number of each actor.
    seqs: BTreeMap<Vec<u8>, u64>,
    /// The hashes of all changes, with the counter of the last operation of each.
    known: BTreeMap<Hash, u64>,
    /// The document as saved at some time, and what has been applied since.
    checkpoint: Bytes,
    since: Vec<Bytes>,
    since_bytes: usize,
}

impl Engine {
    /// The document that holds exactly these registers, written as one change at time 0 by the
    /// actor of `epoch`. The same registers give the same document on every node.
    pub(super) fn rebase(
        epoch: u64,
        registers: &BTreeMap<String, Bytes>,
        actor: Actor,
    ) -> Result<Self, EngineFault> {
        let am = contained(|| {
            let mut am = Automerge::new().with_actor(epoch_actor(epoch));
            let mut tx = am.transaction();
            put(&mut tx, FORMAT_KEY, FORMAT)?;
            for (key, value) in registers {
                put(&mut tx, key, value)?;
            }
            tx.commit_with(CommitOptions::default().with_time(0));
            Ok(am)
        })?;
        Self::adopt(am, None, actor)
    }

    /// Loads a saved document.
    pub(super) fn load(saved: &[u8], actor: Actor) -> Result<Self, EngineFault> {
        if saved.is_empty() {
            return Err(EngineFault::Foreign("it is empty"));
        }
        chunk::check_document(saved)?;
        let am = contained(|| Automerge::load(saved).map_err(refused))?;
        Self::adopt(am, Some(Bytes::copy_from_slice(saved)), actor)
    }

    /// Reads the bookkeeping out of a fresh document.
    fn adopt(am: Automerge, saved: Option<Bytes>, actor: Actor) -> Result<Self, EngineFault> {
        contained(move || {
            let mut id = None;
            let mut max_op = 0;
            let mut seqs = BTreeMap::new();
            let mut known = BTreeMap::new();
            for meta in am.get_changes_meta(&[]) {
                known.insert(meta.hash.0, meta.max_op);
                max_op = max_op.max(meta.max_op);
                let seq = seqs
                    .entry(meta.actor.as_ref().as_ref().to_vec())
                    .or_insert(0);
                *seq = meta.seq.max(*seq);
                if meta.deps.is_empty() {
                    let epoch = epoch_of(meta.actor.as_ref());
                    let first = epoch.map(|epoch| DocumentId {
                        epoch,
                        root: meta.hash.0,
                    });
                    if first.is_none() || id.is_some() {
                        return Err(EngineFault::Foreign("it does not start as Dunlin's do"));
                    }
                    id = first;
                }
            }
            let id = id.ok_or(EngineFault::Foreign("it has no first change"))?;
            let checkpoint = saved.unwrap_or_else(|| Bytes::from(am.save()));
            Ok(Self {
                am: am.with_actor(ActorId::from(actor.0)),
                id,
                max_op,
                seqs,
                known,
                checkpoint,
                since: Vec::new(),
                since_bytes: 0,
            })
        })
    }

    /// Which document it is.
    pub(super) fn id(&self) -> DocumentId {
        self.id
    }

    /// Number of changes in its history.
    pub(super) fn changes(&self) -> usize {
        self.known.len()
    }

    /// Hashes of the changes that no other change follows; equal heads mean equal documents.
    pub(super) fn heads(&self) -> Vec<Hash> {
        self.am.get_heads().into_iter().map(|h| h.0).collect()
    }

    /// The whole document, compressed.
    pub(super) fn save(&self) -> Bytes {
        if self.since.is_empty() {
            return self.checkpoint.clone();
        }
        contained(|| Ok(Bytes::from(self.am.save()))).unwrap_or_else(|fault| {
            // A document with its later changes behind it loads as well as a compact one.
            tracing::error!(%fault, "the state document cannot be saved compactly");
            let parts = std::iter::once(&self.checkpoint).chain(&self.since);
            parts.flat_map(|part| part.iter().copied()).collect()
        })
    }

    /// Whether this change has been applied.
    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.known.contains_key(hash)
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.am.length(ROOT)
    }

    /// All keys, in order.
    pub(super) fn keys(&self) -> Vec<String> {
        self.am.keys(ROOT).collect()
    }

    /// All concurrent values of a key; values that are not bytes are no values of ours.
    pub(super) fn values(&self, key: &str) -> Vec<Bytes> {
        let Ok(values) = self.am.get_all(ROOT, key) else {
            return Vec::new();
        };
        values
            .into_iter()
            .filter_map(|(value, _)| value.as_bytes().map(Bytes::copy_from_slice))
            .collect()
    }

    /// Writes keys as one change, and returns it encoded.
    pub(super) fn write(
        &mut self,
        writes: &BTreeMap<String, Bytes>,
        wall_ms: u64,
    ) -> Result<Bytes, EngineFault> {
        let seconds = i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX);
        let am = &mut self.am;
        let written = contained(|| {
            let mut tx = am.transaction();
            for (key, value) in writes {
                put(&mut tx, key, value)?;
            }
            tx.commit_with(CommitOptions::default().with_time(seconds));
            let change = am
                .get_last_local_change()
                .ok_or(EngineFault::Foreign("the change is not there"))?;
            Incoming::of_change(change).map_err(|e| EngineFault::Refused(e.to_string()))
        });
        match written {
            Ok(change) => {
                self.applied(&change);
                Ok(change.bytes)
            }
            Err(fault) => {
                self.restore();
                Err(fault)
            }
        }
    }

    /// Whether all that a change builds on has been applied.
    pub(super) fn is_ready(&self, change: &Incoming) -> bool {
        change.deps.iter().all(|dep| self.has(dep))
    }

    /// Applies changes that are ready in this order and that [`Self::check_position`] allows.
    pub(super) fn apply(&mut self, changes: &[&Incoming]) -> Result<(), EngineFault> {
        let am = &mut self.am;
        let applied = contained(|| {
            let before = am.get_heads();
            let inner: Vec<_> = changes.iter().map(|c| c.change.clone()).collect();
            am.apply_changes(inner).map_err(refused)?;
            check_reproduced(am, &before, changes)
        });
        match applied {
            Ok(()) => {
                for change in changes {
                    self.applied(change);
                }
                Ok(())
            }
            Err(fault) => {
                self.restore();
                Err(fault)
            }
        }
    }

    /// The sequence number that the next change of this actor must have.
    pub(super) fn next_seq(&self, actor: &[u8]) -> u64 {
        self.seqs.get(actor).copied().unwrap_or(0).saturating_add(1)
    }

    /// The counter of the last operation of a change.
    pub(super) fn last_op(&self, hash: &Hash) -> Option<u64> {
        self.known.get(hash).copied()
    }

    /// The greatest operation counter in the document. An honest change starts at most one above
    /// it; a leap would exhaust the counter for everybody.
    pub(super) fn max_op(&self) -> u64 {
        self.max_op
    }

    fn applied(&mut self, change: &Incoming) {
        self.max_op = self.max_op.max(change.max_op);
        self.seqs.insert(change.actor.clone(), change.seq);
        self.known.insert(change.hash, change.max_op);
        self.since_bytes += change.bytes.len();
        self.since.push(change.bytes.clone());
        if self.since_bytes > CHECKPOINT_AFTER_BYTES {
            self.take_checkpoint();
        }
    }

    /// Shortens the log by which the document is rebuilt after a panic.
    fn take_checkpoint(&mut self) {
        let am = &self.am;
        let saved = contained(|| {
            let saved = am.save();
            // A checkpoint that cannot be loaded is worse than a long log.
            Automerge::load(&saved).map_err(refused)?;
            Ok(saved)
        });
        match saved {
            Ok(saved) => {
                self.checkpoint = Bytes::from(saved);
                self.since.clear();
            }
            Err(fault) => {
                tracing::error!(%fault, "the state document cannot be saved; keeping its changes");
            }
        }
        self.since_bytes = 0;
    }

    /// Goes back to what had been applied before an operation failed.
    ///
    /// # Panics
    /// When bytes that have been accepted before are refused now: then nothing in memory can be
    /// trusted, and the node must restart from its disk.
    fn restore(&mut self) {
        let actor = self.am.get_actor().clone();
        let (checkpoint, since) = (&self.checkpoint, &self.since);
        let rebuilt = contained(|| {
            let mut am = Automerge::load(checkpoint).map_err(refused)?;
            let mut changes = Vec::with_capacity(since.len());
            for bytes in since {
                let incoming = Incoming::inspect(bytes.clone());
                changes.push(
                    incoming
                        .map_err(|e| EngineFault::Refused(e.to_string()))?
                        .change,
                );
            }
            am.apply_changes(changes).map_err(refused)?;
            Ok(am)
        });
        match rebuilt {
            Ok(am) => self.am = am.with_actor(actor),
            Err(fault) => panic!("the state document cannot be rebuilt in memory: {fault}"),
        }
    }
}

/// Checks that the document gives the changes back as they came in.
///
/// A saved document holds no changes but operations, from which the changes and their hashes are
/// made anew on loading. A change that is encoded in an unusual way, or that replaces operations
/// which do not exist, is applied without complaint and comes back as another one: the document
/// could be saved, and never loaded again.
fn check_reproduced(
    am: &Automerge,
    before: &[ChangeHash],
    changes: &[&Incoming],
) -> Result<(), EngineFault> {
    let reproduced: BTreeMap<Hash, Change> = am
        .get_changes(before)
        .into_iter()
        .map(|change| (change.hash().0, change))
        .collect();
    let same = changes.iter().all(|change| {
        let found = reproduced.get(&change.hash);
        found.is_some_and(|found| found.raw_bytes() == change.change.raw_bytes())
    });
    if !same || reproduced.len() != changes.len() {
        return Err(EngineFault::Foreign("it does not survive being saved"));
    }
    Ok(())
}

fn put(tx: &mut impl Transactable, key: &str, value: &[u8]) -> Result<(), EngineFault> {
    let value = ScalarValue::Bytes(value.to_vec());
    tx.put(ROOT, key, value).map_err(refused)
}

fn epoch_actor(epoch: u64) -> ActorId {
    let mut actor = [0; 16];
    actor[..8].copy_from_slice(&EPOCH_ACTOR_PREFIX);
    actor[8..].copy_from_slice(&epoch.to_be_bytes());
    ActorId::from(actor)
}

fn epoch_of(actor: &ActorId) -> Option<u64> {
    let epoch = AsRef::<[u8]>::as_ref(actor).strip_prefix(&EPOCH_ACTOR_PREFIX)?;
    Some(u64::from_be_bytes(epoch.try_into().ok()?))
}

fn refused(error: impl std::fmt::Display) -> EngineFault {
    EngineFault::Refused(error.to_string())
}

/// Runs what may panic on crafted input. The caller discards or rebuilds what it mutated.
fn contained<T>(run: impl FnOnce() -> Result<T, EngineFault>) -> Result<T, EngineFault> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(EngineFault::Panicked(text.chars().take(200).collect()))
    })
}
