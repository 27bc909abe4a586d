//! The virtual disk: what was synced survives a crash, what was not may or may not.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use dunlin_core::io::{Recovered, Write};
use dunlin_gossip::replication::PersistId;
use dunlin_state::model::{Claim, HeldVolume, NodeId};

/// The disk of one host.
#[derive(Debug, Default)]
pub struct Disk {
    document: Option<Bytes>,
    changes: Vec<Bytes>,
    claims: Vec<Claim>,
    peers: Vec<SocketAddr>,
    volumes: Vec<HeldVolume>,
    holders: BTreeMap<NodeId, Bytes>,
    boot: u64,
    unsynced: Vec<(PersistId, Vec<Write>)>,
    /// Whether it refuses writes.
    pub full: bool,
}

impl Disk {
    /// Counts a start; synced, as the daemon does.
    pub fn next_boot(&mut self) -> u64 {
        self.boot += 1;
        self.boot
    }

    /// Takes a request that is not on the platter yet.
    pub fn submit(&mut self, id: PersistId, writes: Vec<Write>) {
        self.unsynced.push((id, writes));
    }

    /// Syncs one request, and all before it. Whether the disk took it.
    pub fn sync(&mut self, id: PersistId) -> bool {
        let Some(at) = self.unsynced.iter().position(|(pending, _)| *pending == id) else {
            return !self.full;
        };
        if self.full {
            self.unsynced.remove(at);
            return false;
        }
        for (_, writes) in self.unsynced.drain(..=at).collect::<Vec<_>>() {
            writes.into_iter().for_each(|write| self.apply(write));
        }
        true
    }

    /// Power loss: of what was not synced, the first `kept` requests happen to be on the platter.
    pub fn crash(&mut self, kept: usize) {
        let kept = kept.min(self.unsynced.len());
        let pending = std::mem::take(&mut self.unsynced);
        if !self.full {
            for (_, writes) in pending.into_iter().take(kept) {
                writes.into_iter().for_each(|write| self.apply(write));
            }
        }
    }

    /// Requests that are not synced yet.
    pub fn pending(&self) -> usize {
        self.unsynced.len()
    }

    /// What a starting node finds.
    pub fn recover(&self) -> Recovered {
        let document = match &self.document {
            Some(saved) => Some((saved.clone(), self.changes.clone())),
            None if self.changes.is_empty() => None,
            None => Some((Bytes::new(), self.changes.clone())),
        };
        Recovered {
            document,
            claims: self.claims.clone(),
            peers: self.peers.clone(),
            volumes: self.volumes.clone(),
            holders: self.holders.values().cloned().collect(),
            rules: None,
        }
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Document(saved) => {
                self.document = Some(saved);
                self.changes.clear();
            }
            Write::Change(change) => self.changes.push(change),
            Write::Claims(claims) => self.claims = claims,
            Write::Peers(peers) => self.peers = peers,
            Write::Volumes(volumes) => self.volumes = volumes,
            Write::Holder(node, bytes) if bytes.is_empty() => drop(self.holders.remove(&node)),
            Write::Holder(node, bytes) => drop(self.holders.insert(node, bytes)),
        }
    }
}
