//! A register as it is kept: the parts as they came, what they mean, and the proof.
//!
//! A register is cut into *parts*: one for the host and one for each claim, load and scale. Each remembers the seq
//! at which it changed last, so that any node that holds the register can tell any other what has
//! changed since any version that one knows, without a log. A part that is removed leaves its key
//! behind for a while; the *floor* in the header says from which seq on these are complete.
//!
//! The node signs the header and the list of all keys, seqs and hashes of bodies. Whoever applies
//! a few changed parts to what it knows arrives at the same list, or notices. So nobody can forge a
//! register, mix parts of two versions, or hold one back, and parts of kinds that this version does
//! not know are carried along untouched.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::check::{self, BadRegister, MAX_PARTS, MAX_REGISTER_BYTES, MAX_REMOVED, check};
use super::envelope::{self, BadEnvelope, Envelope, Header, Parcel};
use super::scaling;
use super::seal::{Proof, Seal};
use crate::model::{Claim, NodeId, NodeRegister, NodeReport, Slot, SlotId, Version};

/// The part with everything but the claims.
const HOST: &[u8] = b"h";

/// The first byte of the key of a claim's part; its slot follows.
const CLAIM: u8 = b'c';

/// Nesting of a part at most; a claim needs five.
const MAX_DEPTH: usize = 16;

