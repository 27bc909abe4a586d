//! The registers that this node knows, its own among them, and the digests that compare them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_state::model::{NodeId, NodeRegister, NodeReport, Version};
use dunlin_state::observed::{BadRegister, ObservedTable, check};

use super::limits::MAX_NODES;

/// Groups of nodes in a digest, by the first six bits of the key, which are random.
pub(super) const BUCKETS: usize = 64;

/// Every group.
pub(super) const ALL_BUCKETS: u64 = u64::MAX;

/// Milliseconds for which a forgotten node's old registers are not taken again. Everybody forgets
/// a node within seconds of each other; a partition that lasts longer brings back a register that
/// membership then declares gone anew.
const FORGOTTEN_MS: u64 = 600_000;

/// Forgotten nodes remembered at most.
const MAX_FORGOTTEN: usize = 1_024;

/// What became of a received register.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was newer.
    Newer,
    /// It was the one we know.
    Known,
    /// We know a newer one.
    Older,
    /// Its node has been forgotten.
    Forgotten,
    /// It names us as its writer; nothing was taken.
    Mine(Impostor),
    /// It breaks a bound.
    Refused(String),
}

/// A register that we are said to have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Impostor {
    /// We did, now or in an earlier life.
    No,
    /// This life's number is used by somebody else as well.
    SameBoot,
    /// A later life exists.
    LaterBoot(u64),
}

/// All registers.
#[derive(Debug)]
pub(super) struct Registers {
    me: NodeId,
    own: Version,
    table: ObservedTable,
    forgotten: BTreeMap<NodeId, (Version, u64)>,
    hashes: Option<[u64; BUCKETS]>,
}

impl Registers {
    pub(super) fn new(me: NodeId, boot: u64) -> Self {
        Self {
            me,
            own: Version { boot, seq: 0 },
            table: ObservedTable::default(),
            forgotten: BTreeMap::new(),
            hashes: None,
        }
    }

    pub(super) fn table(&self) -> &ObservedTable {
        &self.table
    }

    /// Writes this node's own register. Returns whether the report says anything new.
    pub(super) fn report(&mut self, report: NodeReport) -> Result<bool, BadRegister> {
        let current = self.table.get(self.me);
        if current.is_some_and(|r| r.report == report && r.version == self.own) {
            return Ok(false);
        }
        let mut version = self.own;
        version.seq = version.seq.saturating_add(1);
        let register = NodeRegister {
            node: self.me,
            version,
            report,
        };
        check(&register)?;
        self.own = version;
        self.hashes = None;
        Ok(self.table.merge(Arc::new(register)))
    }

    /// Writes the current report again, under a higher number than anyone has seen.
    pub(super) fn republish(&mut self) -> Result<bool, BadRegister> {
        match self.table.get(self.me).map(|r| r.report.clone()) {
            Some(report) => self.report(report),
            None => Ok(false),
        }
    }

    pub(super) fn take(&mut self, register: &Arc<NodeRegister>, mono: u64) -> Taken {
        if register.node == self.me {
            return Taken::Mine(self.meet_self(register));
        }
        if let Err(bad) = check(register) {
            let reason = format!("register of {}: {bad}", register.node.short());
            return Taken::Refused(reason);
        }
        if let Some((version, until)) = self.forgotten.get(&register.node) {
            if mono < *until && register.version <= *version {
                return Taken::Forgotten;
            }
            self.forgotten.remove(&register.node);
        }
        match self.table.version(register.node) {
            Some(known) if known == register.version => Taken::Known,
            Some(known) if known > register.version => Taken::Older,
            None if self.table.len() >= MAX_NODES => {
                Taken::Refused(format!("it reports of more than {MAX_NODES} nodes"))
            }
            Some(_) | None => {
                self.hashes = None;
                self.table.merge(Arc::clone(register));
                Taken::Newer
            }
        }
    }

