//! Push and anti-entropy of the document.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bytes::Bytes;
use dunlin_state::desired::{Applied, Document, DocumentId, SyncSession};
use dunlin_state::model::NodeId;

use super::limits::{self, MAX_BUNDLE_BYTES, MAX_CHANGES, MAX_DOCUMENT_BYTES};
use super::peers::{Session, Topic, may_again};
use super::{Effect, Message, Replication};

/// Milliseconds between two summaries to one peer outside the regular rounds.
const SUMMARY_GAP_MS: u64 = 200;

/// Times the gathering of changes takes, after which nothing more is expected to be on its way:
/// about the hops through a large cluster.
const BUSY_GATHERINGS: u64 = 4;

/// Milliseconds between two whole documents to one peer: it needs time to load and to save one.
const DOCUMENT_GAP_MS: u64 = 1_000;

/// Milliseconds between two whole documents that are looked at from one peer; loading one takes
/// up to 0.1 s. Below the gap of an honest sender, whose messages may bunch.
const DOCUMENT_TAKE_GAP_MS: u64 = 500;

/// Milliseconds without a step after which an exchange is taken for lost and opened anew.
const SYNC_STALL_MS: u64 = 1_500;

/// Changes that came in a large cluster and wait to be applied together.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Which document they belong to.
    document: Option<DocumentId>,
    pushes: Vec<(NodeId, Vec<Bytes>)>,
    /// When they are applied, in mono milliseconds.
    pub(super) due_at: Option<u64>,
    /// Until when more is to be expected: a difference from a peer says nothing yet.
    busy_until: u64,
    /// Whether something was missing before these.
    waited: bool,
    /// Who has what was missing then.
    first: Option<NodeId>,
}

impl Replication {
    /// Takes pushed changes, and passes on what was new.
    pub(super) fn take_changes(
        &mut self,
        from: NodeId,
        document: DocumentId,
        changes: Vec<Bytes>,
        mono: u64,
    ) {
        if !self.is_mine(from, document, mono) {
            return;
        }
        if changes.len() > MAX_CHANGES {
            self.offence(from, "a push has too many changes", mono);
            return;
        }
        let count = changes.len();
        let new: Vec<Bytes> = changes
            .into_iter()
            .filter(|change| !self.seen.contains(change))
            .collect();
        self.metrics.changes_repeated += (count - new.len()) as u64;
        if new.is_empty() {
            return;
        }
        let gather = self.gathering();
        let waiting: usize = self.inbox.pushes.iter().map(|(_, c)| c.len()).sum();
        if gather <= 1 || waiting + new.len() > MAX_CHANGES {
            self.apply(from, &new, mono);
            return;
        }
        // Applying many changes at once costs little more than applying one.
        self.inbox.document = Some(document);
        self.inbox.pushes.push((from, new));
        let due = mono.saturating_add(gather);
        let due_at = self.inbox.due_at.get_or_insert(due);
        *due_at = (*due_at).min(due);
        self.inbox.busy_until = mono.saturating_add(BUSY_GATHERINGS * gather);
    }

    /// Applies what was gathered.
    pub(super) fn empty_inbox(&mut self, mono: u64) {
        if self.inbox.due_at.is_none_or(|due| mono < due) {
            return;
        }
        let inbox = std::mem::take(&mut self.inbox);
        self.inbox.busy_until = inbox.busy_until;
        if inbox.pushes.is_empty() {
            // Nothing more has come that would have brought it.
            if let Some(peer) = inbox.first.filter(|_| self.document.waiting() > 0) {
                self.ask(peer, mono);
                self.look_again(peer, mono);
            }
            return;
        }
        if inbox.document != Some(self.document.id()) || self.disk.is_succeeding() {
            // Anti-entropy brings what of it is still missing.
            return;
        }
        let mut all = BTreeSet::new();
        let mut changes = Vec::new();
        for change in inbox.pushes.iter().flat_map(|(_, changes)| changes) {
            if !self.seen.contains(change) && all.insert(change) {
                changes.push(change.clone());
            }
        }
        match self.document.apply_changes(&changes) {
            Ok(applied) => {
                let known = self.document.waiting() == 0;
                let from = inbox.pushes.first().map_or(self.me, |(from, _)| *from);
                self.integrate(from, applied, mono);
                if known {
                    changes.iter().for_each(|change| self.seen.insert(change));
                } else if inbox.waited {
                    self.ask(from, mono);
                }
                // What is missing most likely comes with the next.
                self.inbox.waited = !known;
                if !known {
                    self.look_again(from, mono);
                }
            }
            // One of them sent rubbish: each is judged by itself.
            Err(_) => {
                for (from, changes) in inbox.pushes {
                    self.apply(from, &changes, mono);
                }
            }
        }
    }

