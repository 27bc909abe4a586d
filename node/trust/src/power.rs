//! What a key may do, and which power may grant which.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::encode::{Malformed, Reader};

/// Namespaces in one certificate; who needs more is an operator of all.
const MAX_NAMESPACES: usize = 32;
/// Bytes of a namespace: a DNS label (RFC 1035).
const MAX_NAMESPACE: usize = 63;

/// Where an operator may write. Names match exactly; there are no patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// Everywhere.
    All,
    /// In these only.
    Only(BTreeSet<String>),
}

/// What a person hands out with a ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Runs workloads, admits other nodes, and writes nothing but what a node must.
    Node,
    /// A node (or a person) that may read everything.
    Viewer,
    /// May deploy, scale, stop and remove services.
    Operator(Namespaces),
    /// May do everything, also remove members and hand out every role.
    Admin,
}

/// What a certificate says that its subject may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// A role.
    Role(Role),
    /// The key that all members share for the one purpose of admitting nodes. The number is the
    /// epoch of the keyring that it belongs to.
    Admission(u64),
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is no role: use node, viewer, operator, operator:NAMESPACE[,NAMESPACE…] or admin")]
pub struct BadRole(pub String);

const NODE: u8 = 1;
const VIEWER: u8 = 2;
const OPERATOR_ALL: u8 = 3;
const OPERATOR_ONLY: u8 = 4;
const ADMIN: u8 = 5;
const ADMISSION: u8 = 6;

impl Power {
    /// Whether a key with this power may sign a certificate that grants `granted`. The root key
    /// may grant everything and is not asked here.
    pub fn may_issue(&self, granted: &Self) -> bool {
        match self {
            Self::Role(Role::Admin) => true,
            // Admits nodes and nothing else: this key is on every host.
            Self::Admission(_) => matches!(granted, Self::Role(Role::Node)),
            Self::Role(Role::Node | Role::Viewer | Role::Operator(_)) => false,
        }
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Role(Role::Node) => to.push(NODE),
            Self::Role(Role::Viewer) => to.push(VIEWER),
            Self::Role(Role::Operator(Namespaces::All)) => to.push(OPERATOR_ALL),
            Self::Role(Role::Operator(Namespaces::Only(names))) => {
                to.push(OPERATOR_ONLY);
                to.push(u8::try_from(names.len()).unwrap_or(u8::MAX));
                for name in names {
                    to.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
                    to.extend_from_slice(name.as_bytes());
                }
            }
            Self::Role(Role::Admin) => to.push(ADMIN),
            Self::Admission(epoch) => {
                to.push(ADMISSION);
                to.extend_from_slice(&epoch.to_be_bytes());
            }
        }
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.u8()? {
            NODE => Self::Role(Role::Node),
            VIEWER => Self::Role(Role::Viewer),
            OPERATOR_ALL => Self::Role(Role::Operator(Namespaces::All)),
            OPERATOR_ONLY => Self::Role(Role::Operator(Namespaces::Only(read_names(from)?))),
            ADMIN => Self::Role(Role::Admin),
            ADMISSION => Self::Admission(from.u64()?),
            _ => {
                return Err(Malformed(
                    "it grants something that this version does not know",
                ));
            }
        })
    }
}

fn read_names(from: &mut Reader<'_>) -> Result<BTreeSet<String>, Malformed> {
    let count = usize::from(from.u8()?);
    if count == 0 || count > MAX_NAMESPACES {
        return Err(Malformed("it names no namespace, or too many"));
    }
    let mut names = BTreeSet::new();
    for _ in 0..count {
        let len = usize::from(from.u8()?);
        let name = std::str::from_utf8(from.bytes(len)?)
            .ok()
            .filter(|name| is_namespace(name))
            .ok_or(Malformed("a namespace is no name"))?;
        // Only the ordered list without repetitions is an encoding.
        if names
            .last()
            .is_some_and(|last: &String| last.as_str() >= name)
        {
            return Err(Malformed("its namespaces are out of order"));
        }
        names.insert(name.to_owned());
    }
    Ok(names)
}

fn is_namespace(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=MAX_NAMESPACE).contains(&name.len()) && name.chars().all(fine)
}

impl Role {
    /// Whether it may write in this namespace.
    pub fn may_write_in(&self, namespace: &str) -> bool {
        match self {
            Self::Admin | Self::Operator(Namespaces::All) => true,
            Self::Operator(Namespaces::Only(names)) => names.contains(namespace),
            Self::Node | Self::Viewer => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Viewer => f.write_str("viewer"),
            Self::Operator(Namespaces::All) => f.write_str("operator"),
            Self::Operator(Namespaces::Only(names)) => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                write!(f, "operator:{}", names.join(","))
            }
            Self::Admin => f.write_str("admin"),
        }
    }
}

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        let bad = || BadRole(text.chars().take(100).collect());
        Ok(match text {
            "node" => Self::Node,
            "viewer" => Self::Viewer,
            "operator" => Self::Operator(Namespaces::All),
            "admin" => Self::Admin,
            _ => {
                let names = text.strip_prefix("operator:").ok_or_else(bad)?;
                let names: BTreeSet<String> = names.split(',').map(str::to_owned).collect();
                if names.len() > MAX_NAMESPACES || !names.iter().all(|name| is_namespace(name)) {
                    return Err(bad());
                }
                Self::Operator(Namespaces::Only(names))
            }
        })
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => role.fmt(f),
            Self::Admission(_) => f.write_str("admission"),
        }
    }
}
