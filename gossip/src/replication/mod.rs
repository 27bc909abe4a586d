//! Push and anti-entropy of both state planes, as one deterministic machine.
//!
//! *Push* is for speed: a new change or register goes to the connected peers at once, and whoever
//! finds it new passes it on, to all peers when they are few and to a random handful when they are
//! many. *Anti-entropy* is for correctness: every few seconds, and whenever a connection comes up,
//! two peers compare summaries of a hundred bytes and exchange only what differs. Any message may
//! be lost, repeated or overtaken.
//!
//! - `documents`: changes of desired state, automerge's sync protocol, whole documents.
//! - `disk`: local writes, which are durable before anyone sees them.
//! - `registers`, `table`: observed state.

mod disk;
mod documents;
mod io;
mod limits;
mod metrics;
mod peers;
mod pushed;
mod registers;
mod seen;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::{
    AuditRecord, COMPACT_AT, Conflict, Desired, Document, DocumentId, HistoryEntry, InvalidRegister,
};
use dunlin_state::model::{NodeId, ServiceKey};
use dunlin_state::observed::{ObservedTable, Seal};
use dunlin_trust::Credential;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use io::{Effect, Input, Message, PersistId, ProposalId, Write};
pub use limits::{MAX_DOCUMENT_BYTES, MAX_NODES, MAX_PUSH_BYTES};
pub use metrics::Metrics;
pub use pushed::Pushed;

use crate::membership::Profile;
use disk::Disk;
use documents::Inbox;
use peers::{Offences, Peer, Topic, Warnings};
use registers::RegisterTimers;
use seen::Seen;
use table::Registers;

/// With so many peers or fewer, news is passed on to all of them.
const PUSH_TO_ALL: usize = 8;

/// With more peers, news is passed on to so many at random. A push that every node repeats to six
/// others misses one node in 400 (e^-6); anti-entropy brings it the news within seconds. Half as
/// many would miss one in 20, and all twelve would double the traffic.
const FANOUT: usize = 6;

/// With so many peers, most connections were made for an auction: registers are not compared at
/// once, and not all hear of this node's own at once. The overlay keeps at most 16.
const MANY_PEERS: usize = 16;

/// How many of so many peers hear of this node's own register at once.
const OWN_FANOUT: usize = 12;

/// How long a due compaction is left to the peer that ranks first, in milliseconds; after that,
/// any node compacts.
const COMPACT_PATIENCE_MS: u64 = 60_000;

/// How often and when the machine acts unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Milliseconds between rounds of anti-entropy, each with one random peer. Shorter repairs lost
    /// pushes sooner; each idle round costs two messages of 150 bytes.
    pub interval_ms: u64,
    /// Changes in the document's history at which it is compacted, unless it has very many
    /// registers.
    pub compact_at: usize,
}

impl From<Profile> for Tuning {
    fn from(profile: Profile) -> Self {
        let interval_ms = match profile {
            Profile::Local => 1_000,
            Profile::Lan => 2_000,
            Profile::Wan => 5_000,
        };
        Self {
            interval_ms,
            compact_at: COMPACT_AT,
        }
    }
}

/// The machine. See the [module](self).
pub struct Replication {
    me: NodeId,
    tuning: Tuning,
    rng: ChaCha8Rng,
    document: Document,
    disk: Disk,
    registers: Registers,
    timers: RegisterTimers,
    peers: BTreeMap<NodeId, Peer>,
    seen: Seen,
    inbox: Inbox,
    offences: Offences,
    warnings: Warnings,
    /// Number of the last exchange opened; above all of earlier lives.
    next_sync: u64,
    /// Mono milliseconds of the next round of anti-entropy.
    next_round: u64,
    /// The greater document that was asked for last, and when in mono milliseconds.
    document_asked: Option<(DocumentId, u64)>,
    /// Removed from the cluster: nothing is taken from them.
    expelled: BTreeSet<NodeId>,
    /// Since when a compaction is due, in mono milliseconds.
    compaction_due: Option<u64>,
    effects: Vec<Effect>,
    metrics: Metrics,
}

