//! The document: desired state as all nodes share it.
//!
//! # Choices
//! - **One key, one aspect.** A service is four registers: specification, image, scale, running.
//!   Concurrent edits of different aspects both win. For the same aspect the greater
//!   [`Stamp`](super::Stamp) wins, everywhere and also across compactions; the other edit stays
//!   visible in [`Document::history`] and [`Document::conflicts`].
//! - **A service exists while its specification is live.** Removing writes tombstones into all
//!   four registers. Against a concurrent deploy that wrote a new specification, the greater stamp
//!   decides; a concurrent deploy that changed only the image, or a scale, does not bring a
//!   removed service back.
//! - **A change of another version is kept.** Keys that this version does not know are carried
//!   along. A register that it cannot read is put aside ([`Document::invalid`]) and the newest
//!   valid revision stands in for it.
//! - **Clocks order nothing.** Wall time is shown to people and gives tombstones their age.
//!
//! # Bounded history
//! Automerge keeps every change. When there are too many, [`Document::compact`] starts a new
//! document that holds only the newest registers. It is a pure function of the registers, so nodes
//! that hold the same compact to the same document without a word. Where they do not, the document
//! with the greater [`DocumentId`] wins and [`Document::adopt`] carries over what the other one
//! has beyond it, so that nothing that was accepted is lost.
//!
//! One limit remains: a tombstone is purged seven days after it was written. A node that was
//! isolated for longer brings a service that was removed meanwhile back to life when it returns.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_trust::Credential;
use serde::{Deserialize, Serialize};

use super::command::Command;
use super::draft::{Writes, draft};
use super::engine::{Engine, EngineFault};
use super::keys::{Key, TrustKey};
use super::pending::{Pending, Quarantine};
use super::refused::LoadError;
use super::register::{Actor, Register, Stamp};
use super::rejection::Rejection;
use super::rules::Rules;
use super::snapshot::Desired;
use super::table::Table;
use super::validate::MAX_REGISTER_BYTES;
use crate::Now;

/// Bytes of one change: a gossip message carries at least one.
pub const MAX_CHANGE_BYTES: usize = 1024 * 1024;

/// Changes in the history at which a compaction is due, unless there are very many registers. Each
/// takes up to 17 kB of a daemon's memory until then (12 services that change all the time), so
/// this bounds the history to 2 MB. Applying a change walks the flat map, too: with 1,000 services
/// 0.2 ms at 1,000 changes, 6 ms at 20,000 and 40 ms at 50,000.
pub const COMPACT_AT: usize = 128;

/// Revisions kept of each aspect.
pub const MAX_REVISIONS: usize = 10;

/// Bytes of values and keys in one proposal; the rest of [`MAX_CHANGE_BYTES`] is left for what
/// automerge adds, of which [`OPERATION_BYTES`] is counted already. A change above the bound would
/// be refused by every peer, so it must never be made.
const MAX_PROPOSAL_BYTES: usize = MAX_CHANGE_BYTES / 4 * 3;

/// What automerge adds to the key and value of one operation: lengths, counters, predecessors.
const OPERATION_BYTES: usize = 32;

/// Bytes of an author's name in the history.
const MAX_AUTHOR_BYTES: usize = 128;

/// Identity of a document: only documents of one identity share history and can exchange changes.
/// The greater one wins and the other's registers are carried over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocumentId {
    /// Counts compactions.
    pub epoch: u64,
    /// Hash of the first change.
    pub root: [u8; 32],
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = data_encoding::HEXLOWER.encode(&self.root[..6]);
        write!(f, "{}-{root}", self.epoch)
    }
}

/// A register that is kept but not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRegister {
    /// Its key.
    pub key: String,
    /// Why it is not used.
    pub reason: String,
}

/// A document of which the end could not be loaded.
#[derive(Debug)]
pub struct Recovered {
    /// What could be loaded.
    pub document: Document,
    /// Why the rest could not, and where it starts; `None` when all was loaded.
    pub dropped: Option<LoadError>,
}