/// Why a register that came from a peer is not taken. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// The bytes are no register.
    #[error(transparent)]
    Envelope(#[from] BadEnvelope),
    /// It says what changed since a version that is not known here: it is needed whole.
    #[error("what it builds on is not known here")]
    NeedsBase,
    /// It was not written like this by the node that it names.
    #[error("its signature does not fit: it was forged, damaged or put together from two versions")]
    Forged,
    /// A part cannot be read.
    #[error("the part '{key}' cannot be read: {reason}")]
    Part {
        /// Which.
        key: String,
        /// Why.
        reason: String,
    },
    /// It breaks a bound.
    #[error(transparent)]
    Bounds(#[from] BadRegister),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    seq: u64,
    /// Empty when the part was removed.
    body: Bytes,
    hash: [u8; 32],
}

impl Part {
    pub(super) fn new(seq: u64, body: Bytes) -> Self {
        let hash = match body.is_empty() {
            true => [0; 32],
            false => *blake3::hash(&body).as_bytes(),
        };
        Self { seq, body, hash }
    }

    fn is_removed(&self) -> bool {
        self.body.is_empty()
    }
}

/// One version of one node's register.
#[derive(Debug, Clone)]
pub struct Register {
    header: Header,
    parts: BTreeMap<Bytes, Part>,
    proof: Proof,
    digest: [u8; 32],
    view: Arc<NodeRegister>,
}

impl PartialEq for Register {
    fn eq(&self, other: &Self) -> bool {
        // The digest covers header and parts, and the view follows from these.
        self.digest == other.digest && self.proof == other.proof
    }
}

impl Eq for Register {}

impl Register {
    /// The first register of a life, or one that does not build on an earlier one.
    ///
    /// # Errors
    /// When the report breaks a bound, so that no peer would take it.
    pub fn first(
        node: NodeId,
        version: Version,
        report: NodeReport,
        seal: &dyn Seal,
    ) -> Result<Self, BadRegister> {
        let mut parts = BTreeMap::new();
        parts.insert(
            Bytes::from_static(HOST),
            Part::new(version.seq, encode_host(&report)?),
        );
        for claim in &report.claims {
            let part = Part::new(version.seq, encode(claim)?);
            parts.insert(key_of(&claim.slot), part);
        }
        scaling::write(&mut parts, version.seq, &NodeReport::default(), &report)?;
        let floor = version.seq;
        let header = Header {
            node,
            version,
            floor,
        };
        Self::sealed(header, parts, report, seal)
    }

    /// The next version in the same life: parts that say what they said before stay as they are.
    ///
    /// # Errors
    /// When the report breaks a bound, so that no peer would take it.
    pub fn next(&self, seq: u64, report: NodeReport, seal: &dyn Seal) -> Result<Self, BadRegister> {
        let mut header = self.header;
        header.version.seq = seq;
        let mut parts = self.parts.clone();
        let before = &self.view.report;
        if !same_host(before, &report) {
            parts.insert(
                Bytes::from_static(HOST),
                Part::new(seq, encode_host(&report)?),
            );
        }
        let claims = |report: &'_ NodeReport| -> BTreeMap<SlotId, usize> {
            let slots = report.claims.iter().map(|c| c.slot.clone());
            slots.zip(0..).collect()
        };
        let (old, new) = (claims(before), claims(&report));
        for slot in old.keys().filter(|slot| !new.contains_key(slot)) {
            parts.insert(key_of(slot), Part::new(seq, Bytes::new()));
        }
        for (slot, index) in &new {
            let claim = &report.claims[*index];
            if old.get(slot).is_none_or(|o| before.claims[*o] != *claim) {
                parts.insert(key_of(slot), Part::new(seq, encode(claim)?));
            }
        }
        scaling::write(&mut parts, seq, before, &report)?;
        header.floor = forget_removed(&mut parts, header.floor);
        Self::sealed(header, parts, report, seal)
    }

    fn sealed(
        header: Header,
        parts: BTreeMap<Bytes, Part>,
        mut report: NodeReport,
        seal: &dyn Seal,
    ) -> Result<Self, BadRegister> {
        // As whoever reads the parts puts them together.
        report.claims.sort_by(|a, b| a.slot.cmp(&b.slot));
        let view = NodeRegister {
            node: header.node,
            version: header.version,
            report,
        };
        check(&view)?;
        let digest = digest(&header, &parts);
        Ok(Self {
            header,
            parts,
            proof: seal.sign(&digest),
            digest,
            view: Arc::new(view),
        })
    }

    /// Opens what came from a peer: applies it to what is known where it names a base, checks the
    /// signature, and only then reads the parts that are new.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn open(
        envelope: Envelope,
        known: Option<&Self>,
        seal: &dyn Seal,
    ) -> Result<Self, Refused> {
        let header = envelope.header;
        let known = match envelope.base {
            None => None,
            Some(base) => Some(
                known
                    .filter(|k| k.can_take(header.version, base))
                    .ok_or(Refused::NeedsBase)?,
            ),
        };
        let mut parts = known.map(|k| k.parts.clone()).unwrap_or_default();
        for Parcel { key, seq, body } in &envelope.parts {
            parts.insert(key.clone(), Part::new(*seq, body.clone()));
        }
        parts.retain(|_, part| !part.is_removed() || part.seq > header.floor);
        check_parts(&parts)?;
        let digest = digest(&header, &parts);
        if !seal.verify(header.node, &digest, &envelope.proof) {
            return Err(Refused::Forged);
        }
        let before = known.map(|k| &k.view.report);
        let view = NodeRegister {
            node: header.node,
            version: header.version,
            report: read(before, &envelope.parts)?,
        };
        check(&view)?;
        Ok(Self {
            header,
            parts,
            proof: envelope.proof,
            digest,
            view: Arc::new(view),
        })
    }

    /// Whether the node that it names vouched for it. [`Self::open`] has asked already; this is
    /// for a register that came whole within one process.
    pub fn is_genuine(&self, seal: &dyn Seal) -> bool {
        seal.verify(self.header.node, &self.digest, &self.proof)
    }

    /// Whether a message to `version` that holds what changed after `base` can be applied to this.
    pub fn can_take(&self, version: Version, base: u64) -> bool {
        self.header.version.boot == version.boot && self.header.version.seq >= base
    }

    /// The seq from which on somebody who knows this version needs only changes; `None` when it
    /// needs everything.
    pub fn base_for(&self, known: Option<Version>) -> Option<u64> {
        let known = known.filter(|known| known.boot == self.header.version.boot)?;
        (known.seq >= self.header.floor && known.seq < self.header.version.seq).then_some(known.seq)
    }

    /// Whose it is.
    pub fn node(&self) -> NodeId {
        self.header.node
    }

    /// Its age.
    pub fn version(&self) -> Version {
        self.header.version
    }

    /// The signature.
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// What it says.
    pub fn view(&self) -> &Arc<NodeRegister> {
        &self.view
    }

    /// As it travels to somebody who knows what was before `base`, or nothing.
    pub fn encode(&self, base: Option<u64>) -> Bytes {
        envelope::encode(&self.header, base, self.since(base), &self.proof)
    }

    /// Bytes of [`Self::encode`], a little on the high side.
    pub fn size(&self, base: Option<u64>) -> usize {
        const HEAD: usize = 160;
        const PART: usize = 12;
        let parts = self.since(base);
        HEAD + parts
            .map(|(key, _, body)| PART + key.len() + body.len())
            .sum::<usize>()
    }

    fn since(&self, base: Option<u64>) -> impl Iterator<Item = (&Bytes, u64, &Bytes)> + Clone {
        let parts = self.parts.iter();
        parts
            .filter(move |(_, part)| base.is_none_or(|base| part.seq > base))
            .map(|(key, part)| (key, part.seq, &part.body))
    }
}

/// What the node signs.
fn digest(header: &Header, parts: &BTreeMap<Bytes, Part>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dunlin register 1");
    hasher.update(header.node.as_bytes());
    for number in [header.version.boot, header.version.seq, header.floor] {
        hasher.update(&number.to_be_bytes());
    }
    for (key, part) in parts {
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key);
        hasher.update(&part.seq.to_be_bytes());
        hasher.update(&part.hash);
    }
    *hasher.finalize().as_bytes()
}

/// Drops the oldest removals beyond the bound. Returns the new floor.
fn forget_removed(parts: &mut BTreeMap<Bytes, Part>, floor: u64) -> u64 {
    let removed = parts.values().filter(|part| part.is_removed());
    let mut seqs: Vec<u64> = removed.map(|part| part.seq).collect();
    let Some(excess) = seqs.len().checked_sub(MAX_REMOVED + 1) else {
        return floor;
    };
    let (_, newest_dropped, _) = seqs.select_nth_unstable(excess);
    let floor = floor.max(*newest_dropped);
    parts.retain(|_, part| !part.is_removed() || part.seq > floor);
    floor
}

