//! What is remembered of each peer.

use std::collections::BTreeMap;

use dunlin_state::desired::SyncSession;
use dunlin_state::model::{NodeId, Version};

/// Peers whose offences are remembered; the quietest is forgotten first.
const MAX_OFFENDERS: usize = 256;

/// Milliseconds between two warnings about one peer.
const WARN_EVERY_MS: u64 = 60_000;

/// A connected peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The running exchange of automerge's sync protocol.
    pub(super) session: Option<Session>,
    /// Registers that it should get with the next flush, and the version that it is believed to
    /// know: it gets what has changed since.
    pub(super) outbox: BTreeMap<NodeId, Option<Version>>,
    /// Mono milliseconds of the last summary sent to it.
    pub(super) summary_at: Option<u64>,
    /// Mono milliseconds of the last whole document sent to it.
    pub(super) document_sent_at: Option<u64>,
    /// Mono milliseconds of the last whole document looked at from it.
    pub(super) document_taken_at: Option<u64>,
}

impl Peer {
    /// The peer should get a register. Of two beliefs about what it knows the older one counts.
    pub(super) fn owes(&mut self, node: NodeId, known: Option<Version>) {
        let entry = self.outbox.entry(node).or_insert(known);
        *entry = (*entry).min(known);
    }
}

/// One exchange of automerge's sync protocol.
#[derive(Debug)]
pub(super) struct Session {
    /// Its number.
    pub(super) round: u64,
    /// What is known of the peer's document.
    pub(super) sync: SyncSession,
    /// Mono milliseconds of the last step.
    pub(super) active_at: u64,
}

/// Whether something that may happen once in `gap` milliseconds may happen now; if so, notes it.
pub(super) fn may_again(last: &mut Option<u64>, gap: u64, mono: u64) -> bool {
    let may = last.is_none_or(|last| mono >= last.saturating_add(gap));
    if may {
        *last = Some(mono);
    }
    may
}

/// Who sent rubbish, beyond the life of a connection.
#[derive(Debug, Default)]
pub(super) struct Offences {
    known: BTreeMap<NodeId, Offender>,
}

#[derive(Debug, Default)]
struct Offender {
    /// Since the last warning.
    count: u64,
    warned_at: Option<u64>,
}

impl Offences {
    /// Counts an offence. Returns a warning about it, at most one per peer and minute.
    pub(super) fn note(&mut self, peer: NodeId, reason: &str, mono: u64) -> Option<String> {
        if !self.known.contains_key(&peer) && self.known.len() >= MAX_OFFENDERS {
            let quietest = self.known.iter().min_by_key(|(_, o)| o.warned_at);
            let quietest = quietest.map(|(peer, _)| *peer);
            quietest.and_then(|peer| self.known.remove(&peer));
        }
        let offender = self.known.entry(peer).or_default();
        offender.count = offender.count.saturating_add(1);
        if !may_again(&mut offender.warned_at, WARN_EVERY_MS, mono) {
            return None;
        }
        let count = std::mem::take(&mut offender.count);
        Some(format!(
            "node {} sent what cannot be used ({count} times since the last warning): {reason}",
            peer.short()
        ))
    }
}

/// What a warning is about, other than a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// The disk refuses.
    Disk,
    /// Somebody else uses this node's identity.
    Impostor,
    /// The document does not fit into a message.
    DocumentSize,
    /// This node's own report breaks a bound.
    OwnReport,
    /// Compaction fails.
    Compaction,
    /// There is no room for a register.
    NoRoom,
}

/// When operators were last told of each topic.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    told: BTreeMap<Topic, Option<u64>>,
}

impl Warnings {
    /// Whether this topic may be mentioned (again) now; if so, notes it.
    pub(super) fn may_tell(&mut self, topic: Topic, mono: u64) -> bool {
        may_again(self.told.entry(topic).or_default(), WARN_EVERY_MS, mono)
    }
}
