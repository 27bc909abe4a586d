//! Push and anti-entropy of registers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::model::{NodeId, NodeRegister, NodeReport, Version};
use dunlin_state::observed::size;

use super::limits::{self, MAX_NODES};
use super::peers::Topic;
use super::table::{ALL_BUCKETS, BUCKETS, Impostor, Taken};
use super::{Effect, Message, Replication};

/// Milliseconds for which this node's own reports are gathered before they are pushed. A round of
/// bidding ends in a burst of claims; together they make one register.
const GATHER_OWN_MS: u64 = 1;

/// Milliseconds for which registers of others are gathered before they are passed on. Each hop
/// adds it: three hops reach 1,000 nodes.
const GATHER_MS: u64 = 5;

/// Milliseconds before this node's register is written again after another writer of it was met.
/// Not at once, because the other one may do the same.
const REPUBLISH_MS: u64 = 1_000;

/// Registers in the table up to which a digest lists them all; beyond it, groups are compared
/// first. 64 versions take 3 kB, as much as three registers.
const SMALL_TABLE: usize = 64;

/// Timers of the register plane.
#[derive(Debug, Default)]
pub(super) struct RegisterTimers {
    /// When the outboxes are sent, in mono milliseconds.
    pub(super) flush_at: Option<u64>,
    /// When our own register is written again, in mono milliseconds.
    pub(super) republish_at: Option<u64>,
}

impl Replication {
    pub(super) fn report(&mut self, report: NodeReport, mono: u64) {
        match self.registers.report(report) {
            Ok(true) => self.publish_own(mono),
            Ok(false) => {}
            Err(bad) => {
                let text = format!(
                    "this node's report is not published, since no peer would take it: {bad}"
                );
                self.warn(Topic::OwnReport, &text, mono);
            }
        }
    }

    fn publish_own(&mut self, mono: u64) {
        self.timers.republish_at = None;
        let me = self.me;
        for peer in self.peers.values_mut() {
            peer.outbox.insert(me);
        }
        self.flush_by(mono + GATHER_OWN_MS);
        self.effects.push(Effect::ObservedChanged(vec![me]));
    }

    pub(super) fn forget(&mut self, node: NodeId, mono: u64) {
        if self.registers.forget(node, mono) {
            for peer in self.peers.values_mut() {
                peer.outbox.remove(&node);
            }
            self.effects.push(Effect::ObservedChanged(vec![node]));
        }
    }

    /// Takes pushed registers, and passes on what was new.
    pub(super) fn take_registers(
        &mut self,
        from: NodeId,
        registers: Vec<Arc<NodeRegister>>,
        mono: u64,
    ) {
        let mut changed = BTreeSet::new();
        for register in registers.into_iter().take(MAX_NODES) {
            let node = register.node;
            match self.registers.take(&register, mono) {
                Taken::Newer => {
                    self.metrics.registers_taken += 1;
                    changed.insert(node);
                    self.pass_on(from, node);
                }
                Taken::Known => {
                    self.metrics.registers_repeated += 1;
                    if let Some(peer) = self.peers.get_mut(&from) {
                        peer.outbox.remove(&node);
                    }
                }
                Taken::Older | Taken::Mine(Impostor::No) => {
                    self.metrics.registers_repeated += 1;
                    self.correct(from, &register);
                }
                Taken::Forgotten => self.metrics.registers_repeated += 1,
                Taken::Mine(impostor) => self.meet_impostor(impostor, mono),
                Taken::Refused(reason) => self.offence(from, &reason, mono),
            }
        }
        if self.peers.values().any(|peer| !peer.outbox.is_empty()) {
            self.flush_by(mono + GATHER_MS);
        }
        if !changed.is_empty() {
            let changed = changed.into_iter().collect();
            self.effects.push(Effect::ObservedChanged(changed));
        }
    }

    fn pass_on(&mut self, from: NodeId, node: NodeId) {
        for target in self.push_targets(Some(from)) {
            if let Some(peer) = self.peers.get_mut(&target) {
                peer.outbox.insert(node);
            }
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.outbox.remove(&node);
        }
    }

