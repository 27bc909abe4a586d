//! What goes wrong, in a form that programs can branch on and people can read.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{message}")]
pub struct ErrorBody {
    /// What kind of failure it is; fixed for programs to branch on.
    pub code: ErrorCode,
    /// What happened, for a person.
    pub message: String,
    /// What to do about it, when something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ErrorBody {
    /// A failure without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same with a word on what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The kinds of failure. Each has one HTTP status and one exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be read: malformed JSON, a bad name, a bad query.
    BadRequest,
    /// The request can be read and asks for something that makes no sense, such as a limit below
    /// its reservation.
    Invalid,
    /// The caller may not do this.
    Forbidden,
    /// No such route.
    NoSuchRoute,
    /// No such service.
    NoSuchService,
    /// No such node.
    NoSuchNode,
    /// No such slot of that service.
    NoSuchSlot,
    /// No such secret, config or volume.
    NoSuchItem,
    /// The text names more than one thing; the message lists the candidates.
    Ambiguous,
    /// It contradicts what is there.
    Conflict,
    /// It is understood and refused, for a reason that the message states.
    Refused,
    /// The body is larger than the node accepts.
    TooLarge,
    /// The node's disk did not accept the change; nothing has changed.
    NotDurable,
    /// The node has too much to do; nothing has changed and it may be tried again.
    Busy,
    /// The node is starting or stopping; nothing has changed.
    Unavailable,
    /// Another node, which had to be asked, did not answer.
    PeerUnreachable,
    /// The answer did not come in time; the change may or may not have happened.
    Timeout,
    /// A defect of the node.
    #[serde(other)]
    Internal,
}

impl ErrorCode {
    /// All kinds, for tests and documentation.
    pub const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::Invalid,
        Self::Forbidden,
        Self::NoSuchRoute,
        Self::NoSuchService,
        Self::NoSuchNode,
        Self::NoSuchSlot,
        Self::NoSuchItem,
        Self::Ambiguous,
        Self::Conflict,
        Self::Refused,
        Self::TooLarge,
        Self::NotDurable,
        Self::Busy,
        Self::Unavailable,
        Self::PeerUnreachable,
        Self::Timeout,
        Self::Internal,
    ];

    /// The HTTP status that goes with it.
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NoSuchRoute
            | Self::NoSuchService
            | Self::NoSuchNode
            | Self::NoSuchSlot
            | Self::NoSuchItem => 404,
            Self::Ambiguous | Self::Conflict | Self::Refused => 409,
            Self::TooLarge => 413,
            Self::Invalid => 422,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::PeerUnreachable => 502,
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::NotDurable => 507,
        }
    }

    /// What the command line exits with.
    pub const fn exit(self) -> Exit {
        match self {
            Self::NoSuchService | Self::NoSuchNode | Self::NoSuchSlot | Self::NoSuchItem => {
                Exit::NotFound
            }
            Self::Forbidden => Exit::Forbidden,
            Self::Ambiguous | Self::Conflict | Self::Refused | Self::Invalid | Self::TooLarge => {
                Exit::Refused
            }
            Self::Timeout => Exit::TimedOut,
            Self::Unavailable | Self::PeerUnreachable => Exit::Unreachable,
            Self::BadRequest
            | Self::NoSuchRoute
            | Self::NotDurable
            | Self::Busy
            | Self::Internal => Exit::Failed,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(text)) => f.write_str(&text),
            Ok(_) | Err(_) => f.write_str("internal"),
        }
    }
}

/// The exit codes of the command line. Scripts rely on them, so that they never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// It worked.
    Ok,
    /// Something went wrong that has no code of its own.
    Failed,
    /// The words on the command line, or the file they name, make no sense.
    Usage,
    /// The daemon, or a node that had to be asked, does not answer.
    Unreachable,
    /// What was asked for is under way and was not reached in time.
    TimedOut,
    /// No such service, node, slot, secret or config.
    NotFound,
    /// Understood and refused: a conflict, an ambiguous name, an invalid specification.
    Refused,
    /// The caller may not do this, or one side does not trust the other's certificate.
    Forbidden,
    /// Ctrl-C ended the waiting; what was asked for goes on. As shells count: 128 + SIGINT.
    Interrupted,
    /// The exit code of the command that `dunlin exec` ran; 128 + n for signal n.
    Command(u8),
}

impl Exit {
    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::TimedOut => 4,
            Self::NotFound => 5,
            Self::Refused => 6,
            Self::Forbidden => 7,
            Self::Interrupted => 130,
            Self::Command(code) => code,
        }
    }
}
