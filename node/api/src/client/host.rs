//! Where a node's API listens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::ClientError;

/// The address of a node's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A Unix socket of this host.
    Unix(PathBuf),
    /// A TCP port, spoken to over TLS: `name:port`, `1.2.3.4:port` or `[::1]:port`.
    Tcp(String),
}

impl Host {
    /// The node that listens on this socket.
    pub fn unix(socket: impl Into<PathBuf>) -> Self {
        Self::Unix(socket.into())
    }

    /// The socket, if it is one.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
        }
    }
}

impl FromStr for Host {
    type Err = ClientError;

    /// Reads `unix:///path`, a bare absolute path, or `tcp://host:port`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |reason| ClientError::BadHost {
            text: text.to_owned(),
            reason,
        };
        let path = match text.split_once("://") {
            Some(("unix", path)) => path,
            Some(("tcp", authority)) => {
                return match is_authority(authority) {
                    true => Ok(Self::Tcp(authority.to_owned())),
                    false => Err(bad(
                        "a host and a port must follow, as in tcp://10.0.0.5:7443",
                    )),
                };
            }
            Some(_) => return Err(bad("only unix:// and tcp:// are supported")),
            None => text,
        };
        if path.is_empty() || !path.starts_with('/') {
            return Err(bad("the path must be absolute"));
        }
        Ok(Self::unix(path))
    }
}

/// Whether this is a host and a port, and not a whole URL.
fn is_authority(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_fine = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.len() <= 253 && host.chars().all(plain),
    };
    host_fine && port.parse::<u16>().is_ok_and(|port| port > 0)
}
