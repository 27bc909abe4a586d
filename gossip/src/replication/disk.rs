//! Local writes and the disk.
//!
//! The document in [`Replication`] never holds a local change that is not on disk. A proposal is
//! made on a copy; its change goes to disk, and only then into the document, to the peers and
//! to the one who asked. So nothing undurable can leak into a sync step, a saved document or a
//! snapshot, remote changes need not wait while the disk works, and a refused write is undone by
//! dropping the copy.
//!
//! The same holds for a peer's document when we have to write into it what it lacks of ours. One
//! that lacks nothing is used at once and saved later, as the changes of others are.
//!
//! One request is with the disk at a time; what comes meanwhile is gathered and goes together
//! with the next. After a refusal nobody knows what the disk holds, so the next request
//! replaces everything in one transaction. That makes it safe to use the sequence number of the
//! refused change again: the refused one has never been sent and is gone from the disk before the
//! other one is.

use std::collections::VecDeque;

use bytes::Bytes;
use dunlin_state::Now;
use dunlin_state::desired::{Command, Document, DocumentId, Rejection};
use dunlin_state::model::NodeId;

use super::peers::Topic;
use super::{Effect, PersistId, ProposalId, Replication, Write};

/// Proposals that may wait for the disk. More at once come from a runaway script.
const MAX_QUEUE: usize = 256;

/// Proposals that go to disk together.
const MAX_BATCH: usize = 128;

/// Bytes of changes after which a batch is closed; below what is applied at once.
const MAX_BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Milliseconds between a refusal of the disk and the next try without a proposal.
const RETRY_MS: u64 = 5_000;

/// Changes appended on disk after which the whole document is written instead: loading replays
/// them. Saving costs 55 ms at 20,000 changes.
const REWRITE_AFTER: usize = 2_000;

/// What came of proposals.
type Answers = Vec<(ProposalId, Result<bool, Rejection>)>;

/// A change that somebody asked for.
#[derive(Debug)]
struct Proposal {
    id: ProposalId,
    commands: Vec<Command>,
    author: String,
}

/// The request that is with the disk.
struct Request {
    id: PersistId,
    what: Content,
}

/// What else is in the request, besides changes of others.
enum Content {
    Nothing,
    /// Local changes, with the answers to give.
    Batch {
        changes: Vec<Bytes>,
        answers: Answers,
    },
    /// Another document, with our own changes in it; it takes the place of ours.
    Successor {
        document: Box<Document>,
        carried: Vec<Bytes>,
    },
}

/// A document of a peer that supersedes ours.
#[derive(Debug)]
struct Offer {
    from: NodeId,
    id: DocumentId,
    saved: Bytes,
    /// Whether it has to wait for the disk: it lacks something of ours.
    waits: bool,
}

/// What is on its way to the disk.
pub(super) struct Disk {
    queue: VecDeque<Proposal>,
    request: Option<Request>,
    next_id: u64,
    /// Changes of others that are in the document and not yet with the disk; not kept while
    /// everything is to be written anyway.
    unsaved: Vec<Bytes>,
    /// Whether the document holds anything that the disk has not been given.
    dirty: bool,
    /// Changes appended since everything was last written.
    appended: usize,
    /// Whether everything has to be written anew. True at the start: a new node has nothing on
    /// disk, and an old one may have dropped a damaged end.
    rewrite: bool,
    retry_at: Option<u64>,
    offer: Option<Offer>,
    compact: bool,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            request: None,
            next_id: 1,
            unsaved: Vec::new(),
            dirty: false,
            appended: 0,
            rewrite: true,
            retry_at: None,
            offer: None,
            compact: false,
        }
    }
}

impl Disk {
    /// Proposals that wait for the disk.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// When a refused write is tried again, in mono milliseconds.
    pub(super) fn retry_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// Whether our document is about to be replaced. What comes for it now is not taken: its
    /// sender carries it over when it meets the successor.
    pub(super) fn is_succeeding(&self) -> bool {
        let what = self.request.as_ref().map(|r| &r.what);
        matches!(what, Some(Content::Successor { .. }))
    }

    /// Keeps changes of others for the next write.
    pub(super) fn save_later(&mut self, changes: &[Bytes]) {
        self.dirty |= !changes.is_empty();
        if !self.rewrite {
            self.unsaved.extend_from_slice(changes);
        }
        // A disk that hangs for long must not fill the memory.
        self.rewrite |= self.unsaved.len() > REWRITE_AFTER;
        if self.rewrite {
            self.unsaved.clear();
        }
    }

