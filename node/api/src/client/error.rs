//! What can go wrong on the way to a node, told so that a person knows what to do.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustls::CertificateError;

use super::Host;
use crate::{ErrorBody, ErrorCode, Exit};

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The text names no host; nothing was contacted.
    #[error(
        "'{text}' is not a host ({reason}): expected something like unix:///run/dunlin/api.sock or tcp://10.0.0.5:7443"
    )]
    BadHost {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nobody listens.
    #[error("no daemon answers on {host}: is `dunlin up` running?")]
    NotRunning {
        /// Whom it tried.
        host: Host,
    },
    /// The socket is there and closed to this user.
    #[error("no permission to use {host}: {advice}")]
    Denied {
        /// Whom it tried.
        host: Host,
        /// Whom the socket is open to, and what to do.
        advice: String,
    },
    /// A node of another host is only spoken to with a certificate of its cluster.
    #[error("{host} is on another host, and there is no key to speak to it with")]
    NoCredentials {
        /// Whom it should have tried.
        host: Host,
    },
    /// The key or certificate of the context is unusable.
    #[error("the key of this context cannot be used: {0}")]
    BadCredentials(String),
    /// The server is not a node of the expected cluster. Nothing was said to it.
    #[error("{host} is not trusted: {reason}")]
    Distrusted {
        /// Whom it tried.
        host: Host,
        /// Why not.
        reason: String,
    },
    /// The system failed to connect for another reason.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// Whom it tried.
        host: Host,
        /// The system's word.
        source: io::Error,
    },
    /// The connection ended before the answer did; a change may or may not have happened.
    #[error("the daemon on {host} hung up in the middle of an answer: {source}")]
    Broken {
        /// Who hung up.
        host: Host,
        /// What HTTP says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long; a change may or may not have happened.
    #[error("the daemon on {host} did not answer within {} s", after.as_secs_f32())]
    TooLate {
        /// Who did not.
        host: Host,
        /// The deadline.
        after: Duration,
    },
    /// The answer is not what this version of the contract says.
    #[error("cannot understand the answer of {host}: {detail}")]
    Garbled {
        /// Who answered.
        host: Host,
        /// What is wrong.
        detail: String,
    },
    /// The request could not be written as JSON; nothing was sent.
    #[error("cannot write the request: {0}")]
    Unwritable(serde_json::Error),
    /// The node understood and said no.
    #[error("{0}")]
    Answered(ErrorBody),
}

impl ClientError {
    /// What the command line exits with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::BadHost { .. } => Exit::Usage,
            Self::NotRunning { .. }
            | Self::Denied { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::TooLate { .. } => Exit::Unreachable,
            Self::NoCredentials { .. } | Self::Distrusted { .. } => Exit::Forbidden,
            Self::Garbled { .. } | Self::Unwritable(_) | Self::BadCredentials(_) => Exit::Failed,
            Self::Answered(body) => body.code.exit(),
        }
    }

    /// The code that programs branch on: the node's own, or one for what happened on the way.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::BadHost { .. } | Self::Unwritable(_) => ErrorCode::BadRequest,
            Self::NotRunning { .. } | Self::Connect { .. } | Self::Broken { .. } => {
                ErrorCode::Unavailable
            }
            Self::Denied { .. } | Self::NoCredentials { .. } | Self::Distrusted { .. } => {
                ErrorCode::Forbidden
            }
            Self::TooLate { .. } => ErrorCode::Timeout,
            Self::Garbled { .. } | Self::BadCredentials(_) => ErrorCode::Internal,
            Self::Answered(body) => body.code,
        }
    }

    /// What to do about it, beyond what the message says.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Answered(body) => body.hint.clone(),
            Self::NotRunning { .. } => {
                Some("start it, or name another one with --host or DUNLIN_HOST".to_owned())
            }
            Self::NoCredentials { .. } | Self::BadCredentials(_) => Some(
                "`dunlin context add NAME --host URL --ticket TICKET` makes one from a ticket of `dunlin ticket --role ROLE`"
                    .to_owned(),
            ),
            Self::TooLate { .. } => {
                Some("its host may be overloaded; the request may still take effect".to_owned())
            }
            Self::Garbled { .. } => {
                Some("`dunlin version` shows whether daemon and client differ".to_owned())
            }
            Self::BadHost { .. }
            | Self::Denied { .. }
            | Self::Distrusted { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Unwritable(_) => None,
        }
    }

    pub(super) fn broken(host: &Host, source: hyper::Error) -> Self {
        Self::Broken {
            host: host.clone(),
            source: source.into(),
        }
    }

    /// What a handshake's end means: who is no node of ours, and who does not listen to TLS.
    pub(super) fn from_tls(host: &Host, error: io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        let reason = match inner {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(why))) => {
                why.0.to_string()
            }
            Some(rustls::Error::InvalidCertificate(_)) => {
                "its certificate is not one of dunlin".to_owned()
            }
            Some(other) => format!("it does not speak TLS as dunlin does ({other})"),
            None => return Self::from_connect(host, error),
        };
        Self::Distrusted {
            host: host.clone(),
            reason,
        }
    }

    pub(super) fn from_connect(host: &Host, source: io::Error) -> Self {
        let host = host.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::NotRunning { host },
            io::ErrorKind::PermissionDenied => Self::Denied {
                advice: advice(&host),
                host,
            },
            _ => Self::Connect { host, source },
        }
    }
}

/// Whom a closed socket is open to.
fn advice(host: &Host) -> String {
    match host.socket().map(std::fs::metadata) {
        Some(Ok(meta)) => format!(
            "it belongs to user {} and group {} with mode {:04o}. Run as that user (`sudo`), or \
             join that group if the mode lets the group write",
            meta.uid(),
            meta.gid(),
            meta.mode() & 0o7777
        ),
        Some(Err(_)) | None => {
            "its directory is closed to this user. Run as the user that runs the daemon \
                   (`sudo`), or name your own daemon with --host or DUNLIN_HOST"
                .to_owned()
        }
    }
}
