//! What peers send: changes pushed, and steps of anti-entropy.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::change::DesiredChange;
use super::document::{Document, DocumentId, MAX_CHANGE_BYTES};
use super::engine::{Engine, Hash, Incoming, Step, SyncState};
use super::refused::{LoadError, Refused};
use super::register::Register;
use super::table::Table;

/// Bytes of all changes in one batch or one step: what applying them may cost at most.
pub const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of one step: a batch of changes, and the filter and hashes that come with it.
pub const MAX_STEP_BYTES: usize = MAX_BATCH_BYTES + 1024 * 1024;

/// How far a stamp may be above all that we know. Honest ones are ahead by the writes that have
/// not reached us; a greater leap could use the counter up for everybody.
pub(super) const MAX_COUNTER_LEAP: u64 = 1 << 32;

/// Changes of one batch that may fail while being applied before the rest is dropped: each costs
/// a rebuild of the document.
const MAX_FAILURES: usize = 3;

/// What came of bytes from a peer.
#[derive(Debug, Default)]
#[must_use]
pub struct Applied {
    /// What it means for readers of the snapshot.
    pub changes: Vec<DesiredChange>,
    /// Changes that are new here, in the order in which they must be written to disk.
    pub persist: Vec<Bytes>,
    /// Changes among the others that were not taken.
    pub refused: Vec<Refused>,
}

/// Anti-entropy with one peer: what is known of its document. Cheap to make anew, which is also
/// the cure when a step was lost: a session waits for an answer to each step before it repeats
/// itself.
#[derive(Debug, Clone, Default)]
pub struct SyncSession {
    document: Option<DocumentId>,
    state: SyncState,
}

impl SyncSession {
    /// A session that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Document {
    /// Takes changes that a peer pushed, in any order. Known ones are ignored; those that build on
    /// unknown ones wait, within bounds.
    ///
    /// # Errors
    /// When the batch is too large or any of its changes is malformed or has been refused before:
    /// then none is taken.
    pub fn apply_changes(&mut self, changes: &[Bytes]) -> Result<Applied, Refused> {
        let incoming = self.inspect(changes)?;
        Ok(self.integrate(incoming))
    }

    /// The next step of anti-entropy to send to a peer, if there is anything to say.
    pub fn generate_step(&mut self, session: &mut SyncSession) -> Option<Bytes> {
        let state = session.state_for(self.id());
        let wanted = self
            .pending
            .wanted(|hash| self.engine.has(hash))
            .into_iter();
        let step = self.engine.sync_generate(state, wanted, MAX_BATCH_BYTES);
        match step {
            Ok(step) => step,
            Err(fault) => {
                tracing::warn!(%fault, "a peer's anti-entropy state was unusable; starting anew");
                None
            }
        }
    }

    /// Takes a peer's step of anti-entropy. Ask [`Self::generate_step`] for the answer.
    ///
    /// # Errors
    /// When the step is too large or malformed, or any of its changes is: then nothing is taken.
    pub fn receive_step(
        &mut self,
        session: &mut SyncSession,
        step: &[u8],
    ) -> Result<Applied, Refused> {
        check_size("a step", step.len(), MAX_STEP_BYTES)?;
        let step = Step::decode(step).map_err(|fault| Refused::Malformed {
            what: "a step",
            reason: fault.to_string(),
        })?;
        let incoming = self.inspect(&step.changes)?;
        let applied = self.integrate(incoming);
        let state = session.state_for(self.id());
        if let Err(fault) = self.engine.sync_note(state, step) {
            tracing::warn!(%fault, "a peer's anti-entropy step was unusable; starting anew");
        }
        Ok(applied)
    }

