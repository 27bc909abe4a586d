//! Packets, connections and disks of the world: how long things take, and what gets lost.

use std::net::SocketAddr;

use bytes::Bytes;
use dunlin_core::io::Input;
use dunlin_core::wire::{PeerMessage, encode};
use dunlin_gossip::replication::{Message, PersistId};
use dunlin_state::model::NodeId;

use super::{Next, PROBE_TIMEOUT, World};
use crate::sim::node::{address, index_of};

/// A message on a connection.
#[derive(Debug)]
pub(super) enum Packet {
    /// As in the daemon.
    Encoded(Bytes),
    /// As it is.
    Told(PeerMessage),
}

impl Packet {
    pub(super) fn into_input(self, from: NodeId) -> Input {
        match self {
            Self::Encoded(bytes) => Input::Message { from, bytes },
            Self::Told(message) => Input::Told { from, message },
        }
    }
}

fn kind(message: &PeerMessage) -> &'static str {
    match message {
        PeerMessage::Swim(_) => "swim",
        PeerMessage::Bidding(_) => "bidding",
        PeerMessage::Secrets(_) => "secrets",
        PeerMessage::Lease(_) => "lease",
        PeerMessage::Holder(_) => "holder",
        PeerMessage::Replication(message) => match message {
            Message::Changes { .. } => "changes",
            Message::Summary { .. } => "summary",
            Message::Sync { .. } => "sync",
            Message::Document { .. } => "document",
            Message::Registers(_) => "registers",
            Message::Want(_) => "want",
            Message::Buckets(_) => "buckets",
            Message::Digest { .. } => "digest",
        },
    }
}

/// About how many bytes a message would take.
fn weight(message: &PeerMessage) -> usize {
    /// A small message, or what surrounds a larger one.
    const FRAME: usize = 60;
    /// A node and a version.
    const KNOWN: usize = 50;
    FRAME
        + match message {
            PeerMessage::Swim(bytes) | PeerMessage::Holder(bytes) => bytes.len(),
            PeerMessage::Bidding(_) | PeerMessage::Secrets(_) | PeerMessage::Lease(_) => FRAME,
            PeerMessage::Replication(message) => match message {
                Message::Changes { changes, .. } => changes.iter().map(|c| c.len() + 4).sum(),
                Message::Summary { .. } => 2 * FRAME,
                Message::Sync { step, .. } => FRAME + step.len(),
                Message::Document { saved, .. } => FRAME + saved.len(),
                Message::Registers(pushes) => pushes.iter().map(|p| p.size() + 4).sum(),
                Message::Want(wanted) => KNOWN * wanted.len(),
                Message::Buckets(hashes) => 9 * hashes.len(),
                Message::Digest { versions, .. } => KNOWN * versions.len(),
            },
        }
}

impl World {
    pub(super) fn send_datagram(&mut self, from: usize, to: SocketAddr, bytes: &Bytes) {
        let Some(to) = index_of(to).filter(|to| *to < self.hosts.len()) else {
            return;
        };
        for delay in self.network.datagram(from, to, &mut self.rng) {
            let (from, bytes) = (address(from), bytes.clone());
            self.queue
                .push(self.now + delay, Next::Datagram { to, from, bytes });
        }
    }

    pub(super) fn send_message(&mut self, from: usize, to: NodeId, message: PeerMessage) {
        let Some(peer) = self.host_of(to) else { return };
        self.overhear(peer, &message);
        let dialed = if self.links.contains_key(&pair(from, peer)) {
            0
        } else {
            match self.dial(from, peer) {
                Some(delay) => delay,
                None => return,
            }
        };
        if let Some(delay) = self.network.message(from, peer, &mut self.rng) {
            let Some(packet) = self.pack(message) else {
                return;
            };
            let (life, from) = (self.hosts[peer].life, self.hosts[from].id);
            let next = Next::Message {
                to: peer,
                life,
                from,
                packet,
            };
            self.queue.push(self.now + dialed + delay, next);
        }
    }

