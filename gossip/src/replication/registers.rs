//! Push and anti-entropy of registers.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{NodeId, NodeReport, Version};

use super::limits::{self, MAX_NODES};
use super::peers::Topic;
use super::pushed::Pushed;
use super::table::{ALL_BUCKETS, BUCKETS, Impostor, Taken};
use super::{Effect, Message, Replication};

/// Milliseconds for which this node's own reports are gathered before they are pushed. A round of
/// bidding ends in a burst of claims; together they make one register.
const GATHER_OWN_MS: u64 = 1;

/// Nodes in the cluster for each millisecond that passes between two pushes of this node's own
/// register. Every register reaches every node, so at most 1,000 of them are on their way in a
/// second, whatever the size: at 9 nodes a burst is cut every 9 ms, at 300 every 300 ms.
const NODES_PER_MS_OWN: u64 = 1;

/// Milliseconds between these pushes at most. Those who award slots wait 1.5 s for the claim
/// (`PENDING_MS`), which includes the way through the cluster.
const MAX_SPACING_MS: u64 = 750;

/// Milliseconds for which registers of others are gathered before they are passed on. Each hop
/// adds it: three hops reach 1,000 nodes.
const GATHER_MS: u64 = 5;

/// Nodes in the cluster for each further millisecond of that. Fewer, larger messages, and fewer
/// that say what has come from elsewhere meanwhile.
const NODES_PER_MS: u64 = 10;

/// These further milliseconds at most.
const MAX_GATHER_MS: u64 = 60;

/// Milliseconds before this node's register is written again after another writer of it was met.
/// Not at once, because the other one may do the same.
const REPUBLISH_MS: u64 = 1_000;

/// Milliseconds before a register that could not be used is asked for again. The same push comes
/// from several peers, and one answer is enough.
const WANT_AGAIN_MS: u64 = 250;

/// Registers in the table up to which a digest lists them all; beyond it, groups are compared
/// first. 64 versions take 3 kB.
const SMALL_TABLE: usize = 64;

/// Timers of the register plane.
#[derive(Debug, Default)]
pub(super) struct RegisterTimers {
    /// When our own register is sent, in mono milliseconds.
    pub(super) own_at: Option<u64>,
    /// When it was sent last.
    own_sent: Option<u64>,
    /// When those of others are sent.
    pub(super) flush_at: Option<u64>,
    /// When our own register is written again.
    pub(super) republish_at: Option<u64>,
    /// What has been asked for, and when.
    wanted: BTreeMap<NodeId, u64>,
    /// What is passed on with the next flush.
    relayed: BTreeMap<NodeId, Relayed>,
}

/// News of another node that is about to be passed on.
#[derive(Debug)]
struct Relayed {
    /// What was known before it, here and most likely elsewhere.
    before: Option<Version>,
    /// Peers that have sent it themselves.
    known_by: Vec<NodeId>,
}

impl Replication {
    pub(super) fn report(&mut self, report: NodeReport, mono: u64) {
        let before = self.registers.table().version(self.me);
        match self.registers.report(report) {
            Ok(true) => self.publish_own(before, mono),
            Ok(false) => {}
            Err(bad) => {
                let text = format!(
                    "this node's report is not published, since no peer would take it: {bad}"
                );
                self.warn(Topic::OwnReport, &text, mono);
            }
        }
    }

    fn publish_own(&mut self, before: Option<Version>, mono: u64) {
        self.timers.republish_at = None;
        let me = self.me;
        for target in self.own_targets() {
            if let Some(peer) = self.peers.get_mut(&target) {
                peer.owes(me, before);
            }
        }
        self.send_own_by(mono);
        self.effects.push(Effect::ObservedChanged(vec![me]));
    }

