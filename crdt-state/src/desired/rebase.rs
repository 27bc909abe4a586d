//! Compaction, and the meeting of two documents.
//!
//! Both build on one function: the registers of a document, one per key, chosen by stamp alone.
//! Validity plays no part in it, because two versions of Dunlin may judge it differently and must
//! still compact to the same document.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::change::DesiredChange;
use super::document::{Document, DocumentId, MAX_CHANGE_BYTES, MAX_REVISIONS};
use super::engine::Engine;
use super::keys::{Aspect, FORMAT_KEY, Key, TrustKey};
use super::refused::Refused;
use super::register::{Register, Stamp, newest};
use super::remote::MAX_COUNTER_LEAP;
use super::rules::Voids;
use super::snapshot::Desired;
use super::table::Table;

/// Bytes of a whole document from a peer. The design size (1,000 services with full history)
/// takes a tenth of it.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024 * 1024;

/// Age at which a tombstone is purged, in milliseconds: seven days. A node that was isolated for
/// longer may bring back what was removed meanwhile.
pub const TOMBSTONE_AGE_MS: u64 = 7 * 24 * 3_600_000;

/// How far a peer's epoch may be ahead of ours. A cluster that compacts every minute for a year is
/// half a million ahead; a greater leap would use the counter up.
const MAX_EPOCH_LEAP: u64 = 1 << 20;

/// Versions kept of each secret and config: what an older version said is of no use, and a secret
/// that was replaced is better forgotten. One is enough to keep a replayed older register down.
const MAX_ITEM_REVISIONS: usize = 1;

/// Registers in the document for each change in its history, when a compaction is due: every peer
/// gets the new document whole, and that should cost no more than the changes did that led to it.
const REGISTERS_A_CHANGE: usize = 16;

/// Bytes of registers in one carried-over change; the rest is left for keys and columns.
const CARRY_BYTES: usize = MAX_CHANGE_BYTES / 2;

/// What came of taking a peer's document.
#[derive(Debug)]
#[must_use]
pub struct Adopted {
    /// What it means for readers of the snapshot.
    pub changes: Vec<DesiredChange>,
    /// The whole document as it is now, to replace everything on disk.
    pub saved: Bytes,
    /// Our own changes in it, which carry over what the peer did not have; to be sent to peers
    /// once `saved` is on disk.
    pub carried: Vec<Bytes>,
}

impl Document {
    /// Whether the history has grown so long that [`Self::compact`] is due: `at` changes, or more
    /// where there are so many registers that a whole document is a lot to send.
    pub fn should_compact(&self, at: usize) -> bool {
        let changes = self.change_count();
        changes >= at && changes >= self.engine.len() / REGISTERS_A_CHANGE
    }

    /// Replaces the document by one of the next epoch that holds only the newest registers and
    /// none of the old tombstones. Nothing that readers see changes. Returns the whole new
    /// document, to replace everything on disk.
    ///
    /// # Errors
    /// When automerge fails; then the document is as before.
    pub fn compact(&mut self) -> Result<Bytes, Refused> {
        let epoch = self.id().epoch.saturating_add(1);
        let kept = without_old(registers(&self.engine, &Voids::read(&self.engine)));
        let bytes = kept.into_iter().map(|(key, r)| (key, r.bytes)).collect();
        let engine = Engine::rebase(epoch, &bytes, self.actor)
            .map_err(|fault| Refused::Internal(fault.to_string()))?;
        self.replace(engine);
        Ok(self.save())
    }

