//! How the words of a specification are written and read.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Availability, HostPort, Phase, Protocol, RuntimeKind};

/// A word that is none of those expected.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{found}' is not {what}; expected {expected}")]
pub struct BadWord {
    /// What was to be read.
    pub what: &'static str,
    /// What would have been fine.
    pub expected: &'static str,
    /// What was found, cut to 80 characters.
    pub found: String,
}

fn bad(what: &'static str, expected: &'static str, found: &str) -> BadWord {
    BadWord {
        what,
        expected,
        found: found.chars().take(80).collect(),
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Process => "process",
            Self::Docker => "docker",
        })
    }
}

impl FromStr for RuntimeKind {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "process" => Ok(Self::Process),
            "docker" => Ok(Self::Docker),
            other => Err(bad("a runtime", "auto, process or docker", other)),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = BadWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            other => Err(bad("a protocol", "tcp or udp", other)),
        }
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Cordoned => "cordoned",
            Self::Drained => "drained",
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Claimed => "claimed",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::BackOff => "back-off",
            Self::CrashLoop => "crash-loop",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_written() {
        for kind in [RuntimeKind::Auto, RuntimeKind::Process, RuntimeKind::Docker] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        let error = "podman".parse::<RuntimeKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "'podman' is not a runtime; expected auto, process or docker"
        );
    }
}
