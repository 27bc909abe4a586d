//! The registers that this node knows, its own among them, and the digests that compare them.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_state::model::{NodeId, NodeReport, Version};
use dunlin_state::observed::{BadRegister, ObservedTable, Refused, Register, Seal};

use super::limits::{MAX_NODES, MAX_TABLE_BYTES, MAX_TABLE_BYTES_NEW};
use super::pushed::Pushed;

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
    /// It was newer than what was known, if anything was.
    Newer(Option<Version>),
    /// It may be newer, but what it builds on is not known.
    NeedsBase,
    /// It was the one we know.
    Known,
    /// We know a newer one.
    Older,
    /// Its node has been forgotten.
    Forgotten,
    /// There are too many registers, or too large ones; whoever passed it on is not to blame.
    NoRoom(String),
    /// It names us as its writer; nothing was taken.
    Mine(Impostor),
    /// It is malformed, breaks a bound, or was not signed by its node.
    Refused(String),
    /// It does not fit what it builds on: it was tampered with, or that was.
    Mismatch(String),
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
    seal: Arc<dyn Seal>,
    table: ObservedTable,
    forgotten: BTreeMap<NodeId, (Version, u64)>,
    /// One hash for each group, as far as they are up to date.
    hashes: [Option<u64>; BUCKETS],
}

impl Registers {
    pub(super) fn new(me: NodeId, boot: u64, seal: Arc<dyn Seal>) -> Self {
        Self {
            me,
            own: Version { boot, seq: 0 },
            seal,
            table: ObservedTable::default(),
            forgotten: BTreeMap::new(),
            hashes: [None; BUCKETS],
        }
    }

    pub(super) fn table(&self) -> &ObservedTable {
        &self.table
    }

    /// Writes this node's own register. Returns whether the report says anything new.
    pub(super) fn report(&mut self, report: NodeReport) -> Result<bool, BadRegister> {
        let current = self.table.sealed(self.me);
        if current.is_some_and(|r| r.view().report == report && r.version() == self.own) {
            return Ok(false);
        }
        let mut version = self.own;
        version.seq = version.seq.saturating_add(1);
        // After a number that somebody else used, nobody can be expected to know what came before.
        let register = match current.filter(|r| r.version() == self.own) {
            Some(current) => current.next(version.seq, report, &*self.seal)?,
            None => Register::first(self.me, version, report, &*self.seal)?,
        };
        self.own = version;
        self.put(Arc::new(register));
        Ok(true)
    }

    /// Writes the current report again, under a higher number than anyone has seen.
    pub(super) fn republish(&mut self) -> Result<bool, BadRegister> {
        match self.table.get(self.me).map(|r| r.report.clone()) {
            Some(report) => self.report(report),
            None => Ok(false),
        }
    }

    fn put(&mut self, register: Arc<Register>) {
        self.hashes[bucket(register.node())] = None;
        self.table.merge(register);
    }

    /// Takes what a peer has sent, if it is newer and genuine. The version is looked at first: most
    /// registers come from several peers.
    pub(super) fn take(&mut self, pushed: &Pushed, mono: u64) -> Taken {
        let (node, version) = match pushed.head() {
            Ok(head) => head,
            Err(bad) => return Taken::Refused(format!("a register: {bad}")),
        };
        if node == self.me {
            return self.meet_self(pushed, version);
        }
        let forgotten = self.forgotten.get(&node);
        if forgotten.is_some_and(|(old, until)| mono < *until && version <= *old) {
            return Taken::Forgotten;
        }
        let known = self.table.sealed(node);
        let before = known.map(|r| r.version());
        match before {
            Some(known) if known == version => return Taken::Known,
            Some(known) if known > version => return Taken::Older,
            None if self.table.len() >= MAX_NODES => {
                return Taken::NoRoom(format!("registers of {MAX_NODES} nodes are kept already"));
            }
            Some(_) | None => {}
        }
        match pushed.open(known.map(|k| &**k), &*self.seal) {
            Ok(register) => {
                if let Some(full) = self.has_no_room(&register) {
                    return Taken::NoRoom(full);
                }
                self.forgotten.remove(&node);
                self.put(register);
                Taken::Newer(before)
            }
            Err(refused) => refusal(node, refused),
        }
    }

