//! The register: one value with the stamp that orders it among all others.
//!
//! Automerge keeps every concurrent value of a key but picks its own winner by an internal counter
//! that starts anew in every document. Dunlin replaces the document when it compacts, so it
//! carries its own Lamport stamp inside the value, and [`newest`] alone decides who wins: between
//! concurrent writes of one document, and between registers of two documents that have diverged.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::NodeId;

/// The writer of changes: one life of one node. Two lives never share it, because a reused
/// (actor, sequence number) splits a document for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Actor(pub [u8; 16]);

impl Actor {
    /// The actor of `node` in its `boot`-th life.
    pub fn new(node: NodeId, boot: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("dunlin 2025 desired-state actor");
        hasher.update(node.as_bytes());
        hasher.update(&boot.to_be_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actor({self})")
    }
}

impl Actor {
    /// Reads 32 lower-case hexadecimal digits.
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| {
            serde::de::Error::custom("an actor is written as 32 lower-case hexadecimal digits")
        })
    }
}

/// When a register was written, in Lamport's sense: greater than every stamp its writer had seen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Stamp {
    /// One more than the greatest counter that its writer had seen anywhere in the document.
    pub counter: u64,
    /// Who wrote it; decides between equal counters, that is, between concurrent writes.
    pub actor: Actor,
}

/// A register as it is stored, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Register {
    /// Orders it.
    pub(super) stamp: Stamp,
    /// The person or program that asked for it.
    #[serde(default)]
    pub(super) author: String,
    /// Milliseconds since the Unix epoch by the writer's clock. For people, and for the age of
    /// tombstones; it orders nothing.
    #[serde(default)]
    pub(super) time: u64,
    /// The stamp of the value that the writer saw and replaced. It tells a value that was replaced
    /// knowingly from one that lost against a concurrent write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<Stamp>,
    /// The value; absent in a tombstone.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub(super) value: serde_json::Value,
}

impl Register {
    /// Reads a stored register, whatever its value is. A signed one is read without its
    /// signature, which was checked when it came in.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let signed = dunlin_trust::Signed::decode(bytes);
        serde_json::from_slice(signed.map_or(bytes, |signed| signed.text))
    }

    /// Whether it says that the aspect is gone.
    pub(super) fn is_tombstone(&self) -> bool {
        self.value.is_null()
    }

    /// As stored.
    pub(super) fn encode(&self) -> Bytes {
        // A struct of strings, numbers and JSON values always serializes.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// The order of registers, in the one place that decides it: the greater stamp wins. Equal stamps
/// mean the same write, carried over by several nodes; the bytes decide between those that only an
/// attacker can make differ, and what is no register at all loses against everything.
pub(super) fn newest(values: Vec<Bytes>) -> Option<(Bytes, Result<Register, serde_json::Error>)> {
    values
        .into_iter()
        .map(|bytes| {
            let register = Register::decode(&bytes);
            (bytes, register)
        })
        .max_by(|(a_bytes, a), (b_bytes, b)| {
            let stamp = |r: &Result<Register, _>| r.as_ref().ok().map(|r| r.stamp);
            (stamp(a), a_bytes).cmp(&(stamp(b), b_bytes))
        })
}
