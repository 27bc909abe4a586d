//! What other nodes have said of their volumes, kept for when they cannot say it again.
//!
//! Registers live in memory, and a node's is forgotten a day after the node. But where the data of a
//! volume is has to be known for as long as the data is there, also after all nodes lost power and
//! the one with the data does not come back. So every node keeps the last register that told of
//! volumes, as its author signed it, on disk; and tells it to whoever connects, as far as the
//! author's present register is not known, so that nodes which join later know it too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use dunlin_state::model::NodeId;
use dunlin_state::observed::{Envelope, Register};

use super::{Engine, note};
use crate::io::{Effect, Write};
use crate::wire::PeerMessage;

/// Nodes with volumes that are remembered: as many as clusters are designed for.
const MAX_HOLDERS: usize = 1_000;

/// Milliseconds between two writes: volumes come and go rarely, and a member that invents some
/// should not wear out the disks of all others.
const WRITE_INTERVAL_MS: u64 = 1_000;

/// Registers that told of volumes.
#[derive(Default)]
pub(super) struct Holders {
    known: BTreeMap<NodeId, Arc<Register>>,
    unwritten: BTreeSet<NodeId>,
    due: Option<u64>,
    last: u64,
}

impl Holders {
    pub(super) fn poll_timeout(&self) -> Option<u64> {
        self.due
    }

    /// Takes a register. Returns whether it says of volumes what was not known.
    fn take(&mut self, register: &Arc<Register>, now: u64) -> bool {
        let node = register.node();
        let volumes = &register.view().report.volumes;
        let known = self.known.get(&node);
        let same = match known {
            Some(known) => {
                known.version() > register.version() || known.view().report.volumes == *volumes
            }
            None => volumes.is_empty() || self.known.len() >= MAX_HOLDERS,
        };
        if same {
            return false;
        }
        if volumes.is_empty() {
            self.known.remove(&node);
        } else {
            self.known.insert(node, Arc::clone(register));
        }
        self.unwritten.insert(node);
        let earliest = self.last.saturating_add(WRITE_INTERVAL_MS);
        self.due.get_or_insert(earliest.max(now));
        true
    }

    /// What is to be written, when it is time.
    fn take_due(&mut self, now: u64) -> Vec<Write> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        self.due = None;
        self.last = now;
        let unwritten = std::mem::take(&mut self.unwritten);
        let writes = unwritten.into_iter().map(|node| {
            let known = self.known.get(&node);
            let bytes = known.map_or_else(Bytes::new, |register| register.encode(None));
            Write::Holder(node, bytes)
        });
        writes.collect()
    }
}

impl Engine {
    /// Takes up what an earlier life has kept.
    pub(super) fn recover_holders(&mut self, kept: Vec<Bytes>, out: &mut Vec<Effect>) {
        for bytes in kept {
            let Some(register) = self.open_holder(&bytes) else {
                let me = self.config.member.node;
                let text = "what another node said of its volumes was damaged on disk; it is \
                            known again when that node answers";
                out.push(note(me, true, text.to_owned()));
                continue;
            };
            let outputs = self.agent.learn_volumes(register.view(), self.now);
            self.holders.known.insert(register.node(), register);
            self.carry_out(outputs, out);
        }
    }

    fn open_holder(&self, bytes: &[u8]) -> Option<Arc<Register>> {
        let envelope = Envelope::decode(bytes).ok()?;
        let register = Register::open(envelope, None, &*self.seal).ok()?;
        (register.node() != self.config.member.node).then(|| Arc::new(register))
    }

    /// The registers of these nodes have changed.
    pub(super) fn note_holders(&mut self, nodes: &[NodeId]) {
        let table = self.replication.observed();
        for register in nodes.iter().filter_map(|node| table.sealed(*node)) {
            if register.node() != self.config.member.node {
                self.holders.take(register, self.now.mono);
            }
        }
    }

    pub(super) fn write_holders(&mut self, out: &mut Vec<Effect>) {
        let writes = self.holders.take_due(self.now.mono);
        if !writes.is_empty() {
            self.persist(writes, out);
        }
    }

    /// Tells a peer of volumes on nodes that cannot tell it themselves.
    pub(super) fn tell_holders(&mut self, to: NodeId, out: &mut Vec<Effect>) {
        let table = self.replication.observed();
        let known = self.holders.known.values();
        let absent = known.filter(|register| table.version(register.node()).is_none());
        let messages: Vec<PeerMessage> = absent
            .map(|register| PeerMessage::Holder(register.encode(None)))
            .collect();
        for message in messages {
            self.send(to, message, out);
        }
    }

    /// A peer tells of a node's volumes. What is news goes on to the others, once.
    pub(super) fn hear_of_holder(&mut self, from: NodeId, bytes: &Bytes, out: &mut Vec<Effect>) {
        let Some(register) = self.open_holder(bytes) else {
            let text = format!("{} tells of volumes what nobody has signed", from.short());
            out.push(note(from, true, text));
            return;
        };
        let present = self.replication.observed().version(register.node());
        if present.is_some() || !self.holders.take(&register, self.now.mono) {
            return;
        }
        let outputs = self.agent.learn_volumes(register.view(), self.now);
        self.carry_out(outputs, out);
        let others: Vec<NodeId> = self.overlay.connected().filter(|n| *n != from).collect();
        for other in others {
            self.send(other, PeerMessage::Holder(bytes.clone()), out);
        }
    }
}