    /// Why a register of another node cannot be kept, if it cannot. One that shrinks always can.
    fn has_no_room(&self, register: &Register) -> Option<String> {
        let size = register.size(None);
        let known = self.table.sealed(register.node());
        let (before, most) = match known {
            Some(known) => (known.size(None), MAX_TABLE_BYTES),
            None => (0, MAX_TABLE_BYTES_NEW),
        };
        let all = self.table.bytes() - before + size;
        (size > before && all > most)
            .then(|| format!("its {size} bytes would make {all} of all registers; {most} are kept"))
    }

    /// Nobody but us writes our register, so a newer one means that somebody else has our key, or
    /// that our disk forgot a life. Within one life we can step over it. Who has not our key cannot
    /// make us do that.
    fn meet_self(&mut self, pushed: &Pushed, theirs: Version) -> Taken {
        let ours = self.table.sealed(self.me);
        if theirs < self.own {
            return Taken::Mine(Impostor::No);
        }
        let register = match pushed.open(ours.map(|k| &**k), &*self.seal) {
            Ok(register) => register,
            Err(refused) => return refusal(self.me, refused),
        };
        if theirs.boot > self.own.boot {
            return Taken::Mine(Impostor::LaterBoot(theirs.boot));
        }
        if theirs == self.own && ours.is_some_and(|ours| *ours == register) {
            return Taken::Mine(Impostor::No);
        }
        self.own.seq = theirs.seq.saturating_add(1);
        Taken::Mine(Impostor::SameBoot)
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
        self.hashes[bucket(node)] = None;
        true
    }

    /// One hash for each group of nodes. Only groups in which something has changed are hashed
    /// again.
    pub(super) fn buckets(&mut self) -> [u64; BUCKETS] {
        let mut hashers: [Option<blake3::Hasher>; BUCKETS] = std::array::from_fn(|_| None);
        if self.hashes.iter().any(Option::is_none) {
            for register in self.table.all_sealed() {
                let at = bucket(register.node());
                if self.hashes[at].is_some() {
                    continue;
                }
                let Version { boot, seq } = register.version();
                let hasher = hashers[at].get_or_insert_default();
                hasher.update(register.node().as_bytes());
                hasher.update(&boot.to_le_bytes());
                hasher.update(&seq.to_le_bytes());
            }
        }
        let mut hashes = [0; BUCKETS];
        for ((known, hasher), hash) in self.hashes.iter_mut().zip(hashers).zip(&mut hashes) {
            *hash = *known.get_or_insert_with(|| {
                let mut word = [0; 8];
                if let Some(hasher) = hasher {
                    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
                }
                u64::from_le_bytes(word)
            });
        }
        hashes
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
        let known = self.within(buckets);
        known.map(|r| (r.node(), r.version())).collect()
    }

    /// The registers in these groups that somebody with these versions lacks, as far as it lacks
    /// them.
    pub(super) fn beyond(&self, versions: &BTreeMap<NodeId, Version>, buckets: u64) -> Vec<Pushed> {
        let news = self.within(buckets).filter_map(|register| {
            let known = versions.get(&register.node()).copied();
            let lacks = known.is_none_or(|known| register.version() > known);
            lacks.then(|| Pushed::to(register, known))
        });
        news.collect()
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

    fn within(&self, buckets: u64) -> impl Iterator<Item = &Arc<Register>> {
        self.table
            .all_sealed()
            .filter(move |r| buckets & (1 << bucket(r.node())) != 0)
    }
}

fn refusal(node: NodeId, refused: Refused) -> Taken {
    let text = format!("register of {}: {refused}", node.short());
    match refused {
        Refused::NeedsBase => Taken::NeedsBase,
        Refused::Forged => Taken::Mismatch(text),
        Refused::Envelope(_) | Refused::Part { .. } | Refused::Bounds(_) => Taken::Refused(text),
    }
}

fn bucket(node: NodeId) -> usize {
    usize::from(node.as_bytes()[0] >> 2)
}
