//! Why a command failed, and with which exit code.

use std::io;

use dunlin_api::client::ClientError;
use dunlin_api::{ErrorBody, ErrorCode, Exit};
use thiserror::Error;

use crate::contexts::ContextError;

/// Why a command failed. Whether anything changed is up to the command; a usage error means that
/// the node was not asked.
#[derive(Debug, Error)]
pub enum Failure {
    /// The words on the command line, or the file they name, make no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What would be right.
        hint: Option<String>,
    },
    /// The node could not be asked, or said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Refused here, before anything changed.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// The contexts of this user.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The answer could not be shown.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// Something of this host failed.
    #[error("{message}: {source}")]
    System {
        /// What was tried.
        message: String,
        /// The system's word.
        source: io::Error,
    },
    /// The daemon, or another part that runs in this process, ended badly and says why.
    #[error("{0}")]
    Ended(String),
}

impl Failure {
    /// A usage error without a hint.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// What the process exits with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Client(error) => error.exit(),
            Self::Refused { .. } => Exit::Refused,
            Self::Context(error) => match error {
                ContextError::BadName(_) | ContextError::Local => Exit::Usage,
                ContextError::Unknown(_) => Exit::NotFound,
                ContextError::Exists(_) | ContextError::Open { .. } => Exit::Refused,
                ContextError::Damaged { .. } | ContextError::Io { .. } => Exit::Failed,
            },
            // Whoever read the output has seen enough: `dunlin ps | head -1` is no failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) | Self::System { .. } | Self::Ended(_) => Exit::Failed,
        }
    }

    /// Whether there is anything to tell.
    pub fn is_silent(&self) -> bool {
        self.exit() == Exit::Ok
    }

    /// The failure as the API writes failures, for `--json`.
    pub fn body(&self) -> ErrorBody {
        let code = match self {
            Self::Usage { .. } => ErrorCode::BadRequest,
            Self::Client(error) => error.code(),
            Self::Context(_) => ErrorCode::Refused,
            Self::Refused { .. } => ErrorCode::Refused,
            Self::Output(_) | Self::System { .. } | Self::Ended(_) => ErrorCode::Internal,
        };
        ErrorBody {
            code,
            message: self.to_string(),
            hint: self.hint(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::Refused { hint, .. } => hint.clone(),
            Self::Client(error) => error.hint(),
            Self::Context(_) | Self::Output(_) | Self::System { .. } | Self::Ended(_) => None,
        }
    }
}
