//! Logs of replicas, as asked for and answered.

use dunlin_core::io::WorkloadId;
use dunlin_state::model::SlotId;
use thiserror::Error;

/// The least that [`LogQuery::max_bytes`] is taken as: room for the longest line.
const MIN_CHUNK_BYTES: usize = 64 * 1024;
/// The most.
const MAX_CHUNK_BYTES: usize = 1024 * 1024;

/// Which part of which log.
#[derive(Debug, Clone)]
pub struct LogQuery {
    /// Whose.
    pub slot: SlotId,
    /// Epoch and attempt; the newest on this node when absent.
    pub attempt: Option<(u64, u32)>,
    /// [`LogChunk::next`] of the piece before; from the start when absent. If that part is gone
    /// meanwhile, reading goes on with the oldest that is left.
    pub cursor: Option<u64>,
    /// Without a cursor: only so many of the last lines.
    pub tail: Option<u32>,
    /// About how much to return, between 64 KiB and 1 MiB.
    pub max_bytes: usize,
}

impl LogQuery {
    /// The whole log of the newest attempt, from its start.
    pub fn new(slot: SlotId) -> Self {
        Self {
            slot,
            attempt: None,
            cursor: None,
            tail: None,
            max_bytes: MIN_CHUNK_BYTES,
        }
    }

    pub(super) fn budget(&self) -> usize {
        self.max_bytes.clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)
    }
}

/// A piece of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The attempt it is from. A follower that sees the end asks for the newest attempt again.
    pub id: WorkloadId,
    /// Its lines.
    pub lines: Vec<LogLine>,
    /// Cursor for the piece after; only meaningful for this attempt.
    pub next: u64,
    /// Whether the attempt has ended and nothing follows.
    pub eof: bool,
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Milliseconds since the Unix epoch, by this node's clock.
    pub at: u64,
    /// Where the replica wrote it to.
    pub stream: LogStream,
    /// The text without its line end; whatever bytes the replica wrote.
    pub text: Vec<u8>,
    /// Whether the line was too long and goes on in the next one of this stream.
    pub partial: bool,
}

/// Standard output or error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Why a log cannot be read.
#[derive(Debug, Error)]
pub enum LogError {
    /// No attempt of this slot is on this node.
    #[error("this node has no log of {0}")]
    Unknown(SlotId),
    /// The disk or the engine failed.
    #[error("cannot read the log of {slot}: {reason}")]
    Unreadable {
        /// Whose.
        slot: SlotId,
        /// Why.
        reason: String,
    },
}