    /// Replays changes from our own disk, in the order in which they were written. Returns where
    /// and why it stopped, if it did.
    pub(super) fn replay(&mut self, changes: &[Bytes]) -> Option<LoadError> {
        let mut ready = Vec::new();
        let mut stopped = None;
        let mut position = Position::new(&self.engine, &self.table);
        for (index, bytes) in changes.iter().enumerate() {
            let checked = Incoming::inspect(bytes.clone())
                .map_err(|e| e.to_string())
                .and_then(|change| match &mut self.rules {
                    Some(rules) => rules.check(&change).map(|()| change),
                    None => Ok(change),
                })
                .and_then(|change| match position.has(&change.hash) {
                    true => Ok(None),
                    false if !position.is_ready(&change) => {
                        Err("a change before it is missing".to_owned())
                    }
                    false => position
                        .admit(&change)
                        .map(|()| Some(change))
                        .map_err(|e| e.to_string()),
                });
            match checked {
                Ok(Some(change)) => ready.push(change),
                // It was saved with the document already.
                Ok(None) => {}
                Err(reason) => {
                    let count = changes.len();
                    stopped = Some(LoadError::ChangeCorrupt {
                        index,
                        count,
                        reason,
                    });
                    break;
                }
            }
        }
        let applied = self.commit(ready);
        match applied.refused.first() {
            None => stopped,
            Some(refused) => Some(LoadError::ChangeCorrupt {
                index: applied.persist.len(),
                count: changes.len(),
                reason: refused.to_string(),
            }),
        }
    }

    /// Size, quarantine and shape: everything that can be said of a change by itself.
    fn inspect(&mut self, changes: &[Bytes]) -> Result<Vec<Incoming>, Refused> {
        let total = changes
            .iter()
            .map(Bytes::len)
            .fold(0, usize::saturating_add);
        check_size("a batch of changes", total, MAX_BATCH_BYTES)?;
        let mut incoming = Vec::with_capacity(changes.len());
        for bytes in changes {
            check_size("a change", bytes.len(), MAX_CHANGE_BYTES)?;
            if let Some(name) = self.quarantine.find(bytes) {
                return Err(Refused::Quarantined(name));
            }
            let inspected = Incoming::inspect(bytes.clone()).map_err(|error| error.to_string());
            let rules = &mut self.rules;
            let believed = inspected.and_then(|change| match rules {
                Some(rules) => rules.check(&change).map(|()| change),
                None => Ok(change),
            });
            match believed {
                Ok(change) => incoming.push(change),
                // Nobody can be believed yet: it may come again.
                Err(_) if self.rules.as_ref().is_some_and(|r| !r.is_ready()) => {
                    return Err(Refused::NotJoined);
                }
                Err(error) => {
                    self.quarantine.insert(bytes);
                    return Err(Refused::Malformed {
                        what: "a change",
                        reason: error,
                    });
                }
            }
        }
        Ok(incoming)
    }

    /// Applies what is ready, with what waited for it, and keeps the rest waiting.
    fn integrate(&mut self, incoming: Vec<Incoming>) -> Applied {
        let mut refused = Vec::new();
        let mut ready = Vec::new();
        let mut position = Position::new(&self.engine, &self.table);
        let mut todo = incoming;
        while !todo.is_empty() {
            let before = ready.len();
            for change in todo {
                if position.has(&change.hash) || self.pending.has(&change.hash) {
                    continue;
                }
                if !position.is_ready(&change) {
                    self.pending.push(change);
                    continue;
                }
                match position.admit(&change) {
                    Ok(()) => ready.push(change),
                    Err(error) => {
                        self.quarantine.insert(&change.bytes);
                        refused.push(error);
                    }
                }
            }
            todo = match ready.len() > before {
                true => self.pending.take_ready(|hash| position.has(hash)),
                false => Vec::new(),
            };
        }
        let mut applied = self.commit(ready);
        applied.refused.splice(0..0, refused);
        applied
    }