    /// Whether this document, or a greater one, is about to take the place of ours.
    pub(super) fn awaits(&self, id: DocumentId) -> bool {
        let offered = self.offer.as_ref().map(|offer| offer.id);
        let succeeding = match self.request.as_ref().map(|request| &request.what) {
            Some(Content::Successor { document, .. }) => Some(document.id()),
            Some(Content::Nothing | Content::Batch { .. }) | None => None,
        };
        offered
            .max(succeeding)
            .is_some_and(|greatest| greatest >= id)
    }

    /// Keeps a peer's document for the next write; the greatest one wins.
    pub(super) fn offer(&mut self, from: NodeId, id: DocumentId, saved: Bytes) {
        if self.offer.as_ref().is_none_or(|offer| id > offer.id) {
            let waits = false;
            self.offer = Some(Offer {
                from,
                id,
                saved,
                waits,
            });
        }
    }

    /// Asks for a compaction with the next write.
    pub(super) fn compact(&mut self) {
        self.compact = true;
    }
}

impl Replication {
    pub(super) fn propose(&mut self, id: ProposalId, commands: Vec<Command>, author: String) {
        if self.disk.queue.len() >= MAX_QUEUE {
            self.metrics.proposals_busy += 1;
            let result = Err(Rejection::Busy { waiting: MAX_QUEUE });
            self.effects.push(Effect::Proposed { id, result });
            return;
        }
        self.disk.queue.push_back(Proposal {
            id,
            commands,
            author,
        });
    }

    /// Gives the disk its next request, if it is free and there is one.
    pub(super) fn pump(&mut self, now: Now) {
        let mut successor = self.next_successor(now.mono);
        while self.disk.request.is_none() {
            let what = match successor.take() {
                Some(successor) => successor,
                None => self.next_batch(now),
            };
            let early = self.disk.retry_at.is_some_and(|at| now.mono < at);
            let due = self.disk.dirty && !early;
            if due || !matches!(what, Content::Nothing) {
                self.request(what);
            } else if self.disk.queue.is_empty() {
                return;
            }
        }
    }

    /// Replaces the document if that is due and needs no disk; otherwise returns what has to be
    /// on disk first. Waits for local changes that are with the disk: they were made on ours.
    fn next_successor(&mut self, mono: u64) -> Option<Content> {
        match self.disk.request.as_ref().map(|request| &request.what) {
            Some(Content::Batch { .. } | Content::Successor { .. }) => return None,
            Some(Content::Nothing) | None => {}
        }
        if std::mem::take(&mut self.disk.compact) {
            self.compact(mono);
        }
        let busy = self.disk.request.is_some();
        let mut offer = self.disk.offer.take_if(|offer| !(busy && offer.waits))?;
        let (document, carried) = self.adopt(&offer, mono)?;
        if carried.is_empty() {
            self.metrics.documents_adopted += 1;
            self.succeed_unsaved(document);
            return None;
        }
        if busy {
            offer.waits = true;
            self.disk.offer = Some(offer);
            return None;
        }
        Some(Content::Successor {
            document: Box::new(document),
            carried,
        })
    }

    fn succeed_unsaved(&mut self, document: Document) {
        self.disk.rewrite = true;
        self.disk.dirty = true;
        self.disk.unsaved.clear();
        self.succeed(document, &[]);
    }

