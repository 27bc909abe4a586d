//! A register as it travels: a header, encoded parts, and the proof.
//!
//! ```text
//! 1 byte   format, 1
//! 32       the node
//! varint   boot, seq, floor
//! varint   0: all parts; else 1 + the seq after which the parts changed
//! varint   number of parts, and for each:
//!     varint   length of the key, the key
//!     varint   seq at which the part changed last
//!     varint   length of the body, the body; none for a part that was removed
//! 64       the proof
//! ```
//!
//! Numbers are LEB128. Whoever receives it reads the header, and looks at the rest only when that
//! is newer than what it knows.

use bytes::Bytes;
use thiserror::Error;

use super::check::{MAX_PARTS, MAX_REGISTER_BYTES};
use super::seal::{PROOF_BYTES, Proof};
use crate::model::{NodeId, Version};

/// The version of this format.
pub const ENVELOPE_VERSION: u8 = 1;

/// Bytes of a key at most: a namespace, a name and a node's id fit twice.
pub const MAX_KEY_BYTES: usize = 200;

/// Why bytes are no envelope.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadEnvelope {
    /// They end too early.
    #[error("it is cut off")]
    Truncated,
    /// They go on behind the end.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    /// A newer daemon wrote it.
    #[error(
        "it has format version {0}, and this node reads {ENVELOPE_VERSION}: update the older daemon"
    )]
    Version(u8),
    /// A number does not fit.
    #[error("a number is out of range")]
    Number,
    /// It is larger than any honest one.
    #[error("its {what} is larger than {max}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// Parts are not ordered by key, or one is there twice.
    #[error("its parts are not in order")]
    Disorder,
}

/// What a receiver looks at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whose register it is.
    pub node: NodeId,
    /// Its age.
    pub version: Version,
    /// Removals up to this seq are not remembered: who knows only what came before needs it whole.
    pub floor: u64,
}

/// One part on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Its name.
    pub key: Bytes,
    /// When it changed last.
    pub seq: u64,
    /// What it says; nothing when it was removed.
    pub body: Bytes,
}

/// A register on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What it is about.
    pub header: Header,
    /// Only parts that changed after this seq are in it; `None`: all are.
    pub base: Option<u64>,
    /// The parts, ordered by key.
    pub parts: Vec<Parcel>,
    /// The node's signature over all parts, also those that are not in it.
    pub proof: Proof,
}

impl Envelope {
    /// Reads header and base only.
    ///
    /// # Errors
    /// When these are malformed; the rest may be even if they are not.
    pub fn peek(bytes: &[u8]) -> Result<(Header, Option<u64>), BadEnvelope> {
        let mut reader = Reader(bytes);
        reader.head()
    }

    /// Reads all of it. The parts are copied, so that one that is kept for long does not keep the
    /// whole message in memory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadEnvelope> {
        too_large("size", bytes.len(), 2 * MAX_REGISTER_BYTES)?;
        let mut reader = Reader(bytes);
        let (header, base) = reader.head()?;
        let count = reader.length("number of parts", MAX_PARTS)?;
        let mut parts: Vec<Parcel> = Vec::with_capacity(count.min(reader.0.len() / 3));
        for _ in 0..count {
            let length = reader.length("key", MAX_KEY_BYTES)?;
            let key = Bytes::copy_from_slice(reader.take(length)?);
            let seq = reader.number()?;
            let length = reader.length("part", MAX_REGISTER_BYTES)?;
            let body = Bytes::copy_from_slice(reader.take(length)?);
            if parts.last().is_some_and(|last| last.key >= key) {
                return Err(BadEnvelope::Disorder);
            }
            parts.push(Parcel { key, seq, body });
        }
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(reader.take(PROOF_BYTES)?);
        match reader.0.len() {
            0 => Ok(Self {
                header,
                base,
                parts,
                proof: Proof(proof),
            }),
            more => Err(BadEnvelope::Trailing(more)),
        }
    }

    /// As it travels.
    pub fn encode(&self) -> Bytes {
        let parts = self.parts.iter().map(|p| (&p.key, p.seq, &p.body));
        encode(&self.header, self.base, parts, &self.proof)
    }
}

/// Encodes an envelope from parts that somebody else holds.
pub(super) fn encode<'a>(
    header: &Header,
    base: Option<u64>,
    parts: impl Iterator<Item = (&'a Bytes, u64, &'a Bytes)> + Clone,
    proof: &Proof,
) -> Bytes {
    let size: usize = parts.clone().map(|(k, _, b)| k.len() + b.len() + 12).sum();
    let mut out = Vec::with_capacity(size + 160);
    out.push(ENVELOPE_VERSION);
    out.extend_from_slice(header.node.as_bytes());
    write_number(&mut out, header.version.boot);
    write_number(&mut out, header.version.seq);
    write_number(&mut out, header.floor);
    write_number(&mut out, base.map_or(0, |base| base.saturating_add(1)));
    write_number(&mut out, parts.clone().count() as u64);
    for (key, seq, body) in parts {
        write_number(&mut out, key.len() as u64);
        out.extend_from_slice(key);
        write_number(&mut out, seq);
        write_number(&mut out, body.len() as u64);
        out.extend_from_slice(body);
    }
    out.extend_from_slice(&proof.0);
    Bytes::from(out)
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    out.push(number as u8);
}

fn too_large(what: &'static str, size: usize, max: usize) -> Result<(), BadEnvelope> {
    if size > max {
        return Err(BadEnvelope::TooLarge { what, max });
    }
    Ok(())
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn head(&mut self) -> Result<(Header, Option<u64>), BadEnvelope> {
        let [version] = *self.take(1)? else {
            return Err(BadEnvelope::Truncated);
        };
        if version != ENVELOPE_VERSION {
            return Err(BadEnvelope::Version(version));
        }
        let mut node = [0; 32];
        node.copy_from_slice(self.take(32)?);
        let boot = self.number()?;
        let seq = self.number()?;
        let floor = self.number()?;
        let base = self.number()?.checked_sub(1);
        let header = Header {
            node: NodeId::from_bytes(node),
            version: Version { boot, seq },
            floor,
        };
        Ok((header, base))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BadEnvelope> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(BadEnvelope::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, BadEnvelope> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else {
                return Err(BadEnvelope::Truncated);
            };
            let digit = u64::from(byte & 0x7f);
            if digit << shift >> shift != digit {
                return Err(BadEnvelope::Number);
            }
            number |= digit << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(BadEnvelope::Number)
    }

    fn length(&mut self, what: &'static str, max: usize) -> Result<usize, BadEnvelope> {
        let number = self.number()?;
        let length = usize::try_from(number).unwrap_or(usize::MAX);
        too_large(what, length, max)?;
        Ok(length)
    }
}
