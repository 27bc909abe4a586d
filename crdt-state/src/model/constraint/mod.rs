//! Conditions on nodes, such as `node.labels.zone in (north, south)` or `node.kernel >= 6.1`.
//!
//! A [`Constraint`] is a key, an operator and a value. It is kept as text, as people write it, and
//! asked for each node whether it [holds](Constraint::holds). Two of them may exclude each other
//! whatever a node is like: [`contradiction`] finds that.

mod compare;
mod contradict;
mod parse;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

pub use contradict::contradiction;
pub use parse::BadConstraint;

/// Bytes that a compiled pattern may take, and as many again for its cache: patterns come from
/// other members, and a few characters can describe a machine of many megabytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Parentheses inside each other in a pattern.
const MAX_PATTERN_DEPTH: u32 = 32;

/// A condition on a node's facts and labels.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Constraint {
    /// One of [`Constraint::FACT_KEYS`], `node.labels.<key>` or `node.devices.<name>`.
    key: String,
    /// The comparison.
    op: ConstraintOp,
    /// What to compare with; for `in` and `not in` several values with commas between them.
    value: String,
    /// The pattern of `=~` and `!~`, compiled when it is first needed; `None` when it cannot be.
    #[serde(skip)]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pattern: OnceLock<Option<Regex>>,
}

/// Comparison of a [`Constraint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ConstraintOp {
    /// `==`: equal; an absent label equals nothing.
    Equal,
    /// `!=`: different or absent.
    NotEqual,
    /// `in (a, b)`: equal to one of them.
    In,
    /// `not in (a, b)`: equal to none of them, or absent.
    NotIn,
    /// `=~`: the pattern is found in it.
    Matches,
    /// `!~`: the pattern is not found in it, or it is absent.
    MatchesNot,
    /// `<`: a smaller number or an earlier version. These four hold for nothing that is absent or
    /// no number.
    Less,
    /// `<=`: as small a number or as early a version.
    AtMost,
    /// `>`: a greater number or a later version.
    Greater,
    /// `>=`: as great a number or as late a version.
    AtLeast,
}

impl Constraint {
    /// Prefix of the keys that name labels.
    pub const LABEL_PREFIX: &'static str = "node.labels.";

    /// Prefix of the keys that name kinds of devices; the fact is how many there are.
    pub const DEVICE_PREFIX: &'static str = "node.devices.";

    /// The keys that name facts of a node.
    pub const FACT_KEYS: [&'static str; 10] = [
        "node.id",
        "node.hostname",
        "node.platform.os",
        "node.platform.arch",
        "node.distribution",
        "node.kernel",
        "node.engine",
        "node.cpus",
        "node.memory",
        "node.disk",
    ];

    /// A condition. Whether it makes sense is checked apart ([`Self::fault`]).
    pub fn new(key: impl Into<String>, op: ConstraintOp, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            op,
            value: value.into(),
            pattern: OnceLock::new(),
        }
    }

    /// What it is about.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    pub fn op(&self) -> ConstraintOp {
        self.op
    }

    /// What it compares with, as it was written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The values of `in` and `not in`; of the other operators the one value.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        let several = self.op.takes_list();
        let several = several.then(|| self.value.split(',').map(str::trim));
        let one = several.is_none().then_some(self.value.as_str());
        several.into_iter().flatten().chain(one)
    }

    /// Whether a constraint can be put on `key`.
    pub fn is_known_key(key: &str) -> bool {
        let named = |prefix| {
            key.strip_prefix(prefix)
                .is_some_and(|name| !name.is_empty())
        };
        Self::FACT_KEYS.contains(&key) || named(Self::LABEL_PREFIX) || named(Self::DEVICE_PREFIX)
    }

    /// The compiled pattern, `None` when it is none.
    fn pattern(&self) -> Option<&Regex> {
        let compiled = self.pattern.get_or_init(|| compile(&self.value).ok());
        compiled.as_ref()
    }

    /// What compares equal.
    fn parts(&self) -> (&str, ConstraintOp, &str) {
        (&self.key, self.op, &self.value)
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES)
        .nest_limit(MAX_PATTERN_DEPTH)
        .build()
}

impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Constraint {}

impl PartialOrd for Constraint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Constraint {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Constraint({self})")
    }
}

impl ConstraintOp {
    /// Whether it compares with several values.
    fn takes_list(self) -> bool {
        match self {
            Self::In | Self::NotIn => true,
            Self::Equal
            | Self::NotEqual
            | Self::Matches
            | Self::MatchesNot
            | Self::Less
            | Self::AtMost
            | Self::Greater
            | Self::AtLeast => false,
        }
    }
}

impl fmt::Display for ConstraintOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::In => "in",
            Self::NotIn => "not in",
            Self::Matches => "=~",
            Self::MatchesNot => "!~",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        })
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, op, value, .. } = self;
        match op {
            ConstraintOp::In | ConstraintOp::NotIn => write!(f, "{key} {op} ({value})"),
            ConstraintOp::Equal
            | ConstraintOp::NotEqual
            | ConstraintOp::Matches
            | ConstraintOp::MatchesNot
            | ConstraintOp::Less
            | ConstraintOp::AtMost
            | ConstraintOp::Greater
            | ConstraintOp::AtLeast => write!(f, "{key} {op} {value}"),
        }
    }
}