    /// Our own register goes out soon, and not too soon after the last time.
    fn send_own_by(&mut self, mono: u64) {
        let nodes = self.registers.table().len() as u64;
        let spacing = (nodes / NODES_PER_MS_OWN).min(MAX_SPACING_MS);
        let earliest = self.timers.own_sent.map_or(0, |at| at + spacing);
        let at = earliest.max(mono.saturating_add(GATHER_OWN_MS));
        let own_at = self.timers.own_at.get_or_insert(at);
        *own_at = (*own_at).min(at);
    }

    pub(super) fn forget(&mut self, node: NodeId, mono: u64) {
        if self.registers.forget(node, mono) {
            for peer in self.peers.values_mut() {
                peer.outbox.remove(&node);
            }
            self.timers.relayed.remove(&node);
            self.effects.push(Effect::ObservedChanged(vec![node]));
        }
    }

    /// Takes pushed registers, and passes on what was new.
    pub(super) fn take_registers(&mut self, from: NodeId, pushes: Vec<Pushed>, mono: u64) {
        let mut changed = BTreeSet::new();
        let mut wanted = Vec::new();
        for pushed in pushes.into_iter().take(MAX_NODES) {
            let (node, version) = pushed.head().unwrap_or((self.me, Version::default()));
            if self.expelled.contains(&node) {
                continue;
            }
            match self.registers.take(&pushed, mono) {
                Taken::Newer(before) => {
                    self.metrics.registers_taken += 1;
                    self.timers.wanted.remove(&node);
                    changed.insert(node);
                    self.pass_on(from, node, before);
                }
                Taken::NeedsBase => {
                    let known = self.registers.table().version(node);
                    wanted.push((node, known.filter(|_| node != self.me)));
                }
                Taken::Known => {
                    self.metrics.registers_repeated += 1;
                    if let Some(relayed) = self.timers.relayed.get_mut(&node) {
                        relayed.known_by.push(from);
                    }
                }
                Taken::Older | Taken::Mine(Impostor::No) => {
                    self.metrics.registers_repeated += 1;
                    self.correct(from, node, version, mono);
                }
                Taken::Forgotten => self.metrics.registers_repeated += 1,
                Taken::Mine(impostor) => self.meet_impostor(impostor, mono),
                Taken::NoRoom(reason) => self.warn_no_room(node, &reason, mono),
                Taken::Refused(reason) => self.offence(from, &reason, mono),
                Taken::Mismatch(reason) => {
                    self.offence(from, &reason, mono);
                    // Perhaps it is what we know that does not fit.
                    wanted.push((node, None));
                }
            }
        }
        self.want(from, wanted, mono);
        if !changed.is_empty() {
            self.flush_by(mono);
            let changed = changed.into_iter().collect();
            self.effects.push(Effect::ObservedChanged(changed));
        }
    }

    fn warn_no_room(&mut self, node: NodeId, reason: &str, mono: u64) {
        let node = node.short();
        let text = format!(
            "the register of node {node} is not kept: {reason}. Does a member invent nodes?"
        );
        self.warn(Topic::NoRoom, &text, mono);
    }

    /// Asks for registers in a form that can be used.
    fn want(&mut self, from: NodeId, wanted: Vec<(NodeId, Option<Version>)>, mono: u64) {
        if wanted.is_empty() {
            return;
        }
        let asked = &mut self.timers.wanted;
        asked.retain(|_, at| mono < at.saturating_add(WANT_AGAIN_MS));
        let fresh = wanted
            .into_iter()
            .filter(|(node, _)| asked.len() < MAX_NODES && asked.insert(*node, mono).is_none());
        let fresh: Vec<_> = fresh.collect();
        if !fresh.is_empty() {
            self.send(from, Message::Want(fresh));
        }
    }

    /// A peer could not use what we sent.
    pub(super) fn take_want(
        &mut self,
        from: NodeId,
        wanted: &[(NodeId, Option<Version>)],
        mono: u64,
    ) {
        if wanted.len() > MAX_NODES {
            self.offence(from, "it wants too many registers", mono);
            return;
        }
        let wanted: BTreeMap<_, _> = wanted.iter().copied().collect();
        let table = self.registers.table();
        let news = wanted.into_iter().filter_map(|(node, known)| {
            let register = table.sealed(node)?;
            let lacks = known.is_none_or(|known| known < register.version());
            lacks.then(|| Pushed::to(register, known))
        });
        let news = news.collect();
        self.send_registers(from, news);
    }