/// Desired state with its history. See the [module](self) for what it promises. A clone writes as
/// the same actor, so of two clones that both write, one has to be dropped unseen.
#[derive(Clone)]
pub struct Document {
    pub(super) engine: Engine,
    pub(super) actor: Actor,
    pub(super) table: Table,
    pub(super) pending: Pending,
    pub(super) quarantine: Quarantine,
    /// Whom it believes; everybody when there are none.
    pub(super) rules: Option<Rules>,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("id", &self.id())
            .field("changes", &self.change_count())
            .field("services", &self.snapshot().services.len())
            .finish_non_exhaustive()
    }
}

impl Document {
    /// The empty document that every new cluster starts from: the same on all nodes. It believes
    /// everybody and signs nothing until it is given rules ([`Self::set_rules`]).
    ///
    /// # Panics
    /// When automerge cannot write an empty document, which no input influences.
    pub fn new(actor: Actor) -> Self {
        match Engine::rebase(0, &BTreeMap::new(), actor) {
            Ok(engine) => Self::over(engine, actor),
            Err(fault) => panic!("the empty state document cannot be made: {fault}"),
        }
    }

    pub(super) fn over(engine: Engine, actor: Actor) -> Self {
        Self {
            table: Table::read(&engine),
            engine,
            actor,
            pending: Pending::default(),
            quarantine: Quarantine::default(),
            rules: None,
        }
    }