    /// Applies changes that are ready in this order: together, and if that fails one by one, so
    /// that one bad change costs only itself and what builds on it.
    fn commit(&mut self, ready: Vec<Incoming>) -> Applied {
        let mut done = Vec::new();
        let mut refused = Vec::new();
        let all: Vec<&Incoming> = ready.iter().collect();
        if all.is_empty() || self.engine.apply(&all).is_ok() {
            done = ready;
        } else {
            for change in ready {
                if refused.len() >= MAX_FAILURES || !self.engine.is_ready(&change) {
                    continue;
                }
                match self.engine.apply(&[&change]) {
                    Ok(()) => done.push(change),
                    Err(fault) => {
                        self.quarantine.insert(&change.bytes);
                        refused.push(Refused::Malformed {
                            what: "a change",
                            reason: fault.to_string(),
                        });
                    }
                }
            }
        }
        let keys: BTreeSet<String> = done.iter().flat_map(|c| c.keys.iter().cloned()).collect();
        Applied {
            changes: self.table.refresh(&self.engine, keys),
            persist: done.into_iter().map(|c| c.bytes).collect(),
            refused,
        }
    }
}

/// Where the document will stand after the changes admitted so far, before any is applied.
struct Position<'a> {
    engine: &'a Engine,
    /// With the counter of the last operation of each.
    admitted: BTreeMap<Hash, u64>,
    seqs: BTreeMap<Vec<u8>, u64>,
    max_op: u64,
    max_counter: u64,
}

impl<'a> Position<'a> {
    fn new(engine: &'a Engine, table: &Table) -> Self {
        Self {
            engine,
            admitted: BTreeMap::new(),
            seqs: BTreeMap::new(),
            max_op: engine.max_op(),
            max_counter: table.max_counter(),
        }
    }

    fn has(&self, hash: &Hash) -> bool {
        self.admitted.contains_key(hash) || self.engine.has(hash)
    }

    fn is_ready(&self, change: &Incoming) -> bool {
        change.deps.iter().all(|dep| self.has(dep))
    }

    /// Checks that a change continues what is there, and counts it as there.
    fn admit(&mut self, change: &Incoming) -> Result<(), Refused> {
        let last = self.seqs.get(&change.actor).copied();
        let expected = match last {
            Some(last) => last.saturating_add(1),
            None => self.engine.next_seq(&change.actor),
        };
        if change.seq != expected {
            return Err(Refused::SplitHistory {
                actor: data_encoding::HEXLOWER.encode(&change.actor),
                number: change.seq,
                expected,
            });
        }
        let limit = self.max_counter.saturating_add(MAX_COUNTER_LEAP);
        let counter = max_counter(change);
        // Automerge would take one that comes before what it builds on, save it, and be unable to
        // read what it has saved.
        let last_op = |dep| self.admitted.get(dep).copied().or(self.engine.last_op(dep));
        let earliest = change.deps.iter().filter_map(last_op).max().unwrap_or(0);
        let fits = earliest < change.start_op && change.start_op <= self.max_op.saturating_add(1);
        if counter > limit || !fits {
            return Err(Refused::CounterLeap);
        }
        self.max_counter = self.max_counter.max(counter);
        self.max_op = self.max_op.max(change.max_op);
        self.seqs.insert(change.actor.clone(), change.seq);
        self.admitted.insert(change.hash, change.max_op);
        Ok(())
    }
}

fn max_counter(change: &Incoming) -> u64 {
    let registers = change
        .values
        .iter()
        .filter_map(|v| Register::decode(v).ok());
    registers.map(|r| r.stamp.counter).max().unwrap_or(0)
}

fn check_size(what: &'static str, bytes: usize, max: usize) -> Result<(), Refused> {
    if bytes > max {
        return Err(Refused::TooLarge { what, bytes, max });
    }
    Ok(())
}

impl SyncSession {
    /// What was known of the peer's copy of an earlier document is worth nothing.
    fn state_for(&mut self, document: DocumentId) -> &mut SyncState {
        if self.document != Some(document) {
            self.document = Some(document);
            self.state = SyncState::default();
        }
        &mut self.state
    }
}
