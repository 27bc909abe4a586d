//! A change from outside, inspected before automerge's document sees it.

use automerge::legacy::{Key, ObjectId, OpType};
use automerge::{Change, ScalarValue};
use bytes::Bytes;
use thiserror::Error;

use super::super::keys::{FORMAT_KEY, MAX_KEY_BYTES};
use super::super::validate::MAX_REGISTER_BYTES;
use super::chunk::check_change;
use super::{EngineFault, Hash, contained};

/// Operations in one change. The largest honest one is a carry-over after a partition.
const MAX_OPS: usize = 100_000;

/// Why a change is not acceptable in any document.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(in super::super) enum InspectError {
    /// Automerge cannot read it.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It does what Dunlin's changes never do.
    #[error("{0}")]
    Shape(&'static str),
}

/// A change of the right shape that has not been applied yet.
#[derive(Debug, Clone)]
pub(in super::super) struct Incoming {
    pub(super) change: Change,
    /// The counter of its last operation.
    pub(in super::super) max_op: u64,
    /// Its hash.
    pub(in super::super) hash: Hash,
    /// Changes it builds on.
    pub(in super::super) deps: Vec<Hash>,
    /// Its writer.
    pub(in super::super) actor: Vec<u8>,
    /// Its number among the changes of its writer.
    pub(in super::super) seq: u64,
    /// The counter of its first operation.
    pub(in super::super) start_op: u64,
    /// The keys it writes.
    pub(in super::super) keys: Vec<String>,
    /// The values it writes, in the order of the keys.
    pub(in super::super) values: Vec<Bytes>,
    /// As encoded.
    pub(in super::super) bytes: Bytes,
}

impl Incoming {
    /// Decodes and checks a change without applying it.
    pub(in super::super) fn inspect(bytes: Bytes) -> Result<Self, InspectError> {
        let result = contained(|| {
            check_change(&bytes)?;
            let change =
                Change::try_from(&bytes[..]).map_err(|e| EngineFault::Refused(e.to_string()))?;
            Ok(Self::read(change, bytes))
        });
        match result {
            Ok(read) => read,
            Err(fault) => Err(InspectError::Unreadable(fault.to_string())),
        }
    }

    /// What it writes where.
    pub(in super::super) fn writes(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.keys.iter().map(String::as_str).zip(&self.values)
    }

    /// The same for a change that our own document has just made.
    pub(super) fn of_change(change: Change) -> Result<Self, InspectError> {
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        Self::read(change, bytes)
    }

    fn read(change: Change, bytes: Bytes) -> Result<Self, InspectError> {
        if change.len() > MAX_OPS {
            return Err(InspectError::Shape("it has too many operations"));
        }
        if change.deps().is_empty() {
            return Err(InspectError::Shape("it starts a document of its own"));
        }
        let actor = AsRef::<[u8]>::as_ref(change.actor_id()).to_vec();
        if actor.len() != 16 || change.author().is_some() {
            return Err(InspectError::Shape(
                "its writer is not identified as Dunlin does it",
            ));
        }
        let mut keys = Vec::new();
        let mut values = Vec::new();
        for op in change.decode().operations {
            let Key::Map(key) = op.key else {
                return Err(InspectError::Shape("it writes into a list"));
            };
            if op.obj != ObjectId::Root || op.insert {
                return Err(InspectError::Shape("it writes into a nested object"));
            }
            if key.len() > MAX_KEY_BYTES || key == FORMAT_KEY {
                return Err(InspectError::Shape(
                    "it writes a key that is too long or reserved",
                ));
            }
            match op.action {
                OpType::Put(ScalarValue::Bytes(value)) if value.len() <= MAX_REGISTER_BYTES => {
                    values.push(Bytes::from(value));
                }
                OpType::Put(ScalarValue::Bytes(_)) => {
                    return Err(InspectError::Shape("it writes a value that is too large"));
                }
                // Whoever could delete without a signature could undo what others signed.
                OpType::Delete => return Err(InspectError::Shape("it deletes a key")),
                OpType::Put(_)
                | OpType::Make(_)
                | OpType::Increment(_)
                | OpType::MarkBegin(_)
                | OpType::MarkEnd(_) => {
                    return Err(InspectError::Shape("it writes something other than bytes"));
                }
            }
            keys.push(key.to_string());
        }
        Ok(Self {
            max_op: change.max_op(),
            hash: change.hash().0,
            deps: change.deps().iter().map(|d| d.0).collect(),
            actor,
            seq: change.seq(),
            start_op: change.start_op().get(),
            keys,
            values,
            bytes,
            change,
        })
    }
}