fn check_parts(parts: &BTreeMap<Bytes, Part>) -> Result<(), Refused> {
    if parts.len() > MAX_PARTS {
        return Err(BadEnvelope::TooLarge {
            what: "number of parts",
            max: MAX_PARTS,
        }
        .into());
    }
    let bytes: usize = parts.iter().map(|(k, p)| k.len() + p.body.len()).sum();
    if bytes > MAX_REGISTER_BYTES {
        return Err(BadEnvelope::TooLarge {
            what: "content",
            max: MAX_REGISTER_BYTES,
        }
        .into());
    }
    Ok(())
}

/// Reads the parts that have come; what has not changed is as it was.
fn read(before: Option<&NodeReport>, parts: &[Parcel]) -> Result<NodeReport, Refused> {
    let mut claims = before.map(|b| b.claims.clone()).unwrap_or_default();
    let mut loads = before.map(|b| b.loads.clone()).unwrap_or_default();
    let mut scales = before.map(|b| b.scales.clone()).unwrap_or_default();
    let mut host = None;
    for Parcel { key, body, .. } in parts {
        match key.split_first() {
            Some((&CLAIM, name)) => {
                let slot = slot_of(name).ok_or_else(|| unreadable(key, "it names no slot"))?;
                let place = claims.binary_search_by(|c: &Claim| c.slot.cmp(&slot));
                if body.is_empty() {
                    place.into_iter().for_each(|at| drop(claims.remove(at)));
                    continue;
                }
                let claim: Claim = decode(key, body)?;
                if claim.slot != slot {
                    return Err(unreadable(key, "it claims another slot"));
                }
                match place {
                    Ok(at) => claims[at] = claim,
                    Err(at) => claims.insert(at, claim),
                }
            }
            Some((&scaling::LOAD, _)) => scaling::read_one(&mut loads, key, body)?,
            Some((&scaling::SCALE, _)) => scaling::read_one(&mut scales, key, body)?,
            _ if key == HOST => host = Some(decode::<NodeReport>(key, body)?),
            // Of a kind that a newer daemon knows.
            Some(_) | None => {}
        }
    }
    let host = match (host, before) {
        (Some(host), _) => host,
        (None, Some(before)) => check::host_of(before),
        (None, None) => return Err(unreadable(HOST, "it is not there")),
    };
    Ok(NodeReport {
        claims,
        loads,
        scales,
        ..host
    })
}

pub(super) fn unreadable(key: &[u8], reason: &str) -> Refused {
    Refused::Part {
        key: String::from_utf8_lossy(key).into_owned(),
        reason: reason.to_owned(),
    }
}

pub(super) fn decode<T: serde::de::DeserializeOwned>(
    key: &[u8],
    body: &[u8],
) -> Result<T, Refused> {
    ciborium::de::from_reader_with_recursion_limit(body, MAX_DEPTH)
        .map_err(|error| unreadable(key, &error.to_string()))
}

pub(super) fn encode(value: &impl serde::Serialize) -> Result<Bytes, BadRegister> {
    let mut bytes = Vec::with_capacity(512);
    ciborium::into_writer(value, &mut bytes)
        .map_err(|error| BadRegister::Unencodable(error.to_string()))?;
    Ok(Bytes::from(bytes))
}

fn encode_host(report: &NodeReport) -> Result<Bytes, BadRegister> {
    encode(&check::host_of(report))
}

/// Whether two reports differ at most in what has parts of its own.
fn same_host(a: &NodeReport, b: &NodeReport) -> bool {
    let NodeReport {
        name,
        dunlin_version,
        address,
        facts,
        labels,
        capacity,
        runtimes,
        disk_ok,
        claims: _,
        preempted,
        volumes,
        loads: _,
        scales: _,
        started_at,
    } = a;
    *name == b.name
        && *dunlin_version == b.dunlin_version
        && *address == b.address
        && *facts == b.facts
        && *labels == b.labels
        && *capacity == b.capacity
        && *runtimes == b.runtimes
        && *disk_ok == b.disk_ok
        && *preempted == b.preempted
        && *volumes == b.volumes
        && *started_at == b.started_at
}

/// The key of a claim's part: `c`, the service, a dot, and the slot.
fn key_of(slot: &SlotId) -> Bytes {
    let SlotId { service, slot } = slot;
    let text = match slot {
        Slot::Replica(index) => format!("c{service}.{index}"),
        Slot::Node(node) => format!("c{service}.{node}"),
    };
    Bytes::from(text)
}

/// The slot that a key names behind its first byte.
fn slot_of(name: &[u8]) -> Option<SlotId> {
    let (service, slot) = std::str::from_utf8(name).ok()?.rsplit_once('.')?;
    let slot = match slot.parse() {
        Ok(index) => Slot::Replica(index),
        Err(_) => Slot::Node(slot.parse().ok()?),
    };
    let service = service.parse().ok()?;
    let slot = SlotId { service, slot };
    // One slot has one key: no leading zeros, capitals, or default namespace left out.
    (key_of(&slot)[1..] == *name).then_some(slot)
}