    /// Sets whom to believe from now on, and in whose name to write.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = Some(rules);
    }

    /// In whose name it writes.
    pub fn credentials(&self) -> &[Credential] {
        self.rules.as_ref().map_or(&[], Rules::credentials)
    }

    /// Loads a saved document and the changes written after it. `actor` must be one that has never
    /// written: a new boot's.
    ///
    /// # Errors
    /// When any byte is damaged; see [`Self::load_prefix`] for keeping what is whole.
    pub fn load(saved: &[u8], changes: &[Bytes], actor: Actor) -> Result<Self, LoadError> {
        let recovered = Self::load_prefix(saved, changes, actor, None)?;
        match recovered.dropped {
            None => Ok(recovered.document),
            Some(error) => Err(error),
        }
    }

    /// Loads as [`Self::load`] does, believing whom the rules say, but stops at the first change that is damaged and reports it.
    /// What was dropped comes back from peers; nothing else may be written to this disk before the
    /// whole document has been saved anew.
    ///
    /// # Errors
    /// When the saved document itself is damaged.
    pub fn load_prefix(
        saved: &[u8],
        changes: &[Bytes],
        actor: Actor,
        rules: Option<Rules>,
    ) -> Result<Recovered, LoadError> {
        let corrupt = |reason| LoadError::SavedCorrupt {
            bytes: saved.len(),
            reason,
        };
        let engine = Engine::load(saved, actor).map_err(|fault| corrupt(fault.to_string()))?;
        let mut document = Self::over(engine, actor);
        document.rules = rules;
        if let Some(rules) = &mut document.rules {
            rules.check_all(&document.engine, None).map_err(corrupt)?;
        }
        let dropped = document.replay(changes);
        Ok(Recovered { document, dropped })
    }

    /// Which document this is.
    pub fn id(&self) -> DocumentId {
        self.engine.id()
    }

    /// Hash of everything in the document's history. Documents with equal fingerprints are equal.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.id().root);
        for head in self.engine.heads() {
            hasher.update(&head);
        }
        *hasher.finalize().as_bytes()
    }

    /// The whole document for the disk or for a peer, compressed.
    pub fn save(&self) -> Bytes {
        self.engine.save()
    }

    /// Changes in its history.
    pub fn change_count(&self) -> usize {
        self.engine.changes()
    }

    /// Changes that wait for earlier ones; they are bounded and not saved.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Desired state as it is now.
    pub fn snapshot(&self) -> Arc<Desired> {
        Arc::clone(self.table.desired())
    }

    /// Registers that are kept but not used, ordered by key.
    pub fn invalid(&self) -> Vec<InvalidRegister> {
        let invalid = self.table.invalid().iter();
        invalid
            .map(|(key, reason)| InvalidRegister {
                key: key.clone(),
                reason: reason.clone(),
            })
            .collect()
    }

    /// Checks commands and writes them as one change: all or none. Returns the change, which must
    /// be on disk before it is sent, or `None` when everything is so already.
    ///
    /// # Errors
    /// Why a command was refused; then nothing has changed.
    pub fn propose(
        &mut self,
        commands: &[Command],
        author: &str,
        now: Now,
    ) -> Result<Option<Bytes>, Rejection> {
        let writes = draft(self.table.desired(), commands)?;
        if writes.is_empty() {
            return Ok(None);
        }
        let bytes = self.registers(writes, author, now)?;
        let change = self
            .engine
            .write(&bytes, now.wall)
            .map_err(|fault: EngineFault| Rejection::Internal(fault.to_string()))?;
        let _seen = self.table.refresh(&self.engine, bytes.into_keys());
        Ok(Some(change))
    }

    /// Stamps and signs the values and adds the history: each aspect's new register is also kept
    /// as a revision. Revisions beyond the newest [`MAX_REVISIONS`] go with the next compaction.
    fn registers(
        &self,
        writes: Writes,
        author: &str,
        now: Now,
    ) -> Result<BTreeMap<String, Bytes>, Rejection> {
        let stamp = Stamp {
            counter: self.table.next_counter(),
            actor: self.actor,
        };
        let author = cut(author, MAX_AUTHOR_BYTES);
        let mut registers = Vec::with_capacity(writes.len());
        for (key, mut value) in writes {
            if let Key::Trust(TrustKey::Revoked(_)) = key {
                // What the removed one has written up to here stays.
                value["counter"] = self.table.max_counter().into();
            }
            let register = Register {
                stamp,
                author: author.to_owned(),
                time: now.wall,
                base: self.base(&key),
                value,
            };
            // Virtual addresses are written down on the way, also those of services in namespaces
            // that the author has no business in: somebody else will do it.
            let may_not = |rules: &Rules| {
                let verdict = rules.may_write(&key, &register);
                matches!(verdict, Err(Rejection::NotAllowed { .. }))
            };
            if matches!(key, Key::Vip(_)) && self.rules.as_ref().is_some_and(may_not) {
                continue;
            }
            registers.push((key, register));
        }
        let sealed = match &self.rules {
            Some(rules) => rules.seal(&registers, self.table.voids())?,
            None => registers.iter().map(|(_, r)| r.encode()).collect(),
        };
        let mut bytes = BTreeMap::new();
        for ((key, _), encoded) in registers.into_iter().zip(sealed) {
            if encoded.len() > MAX_REGISTER_BYTES {
                return Err(Rejection::ValueTooLarge {
                    what: key.to_string(),
                    bytes: encoded.len(),
                    max: MAX_REGISTER_BYTES,
                });
            }
            if let Some(revision) = key.revision(stamp) {
                bytes.insert(revision.to_string(), encoded.clone());
            }
            bytes.insert(key.to_string(), encoded);
        }
        let total: usize = bytes
            .iter()
            .map(|(key, value)| OPERATION_BYTES + key.len() + value.len())
            .sum();
        if total > MAX_PROPOSAL_BYTES {
            return Err(Rejection::ChangeTooLarge {
                bytes: total,
                max: MAX_PROPOSAL_BYTES,
            });
        }
        Ok(bytes)
    }

    fn base(&self, key: &Key) -> Option<Stamp> {
        match key {
            Key::Service(service, aspect) => self.table.service(service)?.stamp(*aspect),
            Key::Node(..)
            | Key::Ask(..)
            | Key::Revision(..)
            | Key::NodeRevision(..)
            | Key::Item(..)
            | Key::ItemRevision(..)
            | Key::Quota(_)
            | Key::QuotaRevision(..)
            | Key::Rebalancing
            | Key::RebalancingRevision(_)
            | Key::Trust(_)
            | Key::Vip(_) => None,
        }
    }
}

/// Cuts a text to so many bytes, at a character.
pub(super) fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