    /// A peer that passes on what is out of date gets what we know.
    fn correct(&mut self, from: NodeId, register: &NodeRegister) {
        let known = self.registers.table().version(register.node);
        if known.is_some_and(|known| known > register.version)
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.outbox.insert(register.node);
        }
    }

    fn meet_impostor(&mut self, impostor: Impostor, mono: u64) {
        let text = match impostor {
            Impostor::No => return,
            Impostor::SameBoot => {
                let republish = self.timers.republish_at.get_or_insert(mono + REPUBLISH_MS);
                *republish = (*republish).min(mono + REPUBLISH_MS);
                "another daemon reports under this node's identity and start number: two daemons \
                 use copies of one data directory; stop one of them and give it a new directory"
                    .to_owned()
            }
            Impostor::LaterBoot(boot) => format!(
                "the cluster knows start {boot} of this node, which is later than this one: the \
                 data directory was copied or restored from a backup, and what this node reports \
                 is ignored; remove the directory and join the node anew"
            ),
        };
        self.warn(Topic::Impostor, &text, mono);
    }

    /// Sends the outboxes that are due.
    pub(super) fn flush(&mut self, mono: u64) {
        if self.timers.flush_at.is_none_or(|at| mono < at) {
            return;
        }
        self.timers.flush_at = None;
        let outboxes: Vec<(NodeId, BTreeSet<NodeId>)> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| !peer.outbox.is_empty())
            .map(|(id, peer)| (*id, std::mem::take(&mut peer.outbox)))
            .collect();
        for (peer, nodes) in outboxes {
            let table = self.registers.table();
            let registers = nodes
                .iter()
                .filter_map(|n| table.get(*n))
                .cloned()
                .collect();
            self.send_registers(peer, registers);
        }
    }

    /// Writes our own register again if that is due.
    pub(super) fn republish(&mut self, mono: u64) {
        if self.timers.republish_at.is_some_and(|at| mono >= at) {
            self.timers.republish_at = None;
            if self.registers.republish().is_ok_and(|new| new) {
                self.publish_own(mono);
            }
        }
    }

    fn flush_by(&mut self, at: u64) {
        let flush_at = self.timers.flush_at.get_or_insert(at);
        *flush_at = (*flush_at).min(at);
    }

    fn send_registers(&mut self, to: NodeId, registers: Vec<Arc<NodeRegister>>) {
        for part in limits::split(registers, |register| size(register)) {
            self.metrics.pushes_sent += 1;
            self.send(to, Message::Registers(part));
        }
    }

    /// Starts the comparison of registers with a peer whose table is known to differ.
    pub(super) fn compare_registers(&mut self, with: NodeId) {
        if self.registers.table().iter().nth(SMALL_TABLE).is_none() {
            self.send_digest(with, ALL_BUCKETS, true);
        } else {
            let buckets = self.registers.buckets().to_vec();
            self.send(with, Message::Buckets(buckets));
        }
    }

    pub(super) fn take_buckets(&mut self, from: NodeId, theirs: &[u64], mono: u64) {
        if theirs.len() != BUCKETS {
            self.offence(from, "a digest has a wrong number of groups", mono);
            return;
        }
        let differing = self.registers.differing(theirs);
        if differing != 0 {
            self.send_digest(from, differing, true);
        }
    }

    fn send_digest(&mut self, to: NodeId, buckets: u64, reply: bool) {
        let versions = self.registers.versions(buckets);
        let digest = Message::Digest {
            versions,
            buckets,
            reply,
        };
        self.send(to, digest);
    }

    pub(super) fn take_digest(
        &mut self,
        from: NodeId,
        versions: Vec<(NodeId, Version)>,
        buckets: u64,
        reply: bool,
        mono: u64,
    ) {
        if versions.len() > MAX_NODES {
            self.offence(from, "a digest lists too many nodes", mono);
            return;
        }
        let versions: BTreeMap<NodeId, Version> = versions.into_iter().collect();
        let news = self.registers.beyond(&versions, buckets);
        self.send_registers(from, news);
        if reply && self.registers.lacks(&versions, mono) {
            self.send_digest(from, buckets, false);
        }
    }
}