    fn count(&mut self, kind: &'static str, bytes: usize) {
        let (messages, total) = self.outcome.control.entry(kind).or_default();
        *messages += 1;
        *total += bytes as u64;
    }

    fn pack(&mut self, message: PeerMessage) -> Option<Packet> {
        self.sent += 1;
        let kind = kind(&message);
        if !self.sent.is_multiple_of(self.encode_every) {
            self.count(kind, weight(&message));
            return Some(Packet::Told(message));
        }
        match encode(&message) {
            Ok(bytes) => {
                self.count(kind, bytes.len());
                Some(Packet::Encoded(bytes))
            }
            Err(error) => {
                self.violation(format!("a message cannot be encoded: {error}"));
                None
            }
        }
    }

    /// Opens a connection if it can be had. When it will be up, after now.
    pub(super) fn dial(&mut self, from: usize, to: usize) -> Option<u64> {
        if self.links.contains_key(&pair(from, to)) {
            return Some(0);
        }
        let round = self.network.message(from, to, &mut self.rng)?;
        if !self.hosts[to].is_up() || from == to {
            return None;
        }
        let up = 3 * round;
        self.links.insert(pair(from, to), from);
        self.queue
            .push(self.now + up, Next::Linked { a: from, b: to });
        Some(up)
    }

    pub(super) fn hang_up(&mut self, host: usize, node: NodeId) {
        let Some(peer) = self.host_of(node) else {
            return;
        };
        if self.links.get(&pair(host, peer)) == Some(&host) {
            self.links.remove(&pair(host, peer));
            self.lose_link(host, peer, 1_000);
            self.lose_link(peer, host, 5_000);
        }
    }

    pub(super) fn linked(&mut self, a: usize, b: usize) {
        if !self.links.contains_key(&pair(a, b)) {
            return;
        }
        for (at, peer) in [(a, b), (b, a)] {
            if self.connected.insert((at, peer)) {
                let peer = self.hosts[peer].id;
                self.deliver(at, Input::Connected(peer));
            }
        }
    }

    pub(super) fn lose_link(&mut self, at: usize, peer: usize, after: u64) {
        let life = self.hosts[at].life;
        self.queue
            .push(self.now + after, Next::LinkLost { at, life, peer });
    }

    pub(super) fn link_lost(&mut self, at: usize, life: u64, peer: usize) {
        let again = self.links.contains_key(&pair(at, peer));
        if self.hosts[at].life == life && !again && self.connected.remove(&(at, peer)) {
            let peer = self.hosts[peer].id;
            self.deliver(at, Input::Disconnected(peer));
        }
    }

    pub(super) fn synced(&mut self, host: usize, life: u64, id: PersistId) {
        if self.hosts[host].life != life {
            return;
        }
        let input = if self.hosts[host].disk.sync(id) {
            Input::Persisted(id)
        } else {
            Input::PersistFailed {
                id,
                reason: "no space left on device".to_owned(),
            }
        };
        self.deliver(host, input);
    }

    pub(super) fn probe(&mut self, host: usize, node: NodeId) {
        let there = self.host_of(node);
        let delay = there.and_then(|p| self.network.message(host, p, &mut self.rng));
        let answer = match (there, delay) {
            (Some(peer), Some(delay)) if self.hosts[peer].is_up() => {
                let thawed = self.hosts[peer].stalled_until.max(self.now + delay);
                Some(thawed + delay).filter(|at| *at <= self.now + PROBE_TIMEOUT)
            }
            (Some(_) | None, Some(_) | None) => None,
        };
        let life = self.hosts[host].life;
        let reachable = answer.is_some();
        let at = answer.unwrap_or(self.now + PROBE_TIMEOUT);
        self.queue.push(
            at,
            Next::Probed {
                host,
                life,
                node,
                reachable,
            },
        );
    }
}

pub(super) fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
