//! Commands beside a replica: what travels both ways while one runs.
//!
//! The request and the answer of [`crate::routes::SERVICE_EXEC`] are both streams of frames, at the
//! same time: one byte says what a frame is, four bytes (big-endian) how long its content is, at
//! most [`MAX_FRAME`]. The first frame of the request is [`ExecFrame::Start`]; the answer begins
//! with [`ExecFrame::Started`] once the replica was found, and ends with [`ExecFrame::Exit`] or
//! [`ExecFrame::Failed`]. A side from which nothing was heard for [`SILENCE`] is taken for gone, so
//! each sends [`ExecFrame::Ping`] every [`PING_EVERY`]. Closing the connection, or ending the request,
//! ends the command; so the request goes on until the last frame of the answer was read.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use dunlin_state::model::{NodeId, Slot};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::ErrorBody;

/// How both bodies are marked.
pub const EXEC_TYPE: &str = "application/vnd.dunlin.exec";

/// Bytes of the content of a frame.
pub const MAX_FRAME: usize = 64 * 1024;

/// Bytes before the content.
const HEAD: usize = 5;

/// Time between two pings.
pub const PING_EVERY: Duration = Duration::from_secs(3);

/// Silence after which the other side is taken for gone: some pings may be late.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Which command to run, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ExecStart {
    /// Beside which replica: its slot, or the name of its node; any that runs when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    /// Whether input will come; the command reads nothing otherwise.
    pub stdin: bool,
    /// Gives the command a terminal of this size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
    /// Variables beyond those of the replica.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// `user[:group]` instead of the replica's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A directory instead of the replica's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// Beside which replica the command runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecStarted {
    /// The replica's slot.
    pub slot: Slot,
    /// Its node.
    pub node: NodeId,
    /// That node's name.
    pub node_name: String,
}

/// What travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecFrame {
    /// To the command: what to run.
    Start(Box<ExecStart>),
    /// To the command: input.
    Input(Bytes),
    /// To the command: no more input comes.
    InputEnd,
    /// To the command: the terminal has another size.
    Resize(TerminalSize),
    /// Either way: somebody is there.
    Ping,
    /// From the command: it is about to run.
    Started(Box<ExecStarted>),
    /// From the command: standard output, or all output with a terminal.
    Output(Bytes),
    /// From the command: standard error.
    Error(Bytes),
    /// From the command: its exit code, 128 + n for signal n. Nothing follows.
    Exit(i32),
    /// From the command: it could not be run, or not to its end. Nothing follows.
    Failed(ErrorBody),
}

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadFrame {
    /// Its kind is not known.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// It is too long.
    #[error("a frame of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLong(usize),
    /// Its content is not what its kind says.
    #[error("a frame cannot be read: {0}")]
    Content(String),
}

const START: u8 = 1;
const INPUT: u8 = 2;
const INPUT_END: u8 = 3;
const RESIZE: u8 = 4;
const PING: u8 = 5;
const STARTED: u8 = 6;
const OUTPUT: u8 = 7;
const ERROR: u8 = 8;
const EXIT: u8 = 9;
const FAILED: u8 = 10;

impl ExecFrame {
    /// As it travels. Input and output must not be longer than [`MAX_FRAME`]; whoever reads the
    /// frame refuses it otherwise.
    pub fn encode(&self) -> Bytes {
        let json =
            |value: Result<Vec<u8>, serde_json::Error>| Bytes::from(value.unwrap_or_default());
        let (kind, content) = match self {
            Self::Start(start) => (START, json(serde_json::to_vec(start))),
            Self::Input(bytes) => (INPUT, bytes.clone()),
            Self::InputEnd => (INPUT_END, Bytes::new()),
            Self::Resize(size) => (RESIZE, json(serde_json::to_vec(size))),
            Self::Ping => (PING, Bytes::new()),
            Self::Started(started) => (STARTED, json(serde_json::to_vec(started))),
            Self::Output(bytes) => (OUTPUT, bytes.clone()),
            Self::Error(bytes) => (ERROR, bytes.clone()),
            Self::Exit(code) => (EXIT, Bytes::copy_from_slice(&code.to_be_bytes())),
            Self::Failed(body) => (FAILED, json(serde_json::to_vec(body))),
        };
        let mut frame = BytesMut::with_capacity(HEAD + content.len());
        frame.put_u8(kind);
        frame.put_u32(u32::try_from(content.len()).unwrap_or(u32::MAX));
        frame.put(content);
        frame.freeze()
    }