    /// Nobody but us writes our register, so a newer one means that somebody else has our key, or
    /// that our disk forgot a life. Within one life we can step over it.
    fn meet_self(&mut self, register: &Arc<NodeRegister>) -> Impostor {
        let theirs = register.version;
        if theirs.boot > self.own.boot {
            return Impostor::LaterBoot(theirs.boot);
        }
        let differs = || self.table.get(self.me).is_none_or(|r| r != register);
        if theirs.boot == self.own.boot
            && (theirs.seq > self.own.seq || (theirs.seq == self.own.seq && differs()))
        {
            self.own.seq = theirs.seq.saturating_add(1);
            return Impostor::SameBoot;
        }
        Impostor::No
    }

    /// Forgets a node and refuses what is known of it now for a while.
    pub(super) fn forget(&mut self, node: NodeId, mono: u64) -> bool {
        let Some(version) = self.table.version(node).filter(|_| node != self.me) else {
            return false;
        };
        if self.forgotten.len() >= MAX_FORGOTTEN {
            let oldest = self.forgotten.iter().min_by_key(|(_, (_, until))| *until);
            let oldest = oldest.map(|(node, _)| *node);
            oldest.and_then(|node| self.forgotten.remove(&node));
        }
        let until = mono.saturating_add(FORGOTTEN_MS);
        self.forgotten.insert(node, (version, until));
        self.table.forget(node);
        self.hashes = None;
        true
    }

    /// One hash for each group of nodes.
    pub(super) fn buckets(&mut self) -> [u64; BUCKETS] {
        let table = &self.table;
        *self.hashes.get_or_insert_with(|| {
            let mut hashers = vec![None; BUCKETS];
            for register in table.iter() {
                let hasher: &mut Option<blake3::Hasher> = &mut hashers[bucket(register.node)];
                let hasher = hasher.get_or_insert_default();
                hasher.update(register.node.as_bytes());
                hasher.update(&register.version.boot.to_le_bytes());
                hasher.update(&register.version.seq.to_le_bytes());
            }
            let mut hashes = [0; BUCKETS];
            for (hash, hasher) in hashes.iter_mut().zip(hashers) {
                let mut word = [0; 8];
                if let Some(hasher) = hasher {
                    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
                }
                *hash = u64::from_le_bytes(word);
            }
            hashes
        })
    }

    /// One hash of everything.
    pub(super) fn summary(&mut self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        for hash in self.buckets() {
            hasher.update(&hash.to_le_bytes());
        }
        let mut summary = [0; 16];
        summary.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        summary
    }

    /// The groups in which these hashes differ from ours, one bit each.
    pub(super) fn differing(&mut self, theirs: &[u64]) -> u64 {
        let ours = self.buckets();
        let pairs = ours.iter().zip(theirs).enumerate();
        pairs
            .filter(|(_, (ours, theirs))| ours != theirs)
            .fold(0, |mask, (index, _)| mask | (1 << index))
    }

    /// The versions known in these groups.
    pub(super) fn versions(&self, buckets: u64) -> Vec<(NodeId, Version)> {
        self.within(buckets).map(|r| (r.node, r.version)).collect()
    }

    /// The registers in these groups that somebody with these versions lacks.
    pub(super) fn beyond(
        &self,
        versions: &BTreeMap<NodeId, Version>,
        buckets: u64,
    ) -> Vec<Arc<NodeRegister>> {
        self.within(buckets)
            .filter(|r| versions.get(&r.node).is_none_or(|known| r.version > *known))
            .cloned()
            .collect()
    }

    /// Whether any of these versions would be news here.
    pub(super) fn lacks(&self, versions: &BTreeMap<NodeId, Version>, mono: u64) -> bool {
        versions.iter().any(|(node, version)| {
            let known = self.table.version(*node);
            let forgotten = self.forgotten.get(node);
            let forgotten = forgotten.is_some_and(|(old, until)| version <= old && mono < *until);
            *node != self.me && !forgotten && known.is_none_or(|known| *version > known)
        })
    }

    fn within(&self, buckets: u64) -> impl Iterator<Item = &Arc<NodeRegister>> {
        self.table
            .iter()
            .filter(move |r| buckets & (1 << bucket(r.node)) != 0)
    }
}

fn bucket(node: NodeId) -> usize {
    usize::from(node.as_bytes()[0] >> 2)
}