    /// Takes the place of a peer's document that supersedes ours ([`DocumentId`]), and writes into
    /// it what ours has beyond it: registers with a greater stamp, or of keys that it lacks. Their
    /// stamps and authors stay as they are.
    ///
    /// # Errors
    /// When it does not supersede ours or is not what it claims to be; then nothing has changed.
    pub fn adopt(&mut self, other_saved: &[u8], other_id: DocumentId) -> Result<Adopted, Refused> {
        self.check_adoption(other_saved, other_id)?;
        let malformed = |reason| Refused::Malformed {
            what: "a document",
            reason,
        };
        let mut engine =
            Engine::load(other_saved, self.actor).map_err(|fault| malformed(fault.to_string()))?;
        if let Some(rules) = &mut self.rules {
            if !rules.is_ready() {
                return Err(Refused::NotJoined);
            }
            rules
                .check_all(&engine, Some(&self.engine))
                .map_err(malformed)?;
        }
        if engine.id() != other_id {
            return Err(Refused::WrongDocument {
                claimed: other_id,
                found: engine.id(),
            });
        }
        let limit = self.table.max_counter().saturating_add(MAX_COUNTER_LEAP);
        if Table::read(&engine).max_counter() > limit {
            return Err(Refused::CounterLeap);
        }
        let mut carried = Vec::new();
        for writes in carry_over(&self.engine, &engine) {
            let change = engine.write(&writes, 0);
            carried.push(change.map_err(|fault| malformed(fault.to_string()))?);
        }
        let changes = self.replace(engine);
        let saved = self.save();
        Ok(Adopted {
            changes,
            saved,
            carried,
        })
    }

    fn check_adoption(&self, saved: &[u8], theirs: DocumentId) -> Result<(), Refused> {
        let ours = self.id();
        if theirs <= ours {
            return Err(Refused::NotGreater { ours, theirs });
        }
        if theirs.epoch > ours.epoch.saturating_add(MAX_EPOCH_LEAP) {
            return Err(Refused::CounterLeap);
        }
        if saved.len() > MAX_DOCUMENT_BYTES {
            return Err(Refused::TooLarge {
                what: "a document",
                bytes: saved.len(),
                max: MAX_DOCUMENT_BYTES,
            });
        }
        Ok(())
    }

    fn replace(&mut self, engine: Engine) -> Vec<DesiredChange> {
        let before = self.snapshot();
        self.table = Table::read(&engine);
        self.engine = engine;
        self.pending.clear();
        differences(&before, self.table.desired())
    }
}

/// A register as chosen among its concurrent values.
struct Chosen {
    bytes: Bytes,
    /// `None` when the value is no register; it is carried along all the same.
    register: Option<Register>,
}

impl Chosen {
    fn stamp(&self) -> Option<Stamp> {
        self.register.as_ref().map(|r| r.stamp)
    }
}

/// The newest register of every key that counts for something: of what stands there, and of the
/// versions kept beside it.
fn registers(engine: &Engine, voids: &Voids) -> BTreeMap<String, Chosen> {
    let keys = engine.keys();
    let mut versions: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    for text in keys.iter().filter(|text| *text != FORMAT_KEY) {
        let values = match Key::parse(text) {
            Some(Key::Trust(TrustKey::Revoked(_))) => engine.values(text),
            Some(key) if key.stamp().is_some() => {
                let values = voids.sift(engine.values(text));
                let current = key.current().to_string();
                versions.entry(current).or_default().extend(values.clone());
                values
            }
            Some(_) | None => voids.sift(engine.values(text)),
        };
        versions.entry(text.clone()).or_default().extend(values);
    }
    // What is not there must not come back from its versions.
    versions.retain(|text, _| keys.binary_search(text).is_ok());
    let chosen = versions.into_iter().filter_map(|(key, values)| {
        let (bytes, register) = newest(values)?;
        let register = register.ok();
        Some((key, Chosen { bytes, register }))
    });
    chosen.collect()
}