    fn decode(kind: u8, content: Bytes) -> Result<Self, BadFrame> {
        Ok(match kind {
            START => Self::Start(Box::new(read(&content)?)),
            INPUT => Self::Input(content),
            INPUT_END => Self::InputEnd,
            RESIZE => Self::Resize(read(&content)?),
            PING => Self::Ping,
            STARTED => Self::Started(Box::new(read(&content)?)),
            OUTPUT => Self::Output(content),
            ERROR => Self::Error(content),
            EXIT => {
                let bytes = <[u8; 4]>::try_from(content.as_ref());
                let bytes = bytes.map_err(|bad| BadFrame::Content(bad.to_string()))?;
                Self::Exit(i32::from_be_bytes(bytes))
            }
            FAILED => Self::Failed(read(&content)?),
            unknown => return Err(BadFrame::Kind(unknown)),
        })
    }
}

fn read<T: for<'a> Deserialize<'a>>(content: &[u8]) -> Result<T, BadFrame> {
    serde_json::from_slice(content).map_err(|error| BadFrame::Content(error.to_string()))
}

/// Finds the frames in bytes that come in pieces. It holds at most one frame and what it was given
/// with the last piece.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Takes the bytes that come next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, once it is whole.
    ///
    /// # Errors
    /// When the bytes are no frame; nothing that follows can be read then.
    pub fn take(&mut self) -> Result<Option<ExecFrame>, BadFrame> {
        let Some((head, _)) = self.buffer.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(BadFrame::TooLong(length));
        }
        if self.buffer.len() < HEAD + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let content = self.buffer.split_to(length).freeze();
        ExecFrame::decode(kind, content).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    fn all() -> Vec<ExecFrame> {
        let size = TerminalSize {
            rows: 24,
            columns: 80,
        };
        let start = ExecStart {
            slot: Some("3".into()),
            command: vec!["sh".into(), "-c".into(), "exit 3".into()],
            stdin: true,
            terminal: Some(size),
            environment: [("A".to_owned(), "b".to_owned())].into(),
            user: Some("nobody".into()),
            working_dir: Some("/".into()),
        };
        let started = ExecStarted {
            slot: Slot::Replica(3),
            node: NodeId::from_bytes([3; 32]),
            node_name: "n3".into(),
        };
        vec![
            ExecFrame::Start(Box::new(start)),
            ExecFrame::Input(Bytes::from_static(b"in")),
            ExecFrame::InputEnd,
            ExecFrame::Resize(size),
            ExecFrame::Ping,
            ExecFrame::Started(Box::new(started)),
            ExecFrame::Output(Bytes::from(vec![7; MAX_FRAME])),
            ExecFrame::Error(Bytes::new()),
            ExecFrame::Exit(-1),
            ExecFrame::Failed(ErrorBody::new(ErrorCode::NoSuchSlot, "no")),
        ]
    }

    #[test]
    fn frames_are_read_as_written_however_they_are_cut() {
        let bytes: Vec<u8> = all().iter().flat_map(ExecFrame::encode).collect();
        for piece in [1, 2, 7, 1_000, bytes.len()] {
            let mut reader = FrameReader::default();
            let mut found = Vec::new();
            for part in bytes.chunks(piece) {
                reader.push(part);
                while let Some(frame) = reader.take().unwrap() {
                    found.push(frame);
                }
            }
            assert!(found == all(), "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let refused = |bytes: &[u8]| {
            let mut reader = FrameReader::default();
            reader.push(bytes);
            reader.take().unwrap_err()
        };
        assert_eq!(refused(&[0, 0, 0, 0, 0]), BadFrame::Kind(0));
        assert_eq!(refused(&[11, 0, 0, 0, 0]), BadFrame::Kind(11));
        assert_eq!(
            refused(&[INPUT, 0, 1, 0, 1]),
            BadFrame::TooLong(MAX_FRAME + 1)
        );
        for kind in [START, RESIZE, STARTED, EXIT, FAILED] {
            let error = refused(&[kind, 0, 0, 0, 1, b'{']);
            assert!(matches!(error, BadFrame::Content(_)), "{kind}: {error:?}");
        }
    }
}