impl Replication {
    /// A machine for node `me` in its `boot`-th life, over the document that was loaded or is new.
    /// The document's actor must be one of this life. `seal` signs this node's registers and checks
    /// those of others; `seed` decides the choice of peers.
    pub fn new(
        me: NodeId,
        boot: u64,
        document: Document,
        seal: Arc<dyn Seal>,
        seed: u64,
        now: Now,
    ) -> Self {
        let mut machine = Self {
            me,
            tuning: Tuning::from(Profile::Lan),
            rng: ChaCha8Rng::seed_from_u64(seed),
            document,
            disk: Disk::default(),
            registers: Registers::new(me, boot, seal),
            timers: RegisterTimers::default(),
            peers: BTreeMap::new(),
            seen: Seen::default(),
            inbox: Inbox::default(),
            offences: Offences::default(),
            warnings: Warnings::default(),
            next_sync: boot << 32,
            next_round: 0,
            document_asked: None,
            expelled: BTreeSet::new(),
            compaction_due: None,
            effects: Vec::new(),
            metrics: Metrics::default(),
        };
        machine.schedule_round(now.mono);
        machine
    }

    /// The same with other timing than on a LAN.
    #[must_use]
    pub fn with_tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// Takes one input.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Propose {
                id,
                commands,
                author,
            } => self.propose(id, commands, author),
            Input::Report(report) => self.report(*report, now.mono),
            Input::Connected(peer) => self.connected(peer),
            Input::Disconnected(peer) => drop(self.peers.remove(&peer)),
            Input::Message { from, message } => self.receive(from, message, now.mono),
            Input::Persisted(id) => self.persisted(id),
            Input::PersistFailed { id, reason } => self.persist_failed(id, &reason, now.mono),
            Input::Forget(node) => self.forget(node, now.mono),
            Input::Rules(rules) => self.document.set_rules(*rules),
            Input::Expel(node) => {
                self.expelled.insert(node);
                self.peers.remove(&node);
                self.forget(node, now.mono);
            }
        }
        self.finish(now)
    }

    /// Mono milliseconds at which [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<u64> {
        [
            Some(self.next_round),
            self.timers.own_at,
            self.inbox.due_at,
            self.timers.flush_at,
            self.timers.republish_at,
            self.disk.retry_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due. Harmless when early.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Effect> {
        self.empty_inbox(now.mono);
        self.republish(now.mono);
        self.flush(now.mono);
        if now.mono >= self.next_round {
            self.round(now.mono);
        }
        self.finish(now)
    }

    /// Desired state, as far as it is durable somewhere.
    pub fn desired(&self) -> Arc<Desired> {
        self.document.snapshot()
    }

    /// The newest register of every node, this one's among them.
    pub fn observed(&self) -> &ObservedTable {
        self.registers.table()
    }

    /// The kept versions of a service, newest first.
    pub fn history(&self, service: &ServiceKey) -> Vec<HistoryEntry> {
        self.document.history(service)
    }

    /// Concurrent edits of a service that disagree and have not been settled.
    pub fn conflicts_of(&self, service: &ServiceKey) -> Vec<Conflict> {
        self.document.conflicts_of(service)
    }

    /// The same of all services.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.document.conflicts()
    }

    /// Who changed what, newest first.
    pub fn audit(&self) -> Vec<AuditRecord> {
        self.document.audit()
    }

    /// Registers of desired state that are kept but not used.
    pub fn invalid(&self) -> Vec<InvalidRegister> {
        self.document.invalid()
    }

    /// In whose name this node writes.
    pub fn credentials(&self) -> &[Credential] {
        self.document.credentials()
    }

    /// Which document this node holds.
    pub fn document_id(&self) -> DocumentId {
        self.document.id()
    }

    /// Hash of the document's history: equal ones mean equal desired state.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.document.fingerprint()
    }

    /// Changes in the document's history.
    pub fn change_count(&self) -> usize {
        self.document.change_count()
    }

    /// Totals since the start of this life, and how much waits now.
    pub fn metrics(&self) -> Metrics {
        Metrics {
            proposals_waiting: self.disk.waiting(),
            changes_waiting: self.document.waiting(),
            ..self.metrics
        }
    }

    fn finish(&mut self, now: Now) -> Vec<Effect> {
        self.pump(now);
        std::mem::take(&mut self.effects)
    }

    fn connected(&mut self, peer: NodeId) {
        if peer != self.me && !self.expelled.contains(&peer) {
            let many = self.peers.len() >= MANY_PEERS;
            self.peers.insert(peer, Peer::default());
            match many {
                true => self.send(peer, self.summary(None, true)),
                false => self.send_summary(peer, true),
            }
        }
    }

    fn receive(&mut self, from: NodeId, message: Message, mono: u64) {
        if !self.peers.contains_key(&from) {
            return;
        }
        self.metrics.messages_received += 1;
        match message {
            Message::Changes { document, changes } => {
                self.take_changes(from, document, changes, mono);
            }
            Message::Summary {
                document,
                heads,
                table,
                reply,
            } => {
                self.take_summary(from, document, heads, reply, mono);
                if table.is_some_and(|table| table != self.registers.summary()) {
                    self.compare_registers(from);
                }
            }
            Message::Sync {
                document,
                round,
                step,
            } => self.take_sync(from, document, round, &step, mono),
            Message::Document { document, saved } => {
                self.take_document(from, document, saved, mono);
            }
            Message::Registers(pushes) => self.take_registers(from, pushes, mono),
            Message::Want(wanted) => self.take_want(from, &wanted, mono),
            Message::Buckets(theirs) => self.take_buckets(from, &theirs, mono),
            Message::Digest {
                versions,
                buckets,
                reply,
            } => self.take_digest(from, versions, buckets, reply, mono),
        }
    }

    /// One round of anti-entropy, with one random peer.
    fn round(&mut self, mono: u64) {
        self.schedule_round(mono);
        if !self.peers.is_empty() {
            let index = self.rng.random_range(0..self.peers.len());
            if let Some(peer) = self.peers.keys().nth(index).copied() {
                self.send_summary(peer, true);
            }
        }
        self.consider_compaction(mono);
    }

    /// The interval, a quarter more or less, so that nodes started together drift apart.
    fn schedule_round(&mut self, mono: u64) {
        let interval = self.tuning.interval_ms.max(4);
        let wait = self.rng.random_range(interval * 3 / 4..=interval * 5 / 4);
        self.next_round = mono.saturating_add(wait);
    }

    /// Nodes that compact the same document make the same successor, and of different ones the
    /// greater wins, so who starts matters only for the traffic: the first in rank among us and
    /// our peers, or anybody when that one does not.
    fn consider_compaction(&mut self, mono: u64) {
        if !self.document.should_compact(self.tuning.compact_at) {
            self.compaction_due = None;
            return;
        }
        let due = *self.compaction_due.get_or_insert(mono);
        let id = self.document.id();
        let rank = |node: &NodeId| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&id.root);
            hasher.update(node.as_bytes());
            *hasher.finalize().as_bytes()
        };
        let mine = rank(&self.me);
        let first = self.peers.keys().all(|peer| rank(peer) > mine);
        if first || mono >= due.saturating_add(COMPACT_PATIENCE_MS) {
            self.disk.compact();
        }
    }

    /// Whom news is passed on to.
    fn push_targets(&mut self, except: Option<NodeId>) -> Vec<NodeId> {
        let peers = self.peers.keys().copied();
        let peers: Vec<NodeId> = peers.filter(|peer| Some(*peer) != except).collect();
        match peers.len() > PUSH_TO_ALL {
            true => self.some_of(peers, FANOUT),
            false => peers,
        }
    }

    /// Who hears of this node's own register.
    fn own_targets(&mut self) -> Vec<NodeId> {
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        match peers.len() > MANY_PEERS {
            true => self.some_of(peers, OWN_FANOUT),
            false => peers,
        }
    }

    fn some_of(&mut self, mut peers: Vec<NodeId>, count: usize) -> Vec<NodeId> {
        for place in 0..count {
            let other = self.rng.random_range(place..peers.len());
            peers.swap(place, other);
        }
        peers.truncate(count);
        peers
    }

    fn send(&mut self, to: NodeId, message: Message) {
        if !self.peers.contains_key(&to) {
            return;
        }
        match message {
            // Pushes are counted where they are made: a register may also answer a digest.
            Message::Changes { .. } | Message::Registers(_) => {}
            Message::Document { .. } => self.metrics.documents_sent += 1,
            Message::Summary { .. }
            | Message::Sync { .. }
            | Message::Buckets(_)
            | Message::Want(_)
            | Message::Digest { .. } => self.metrics.anti_entropy_sent += 1,
        }
        self.effects.push(Effect::Send { to, message });
    }

    fn offence(&mut self, from: NodeId, reason: &str, mono: u64) {
        self.metrics.offences += 1;
        let warning = self.offences.note(from, reason, mono);
        self.effects.extend(warning.map(Effect::Warning));
    }

    fn warn(&mut self, topic: Topic, text: &str, mono: u64) {
        if self.warnings.may_tell(topic, mono) {
            self.effects.push(Effect::Warning(text.to_owned()));
        }
    }
}