    /// Something is missing that `from` has: if nobody brings it, it is asked for once that one
    /// expects no more itself.
    fn look_again(&mut self, from: NodeId, mono: u64) {
        let calm = (BUSY_GATHERINGS + 2) * self.gathering().max(1);
        self.inbox.first = Some(from);
        self.inbox.due_at = Some(mono.saturating_add(calm));
    }

    fn apply(&mut self, from: NodeId, new: &[Bytes], mono: u64) {
        match self.document.apply_changes(new) {
            Ok(applied) => {
                self.integrate(from, applied, mono);
                if self.document.waiting() == 0 {
                    new.iter().for_each(|change| self.seen.insert(change));
                } else {
                    // Something before them is missing; its sender has it.
                    self.ask(from, mono);
                }
            }
            Err(refused) => self.offence(from, &refused.to_string(), mono),
        }
    }

    pub(super) fn take_summary(
        &mut self,
        from: NodeId,
        document: DocumentId,
        heads: [u8; 32],
        reply: bool,
        mono: u64,
    ) {
        match self.document.id().cmp(&document) {
            Ordering::Greater => self.send_document(from, mono),
            Ordering::Less if reply && self.wants(document, mono) => {
                self.send_summary(from, false);
            }
            Ordering::Less => {}
            Ordering::Equal if heads == self.document.fingerprint() => {}
            Ordering::Equal if mono < self.inbox.busy_until => {}
            Ordering::Equal if self.me < from => self.open_sync(from, mono),
            Ordering::Equal if reply => self.send_summary(from, false),
            Ordering::Equal => {}
        }
    }

    /// The smaller of two nodes opens, so that there is one exchange at a time.
    fn open_sync(&mut self, with: NodeId, mono: u64) {
        let Some(peer) = self.peers.get_mut(&with) else {
            return;
        };
        let busy = |session: &Session| mono < session.active_at.saturating_add(SYNC_STALL_MS);
        if self.disk.is_succeeding() || peer.session.as_ref().is_some_and(busy) {
            return;
        }
        self.next_sync = self.next_sync.saturating_add(1);
        peer.session = Some(Session {
            round: self.next_sync,
            sync: SyncSession::new(),
            active_at: mono,
        });
        self.metrics.syncs_opened += 1;
        self.continue_sync(with, mono);
    }

    pub(super) fn take_sync(
        &mut self,
        from: NodeId,
        document: DocumentId,
        round: u64,
        step: &[u8],
        mono: u64,
    ) {
        if !self.is_mine(from, document, mono) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let current = peer.session.as_ref().map(|session| session.round);
        if self.me > from && current.is_none_or(|current| current < round) {
            peer.session = Some(Session {
                round,
                sync: SyncSession::new(),
                active_at: mono,
            });
        }
        let session = peer.session.as_mut().filter(|s| s.round == round);
        let Some(session) = session else {
            return;
        };
        match self.document.receive_step(&mut session.sync, step) {
            Ok(applied) => {
                self.integrate(from, applied, mono);
                self.continue_sync(from, mono);
            }
            Err(refused) => {
                peer.session = None;
                self.offence(from, &refused.to_string(), mono);
            }
        }
    }

    fn continue_sync(&mut self, with: NodeId, mono: u64) {
        let session = self.peers.get_mut(&with).and_then(|p| p.session.as_mut());
        let Some(session) = session else {
            return;
        };
        session.active_at = mono;
        let round = session.round;
        if let Some(step) = self.document.generate_step(&mut session.sync) {
            let document = self.document.id();
            let step = Message::Sync {
                document,
                round,
                step,
            };
            self.send(with, step);
        }
    }

    pub(super) fn take_document(
        &mut self,
        from: NodeId,
        document: DocumentId,
        saved: Bytes,
        mono: u64,
    ) {
        if saved.len() > MAX_DOCUMENT_BYTES {
            self.offence(from, "a document is too large", mono);
            return;
        }
        match self.document.id().cmp(&document) {
            Ordering::Greater => self.send_document(from, mono),
            Ordering::Equal => {}
            Ordering::Less => {
                let Some(peer) = self.peers.get_mut(&from) else {
                    return;
                };
                let fresh = may_again(&mut peer.document_taken_at, DOCUMENT_TAKE_GAP_MS, mono);
                if fresh && !self.disk.awaits(document) {
                    self.disk.offer(from, document, saved);
                }
            }
        }
    }