    fn pass_on(&mut self, from: NodeId, node: NodeId, before: Option<Version>) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.outbox.remove(&node);
        }
        let relayed = self.timers.relayed.entry(node).or_insert(Relayed {
            before,
            known_by: Vec::new(),
        });
        // Of two steps that are passed on together, the first says what others know.
        relayed.before = relayed.before.min(before);
        relayed.known_by.clear();
        relayed.known_by.push(from);
    }

    /// A peer that passes on what is out of date gets what we know.
    fn correct(&mut self, from: NodeId, node: NodeId, theirs: Version, mono: u64) {
        let known = self.registers.table().version(node);
        if known.is_some_and(|known| known > theirs)
            && let Some(peer) = self.peers.get_mut(&from)
        {
            peer.owes(node, Some(theirs));
            match node == self.me {
                true => self.send_own_by(mono),
                false => self.flush_by(mono),
            }
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

    /// Sends what is due.
    pub(super) fn flush(&mut self, mono: u64) {
        let me = self.me;
        if self.timers.own_at.is_some_and(|at| mono >= at) {
            self.timers.own_at = None;
            self.timers.own_sent = Some(mono);
            self.send_outboxes(|node| node == me);
        }
        if self.timers.flush_at.is_some_and(|at| mono >= at) {
            self.timers.flush_at = None;
            self.relay();
            self.send_outboxes(|node| node != me);
        }
    }

    /// Passes on what was gathered, all of it to the same peers: whoever gets one gets the others
    /// with it.
    fn relay(&mut self) {
        let relayed = std::mem::take(&mut self.timers.relayed);
        if relayed.is_empty() {
            return;
        }
        for target in self.push_targets(None) {
            let Some(peer) = self.peers.get_mut(&target) else {
                continue;
            };
            for (node, news) in &relayed {
                if !news.known_by.contains(&target) {
                    peer.owes(*node, news.before);
                }
            }
        }
    }

    fn send_outboxes(&mut self, due: impl Fn(NodeId) -> bool) {
        let mut messages = Vec::new();
        let table = self.registers.table();
        for (id, peer) in &mut self.peers {
            let mut pushes = Vec::new();
            peer.outbox.retain(|node, known| {
                if due(*node) {
                    let register = table.sealed(*node);
                    pushes.extend(register.map(|r| Pushed::to(r, *known)));
                }
                !due(*node)
            });
            if !pushes.is_empty() {
                messages.push((*id, pushes));
            }
        }
        for (peer, pushes) in messages {
            self.send_registers(peer, pushes);
        }
    }

    /// Writes our own register again if that is due.
    pub(super) fn republish(&mut self, mono: u64) {
        if self.timers.republish_at.is_some_and(|at| mono >= at) {
            self.timers.republish_at = None;
            if self.registers.republish().is_ok_and(|new| new) {
                self.publish_own(None, mono);
            }
        }
    }

    /// How long news is gathered in a cluster of this size, in milliseconds; not at all in a small
    /// one.
    pub(super) fn gathering(&self) -> u64 {
        let nodes = self.registers.table().len() as u64;
        (nodes / NODES_PER_MS).min(MAX_GATHER_MS)
    }

    fn flush_by(&mut self, mono: u64) {
        let at = mono.saturating_add(GATHER_MS + self.gathering());
        let flush_at = self.timers.flush_at.get_or_insert(at);
        *flush_at = (*flush_at).min(at);
    }

    fn send_registers(&mut self, to: NodeId, pushes: Vec<Pushed>) {
        for part in limits::split(pushes, Pushed::size) {
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
