//! Where a node's API listens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::ClientError;

/// The address of a node's API. For now it is always a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    socket: PathBuf,
}

impl Host {
    /// The node that listens on this socket.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.socket.display())
    }
}

impl FromStr for Host {
    type Err = ClientError;

    /// Reads `unix:///path`, or a bare absolute path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |reason| ClientError::BadHost {
            text: text.to_owned(),
            reason,
        };
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
            Some(_) => return Err(bad("only unix:// is supported")),
            None => text,
        };
        if path.is_empty() || !path.starts_with('/') {
            return Err(bad("the path must be absolute"));
        }
        Ok(Self::unix(path))
    }
}