    /// Another document takes the place of ours.
    pub(super) fn succeed(&mut self, document: Document, carried: &[Bytes]) {
        let before = self.document.snapshot();
        self.document = document;
        self.seen.clear();
        for peer in self.peers.values_mut() {
            peer.session = None;
        }
        self.disclose(carried);
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        for peer in peers {
            self.send_summary(peer, true);
        }
        self.announce(before != self.document.snapshot());
    }

    /// Tells every peer of local changes, which are on disk by now.
    pub(super) fn disclose(&mut self, changes: &[Bytes]) {
        changes.iter().for_each(|change| self.seen.insert(change));
        let peers = self.peers.keys().copied().collect();
        self.push_changes(peers, changes.to_vec());
    }

    pub(super) fn announce(&mut self, changed: bool) {
        if changed {
            self.effects.push(Effect::DesiredChanged);
        }
    }

    /// Does what follows from changes of others.
    fn integrate(&mut self, from: NodeId, applied: Applied, mono: u64) {
        if let Some(refused) = applied.refused.first() {
            self.offence(from, &refused.to_string(), mono);
        }
        let new = applied.persist;
        self.announce(!applied.changes.is_empty());
        if new.is_empty() {
            return;
        }
        self.metrics.changes_taken += new.len() as u64;
        new.iter().for_each(|change| self.seen.insert(change));
        self.disk.save_later(&new);
        let bytes: usize = new.iter().map(limits::change_weight).sum();
        if bytes <= MAX_BUNDLE_BYTES {
            let targets = self.push_targets(Some(from));
            self.push_changes(targets, new);
            return;
        }
        // So much comes from a healed partition, and it comes to several nodes at once.
        let others: Vec<NodeId> = self.peers.keys().copied().filter(|p| *p != from).collect();
        for peer in others {
            self.ask(peer, mono);
        }
    }

    fn push_changes(&mut self, targets: Vec<NodeId>, changes: Vec<Bytes>) {
        let document = self.document.id();
        let parts = limits::split(changes, limits::change_weight);
        for target in targets {
            for changes in parts.iter().cloned() {
                self.metrics.pushes_sent += 1;
                self.send(target, Message::Changes { document, changes });
            }
        }
    }

    /// Whether something sent for this document concerns ours. If not, makes sure that whoever is
    /// behind hears of the greater one.
    fn is_mine(&mut self, from: NodeId, document: DocumentId, mono: u64) -> bool {
        match self.document.id().cmp(&document) {
            Ordering::Equal => return !self.disk.is_succeeding(),
            Ordering::Greater => self.send_document(from, mono),
            Ordering::Less if self.wants(document, mono) => self.ask(from, mono),
            Ordering::Less => {}
        }
        false
    }

    /// Whether to ask for a greater document: not when it is on its way already. Several peers
    /// announce it at the same time, and each would send all of it.
    fn wants(&mut self, document: DocumentId, mono: u64) -> bool {
        let recent = |(asked, at): (DocumentId, u64)| {
            asked >= document && mono < at.saturating_add(DOCUMENT_GAP_MS)
        };
        if self.disk.awaits(document) || self.document_asked.is_some_and(recent) {
            return false;
        }
        self.document_asked = Some((document, mono));
        true
    }

    /// Sends a summary out of turn, because the peer is known to have something for us or we for
    /// it.
    fn ask(&mut self, peer: NodeId, mono: u64) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        if may_again(&mut known.summary_at, SUMMARY_GAP_MS, mono) {
            // It is about the document; registers have their own ways.
            self.send(peer, self.summary(None, true));
        }
    }

    /// Sends a summary; one that asks for a `reply` compares the registers as well.
    pub(super) fn send_summary(&mut self, to: NodeId, reply: bool) {
        let table = reply.then(|| self.registers.summary());
        let summary = self.summary(table, reply);
        self.send(to, summary);
    }

    pub(super) fn summary(&self, table: Option<[u8; 16]>, reply: bool) -> Message {
        Message::Summary {
            document: self.document.id(),
            heads: self.document.fingerprint(),
            table,
            reply,
        }
    }

    fn send_document(&mut self, to: NodeId, mono: u64) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        if !may_again(&mut peer.document_sent_at, DOCUMENT_GAP_MS, mono) {
            return;
        }
        let saved = self.document.save();
        if saved.len() > MAX_DOCUMENT_BYTES {
            let text = format!(
                "cluster state takes {} MiB, and at most {} MiB can be sent to a node that joins; \
                 remove services that are not needed",
                saved.len() >> 20,
                MAX_DOCUMENT_BYTES >> 20
            );
            self.warn(Topic::DocumentSize, &text, mono);
            return;
        }
        let document = self.document.id();
        self.send(to, Message::Document { document, saved });
    }
}
