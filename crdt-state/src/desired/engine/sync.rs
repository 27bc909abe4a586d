//! Automerge's sync protocol, reduced to what is safe and bounded.
//!
//! Only its first version is spoken: changes travel one by one, so that each is inspected before
//! it is applied. (The second version may send a whole saved document instead.) The document keeps
//! changes that wait for others outside automerge, so what they wait for is added to our requests:
//! otherwise a false positive of the Bloom filter could hide a change until the next write.

use automerge::sync::{ChunkList, Message, State, SyncDoc};
use automerge::{Change, ChangeHash};
use bytes::Bytes;

use super::chunk::read_uleb;
use super::{Engine, EngineFault, Hash, contained, refused};

/// Hashes in each list of a message. A cluster with more concurrent heads than this has never
/// exchanged anything.
const MAX_HASHES: usize = 10_000;

/// Bloom filters in a message; automerge sends at most one.
const MAX_FILTERS: usize = 4;

/// Probes and bits per entry of a peer's Bloom filter; automerge uses 7 and 10. Each probe costs
/// time for each of our changes.
const MAX_FILTER_PARAMETER: u64 = 32;

/// What we know of a peer's document.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct SyncState(State);

/// A step that a peer sent, decoded and bounded.
pub(in super::super) struct Step {
    message: Message,
    /// The changes it carries.
    pub(in super::super) changes: Vec<Bytes>,
}

impl Step {
    /// Decodes a step without applying anything.
    pub(in super::super) fn decode(bytes: &[u8]) -> Result<Self, EngineFault> {
        contained(|| {
            let mut message = Message::decode(bytes).map_err(refused)?;
            if message.heads.len() > MAX_HASHES || message.need.len() > MAX_HASHES {
                return Err(EngineFault::Foreign("it names too many changes"));
            }
            if message.have.len() > MAX_FILTERS {
                return Err(EngineFault::Foreign("it has too many filters"));
            }
            for have in &message.have {
                check_filter(&have.bloom.to_bytes())?;
            }
            // Without flags, our state never learns that the peer takes whole documents.
            message.flags = None;
            let chunks = std::mem::replace(&mut message.changes, ChunkList::empty());
            let changes = chunks.iter().map(Bytes::copy_from_slice).collect();
            Ok(Self { message, changes })
        })
    }
}

/// Refuses filters whose evaluation would take long or divide by zero.
fn check_filter(bytes: &[u8]) -> Result<(), EngineFault> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut rest = bytes;
    let mut numbers = [0; 3];
    for number in &mut numbers {
        *number = read_uleb(&mut rest).ok_or(EngineFault::Foreign("a filter is cut off"))?;
    }
    let [_, bits_per_entry, probes] = numbers;
    let fine = |n: u64| (1..=MAX_FILTER_PARAMETER).contains(&n);
    if !fine(bits_per_entry) || !fine(probes) || rest.is_empty() {
        return Err(EngineFault::Foreign("a filter has absurd parameters"));
    }
    Ok(())
}

impl Engine {
    /// The next step to send, if there is anything to say. `wanted` are changes that others wait
    /// for. Changes beyond `max_bytes` are left for a later step.
    pub(in super::super) fn sync_generate(
        &self,
        state: &mut SyncState,
        wanted: impl Iterator<Item = Hash>,
        max_bytes: usize,
    ) -> Result<Option<Bytes>, EngineFault> {
        let am = &self.am;
        let generated = contained(|| {
            let Some(mut message) = am.generate_sync_message(&mut state.0) else {
                return Ok(None);
            };
            message.flags = None;
            message
                .need
                .extend(wanted.map(ChangeHash).take(MAX_HASHES / 2));
            message.need.sort_unstable();
            message.need.dedup();
            message.changes = fitting(&message.changes, &mut state.0, max_bytes);
            Ok(Some(Bytes::from(message.encode())))
        });
        if generated.is_err() {
            *state = SyncState::default();
        }
        generated
    }

    /// Records what a step says about the peer, after its changes have been dealt with.
    pub(in super::super) fn sync_note(
        &mut self,
        state: &mut SyncState,
        step: Step,
    ) -> Result<(), EngineFault> {
        let Step {
            mut message,
            changes,
        } = step;
        // Automerge answers a step with changes even when there is nothing left to say, so that
        // the peer learns that they arrived. One change that is already here, and is therefore
        // skipped, keeps that behaviour without applying anything twice.
        let known = changes.into_iter().find(|bytes| {
            matches!(contained(|| Change::try_from(&bytes[..]).map_err(refused)),
                Ok(change) if self.has(&change.hash().0))
        });
        let touched = known.is_some();
        if let Some(known) = known {
            message.changes = vec![known.to_vec()].into();
        }
        let am = &mut self.am;
        let noted = contained(|| {
            am.receive_sync_message(&mut state.0, message)
                .map_err(refused)
        });
        if noted.is_err() {
            *state = SyncState::default();
            if touched {
                self.restore();
            }
        }
        noted
    }
}

/// The changes that fit. The others are marked as not sent.
fn fitting(changes: &ChunkList, state: &mut State, max_bytes: usize) -> ChunkList {
    let mut kept = Vec::new();
    let mut bytes = 0_usize;
    for chunk in changes.iter() {
        bytes = bytes.saturating_add(chunk.len());
        if bytes <= max_bytes {
            kept.push(chunk.to_vec());
        } else if let Ok(change) = Change::try_from(chunk) {
            state.sent_hashes.remove(&change.hash());
        }
    }
    kept.into()
}
