//! How the words of a specification are written and read.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::{Availability, Constraint, ConstraintOp, HostPort, Phase, Protocol, RuntimeKind};

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

impl fmt::Display for ConstraintOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
        })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.key, self.op, self.value)
    }
}

impl Constraint {
    /// Prefix of the keys that name labels.
    pub const LABEL_PREFIX: &'static str = "node.labels.";

    /// The keys that name facts of a node.
    pub const FACT_KEYS: [&'static str; 5] = [
        "node.id",
        "node.hostname",
        "node.platform.os",
        "node.platform.arch",
        "node.kernel",
    ];

    /// Whether a constraint can be put on `key`.
    pub fn is_known_key(key: &str) -> bool {
        let label = key.strip_prefix(Self::LABEL_PREFIX);
        Self::FACT_KEYS.contains(&key) || label.is_some_and(|name| !name.is_empty())
    }
}

impl FromStr for Constraint {
    type Err = BadWord;

    /// Reads `node.labels.zone == north`, with or without blanks. The key is not checked here
    /// ([`Constraint::is_known_key`]).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "<key> == <value> or <key> != <value>";
        let parts = |op| {
            text.split_once(op)
                .map(|(key, value)| (key.trim(), value.trim()))
        };
        let (op, parts) = match (parts("=="), parts("!=")) {
            // Whichever comes first is the operator; the other belongs to the value.
            (Some(equal), Some(different)) if equal.0.len() < different.0.len() => {
                (ConstraintOp::Equal, equal)
            }
            (_, Some(different)) => (ConstraintOp::NotEqual, different),
            (Some(equal), None) => (ConstraintOp::Equal, equal),
            (None, None) => return Err(bad("a constraint", expected, text)),
        };
        let (key, value) = parts;
        if key.is_empty() || value.is_empty() {
            return Err(bad("a constraint", expected, text));
        }
        Ok(Self {
            key: key.to_owned(),
            op,
            value: value.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_and_written() {
        let cases = [
            ("node.labels.zone==north", "node.labels.zone == north"),
            (" node.id != abc ", "node.id != abc"),
            ("node.labels.expr == a!=b", "node.labels.expr == a!=b"),
            ("node.labels.expr != a==b", "node.labels.expr != a==b"),
        ];
        for (text, written) in cases {
            let constraint: Constraint = text.parse().unwrap();
            assert_eq!(constraint.to_string(), written);
            assert_eq!(written.parse(), Ok(constraint));
        }
        for text in ["", "node.id", "== x", "node.id ==", "node.id = x"] {
            let error = text.parse::<Constraint>().unwrap_err();
            assert!(error.to_string().contains("<key> == <value>"), "{error}");
        }
    }

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

    #[test]
    fn only_facts_and_labels_can_be_constrained() {
        assert!(Constraint::is_known_key("node.hostname"));
        assert!(Constraint::is_known_key("node.labels.zone"));
        assert!(!Constraint::is_known_key("node.labels."));
        assert!(!Constraint::is_known_key("node.role"));
    }
}