    /// Makes the waiting proposals on a copy of the document. Answers at once those that write
    /// nothing when nothing before them is waiting for the disk.
    fn next_batch(&mut self, now: Now) -> Content {
        if self.disk.queue.is_empty() {
            return Content::Nothing;
        }
        let mut copy = self.document.clone();
        let mut changes = Vec::new();
        let mut answers = Vec::new();
        let mut bytes = 0;
        while answers.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Some(proposal) = self.disk.queue.pop_front() else {
                break;
            };
            let result = copy.propose(&proposal.commands, &proposal.author, now);
            let result = result.map(|change| {
                let changed = change.is_some();
                bytes += change.as_ref().map_or(0, Bytes::len);
                changes.extend(change);
                changed
            });
            answers.push((proposal.id, result));
        }
        if changes.is_empty() {
            self.answer(answers);
            return Content::Nothing;
        }
        Content::Batch { changes, answers }
    }

    fn adopt(&mut self, offer: &Offer, mono: u64) -> Option<(Document, Vec<Bytes>)> {
        if offer.id <= self.document.id() {
            return None;
        }
        let mut document = self.document.clone();
        match document.adopt(&offer.saved, offer.id) {
            Ok(adopted) => Some((document, adopted.carried)),
            Err(refused) => {
                self.offence(offer.from, &refused.to_string(), mono);
                None
            }
        }
    }

    fn compact(&mut self, mono: u64) {
        let mut document = self.document.clone();
        match document.compact() {
            Ok(_) => {
                self.metrics.compactions += 1;
                self.succeed_unsaved(document);
            }
            Err(refused) => {
                let text = format!("cluster state could not be compacted: {refused}");
                self.warn(Topic::Compaction, &text, mono);
            }
        }
    }

    fn request(&mut self, what: Content) {
        let disk = &mut self.disk;
        let unsaved = std::mem::take(&mut disk.unsaved);
        let mut writes = Vec::new();
        if let Content::Successor { document, .. } = &what {
            writes.push(Write::Document(document.save()));
        } else if disk.rewrite || disk.appended > REWRITE_AFTER {
            writes.push(Write::Document(self.document.save()));
        } else {
            writes.extend(unsaved.into_iter().map(Write::Change));
        }
        if matches!(writes.first(), Some(Write::Document(_))) {
            disk.appended = 0;
        }
        if let Content::Batch { changes, .. } = &what {
            writes.extend(changes.iter().cloned().map(Write::Change));
        }
        disk.appended += writes.len();
        disk.rewrite = false;
        disk.dirty = false;
        disk.retry_at = None;
        let id = PersistId(disk.next_id);
        disk.next_id += 1;
        disk.request = Some(Request { id, what });
        self.effects.push(Effect::Persist { id, writes });
    }

    fn take_request(&mut self, id: PersistId) -> Option<Request> {
        self.disk.request.take_if(|request| request.id == id)
    }

    /// The disk has synced: now the local changes exist.
    pub(super) fn persisted(&mut self, id: PersistId) {
        let Some(request) = self.take_request(id) else {
            return;
        };
        match request.what {
            Content::Nothing => {}
            Content::Batch { changes, answers } => match self.document.apply_changes(&changes) {
                Ok(applied) if applied.refused.is_empty() => {
                    self.disclose(&changes);
                    self.answer(answers);
                    self.announce(!applied.changes.is_empty());
                }
                Ok(applied) => {
                    self.announce(!applied.changes.is_empty());
                    self.undo(answers, &applied.refused[0].to_string());
                }
                Err(refused) => self.undo(answers, &refused.to_string()),
            },
            Content::Successor { document, carried } => {
                self.metrics.documents_adopted += 1;
                self.succeed(*document, &carried);
            }
        }
    }

    /// Our own change does not fit our own document: it is on disk and nowhere else, and the next
    /// request removes it.
    fn undo(&mut self, answers: Answers, reason: &str) {
        self.disk.rewrite = true;
        self.disk.dirty = true;
        self.refuse(answers, &Rejection::Internal(reason.to_owned()));
    }

    fn refuse(&mut self, answers: Answers, because: &Rejection) {
        let refused = |(id, result): (_, Result<bool, _>)| (id, result.and(Err(because.clone())));
        self.answer(answers.into_iter().map(refused).collect());
    }

    fn answer(&mut self, answers: Answers) {
        for (id, result) in answers {
            match result {
                Ok(_) => self.metrics.proposals_accepted += 1,
                Err(_) => self.metrics.proposals_refused += 1,
            }
            self.effects.push(Effect::Proposed { id, result });
        }
    }

    /// The disk has refused: what was only there is undone.
    pub(super) fn persist_failed(&mut self, id: PersistId, reason: &str, mono: u64) {
        let Some(request) = self.take_request(id) else {
            return;
        };
        self.metrics.disk_refusals += 1;
        self.disk.rewrite = true;
        self.disk.dirty = true;
        self.disk.unsaved.clear();
        self.disk.retry_at = Some(mono.saturating_add(RETRY_MS));
        let reason: String = reason.chars().take(300).collect();
        match request.what {
            Content::Nothing => {}
            Content::Batch { answers, .. } => {
                let reason = reason.clone();
                self.refuse(answers, &Rejection::DiskRefused { reason });
            }
            // The peer offers it again.
            Content::Successor { .. } => {}
        }
        let text = format!(
            "the disk refused to save cluster state ({reason}); no change can be accepted here \
             until it does"
        );
        self.warn(Topic::Disk, &text, mono);
    }
}