/// Drops old tombstones, all that is left of services whose specification is gone with them, and
/// revisions beyond the newest.
fn without_old(mut registers: BTreeMap<String, Chosen>) -> BTreeMap<String, Chosen> {
    let times = registers.values().filter_map(|c| c.register.as_ref());
    let newest_time = times.map(|r| r.time).max().unwrap_or(0);
    let horizon = newest_time.saturating_sub(TOMBSTONE_AGE_MS);
    // Only keys that this version understands are judged.
    registers.retain(|text, chosen| {
        let old = chosen.register.as_ref();
        let old = old.is_some_and(|r| r.is_tombstone() && r.time < horizon);
        !(old && Key::parse(text).is_some_and(|key| may_vanish(&key)))
    });
    let parsed: Vec<Key> = registers.keys().filter_map(|k| Key::parse(k)).collect();
    let mut existing = BTreeSet::new();
    let mut standing = BTreeSet::new();
    let mut versions: BTreeMap<Key, Vec<Stamp>> = BTreeMap::new();
    for key in &parsed {
        if let Key::Service(service, Aspect::Spec) = key {
            existing.insert(service);
        }
        match key.stamp() {
            Some(stamp) => versions.entry(key.current()).or_default().push(stamp),
            None => drop(standing.insert(key)),
        }
    }
    for key in &parsed {
        let is_among = |newest: usize| {
            let versions = versions.get(&key.current()).into_iter().flatten();
            versions.filter(|other| Some(**other) > key.stamp()).count() < newest
        };
        let keep = match key {
            Key::Service(service, _) | Key::Ask(service, _) | Key::Vip(service) => {
                existing.contains(service)
            }
            Key::Revision(service, ..) => existing.contains(service) && is_among(MAX_REVISIONS),
            Key::NodeRevision(..) | Key::QuotaRevision(..) | Key::RebalancingRevision(_) => {
                standing.contains(&key.current()) && is_among(MAX_REVISIONS)
            }
            Key::ItemRevision(..) => {
                standing.contains(&key.current()) && is_among(MAX_ITEM_REVISIONS)
            }
            Key::Node(..) | Key::Item(..) | Key::Quota(_) | Key::Rebalancing | Key::Trust(_) => {
                true
            }
        };
        if !keep {
            registers.remove(&key.to_string());
        }
    }
    registers
}

/// Whether a tombstone under this key says nothing once everybody has seen it.
fn may_vanish(key: &Key) -> bool {
    match key {
        Key::Service(..)
        | Key::Ask(..)
        | Key::Node(..)
        | Key::Vip(..)
        | Key::Item(..)
        | Key::Quota(_)
        | Key::Rebalancing => true,
        Key::Revision(..)
        | Key::NodeRevision(..)
        | Key::ItemRevision(..)
        | Key::QuotaRevision(..)
        | Key::RebalancingRevision(_)
        | Key::Trust(_) => false,
    }
}

/// What `ours` has beyond `theirs`, in changes that peers take.
fn carry_over(ours: &Engine, theirs: &Engine) -> Vec<BTreeMap<String, Bytes>> {
    // What counts for nothing by either side's orders is not carried.
    let voids = Voids::read(ours);
    let mut batches = Vec::new();
    let mut batch = BTreeMap::new();
    let mut bytes = 0;
    for (key, chosen) in without_old(registers(ours, &voids)) {
        let known = newest(theirs.values(&key));
        let beyond =
            known.is_none_or(|(_, register)| chosen.stamp() > register.ok().map(|r| r.stamp));
        if !beyond {
            continue;
        }
        bytes += key.len() + chosen.bytes.len();
        batch.insert(key, chosen.bytes);
        if bytes > CARRY_BYTES {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// The changes that lead from one snapshot to another.
pub(super) fn differences(old: &Desired, new: &Desired) -> Vec<DesiredChange> {
    let mut changes = Vec::new();
    let services: BTreeSet<_> = old.services.keys().chain(new.services.keys()).collect();
    for key in services {
        let (old, new) = (old.services.get(key), new.services.get(key));
        DesiredChange::of_service(key, old, new, &mut changes);
    }
    let nodes: BTreeSet<_> = old.nodes.keys().chain(new.nodes.keys()).collect();
    for node in nodes {
        let (old, new) = (old.nodes.get(node), new.nodes.get(node));
        DesiredChange::of_node(*node, old, new, &mut changes);
    }
    DesiredChange::of_vips(&old.vips, &new.vips, &mut changes);
    DesiredChange::of_items(&old.items, &new.items, &mut changes);
    DesiredChange::of_quotas(&old.quotas, &new.quotas, &mut changes);
    if old.rebalancing != new.rebalancing {
        changes.push(DesiredChange::RebalancingChanged);
    }
    if old.trust != new.trust {
        changes.push(DesiredChange::TrustChanged);
    }
    changes
}
