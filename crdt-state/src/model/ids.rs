//! Names of things: nodes, services, slots.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// A node's identity: its ed25519 public key. An address is only a hint; this is who it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId([u8; 32]);

/// By bytes, as derived; but written so that two different keys are told apart by one comparison of
/// numbers, and equal ones by two, without a call. Maps of nodes are what a large cluster spends
/// its time in.
impl Ord for NodeId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.halves().cmp(&other.halves())
    }
}

impl PartialOrd for NodeId {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A text that is no [`NodeId`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not a node id: expected 52 characters of a-z and 2-7")]
pub struct BadNodeId(pub String);

impl NodeId {
    /// The node with this ed25519 public key.
    pub const fn from_bytes(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The ed25519 public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    #[inline]
    fn halves(&self) -> (u128, u128) {
        let (halves, _none) = self.0.as_chunks();
        let [first, second] = [0, 1].map(|half: usize| u128::from_be_bytes(halves[half]));
        (first, second)
    }

    /// The first ten characters of the textual form: enough for a person to tell nodes apart.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = data_encoding::BASE32_NOPAD.encode(&self.0);
        f.write_str(&text.to_ascii_lowercase())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = BadNodeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = data_encoding::BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_not_base32| BadNodeId(text.to_owned()))?;
        let key = bytes
            .try_into()
            .map_err(|_other_length| BadNodeId(text.to_owned()))?;
        Ok(Self(key))
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = NodeId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a node id")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<NodeId, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<NodeId, E> {
                let key = bytes
                    .try_into()
                    .map_err(|_other_length| E::invalid_length(bytes.len(), &"32 bytes"))?;
                Ok(NodeId(key))
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

/// A name that breaks the rules of DNS labels (RFC 1123).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{name}' is not a valid {what} name: use 1 to 63 of a-z, 0-9 and '-', and neither start nor end with '-'"
)]
pub struct BadName {
    /// What the name was for: `service`, `namespace`, `node`.
    pub what: &'static str,
    /// The offending text, cut to 80 characters.
    pub name: String,
}

/// A service's full name. Both parts are DNS labels, so that every service has a host name. A node
/// keeps the name of a service in many places, so copies share one text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceKey {
    /// `namespace/name`.
    text: Arc<str>,
    /// Bytes of the namespace.
    split: u32,
    /// A hash of the text, see [`Self::quick_hash`].
    hash: u32,
}

impl ServiceKey {
    /// The namespace of services that name none.
    pub const DEFAULT_NAMESPACE: &'static str = "default";

    /// Checks both parts against RFC 1123.
    pub fn new(namespace: &str, name: &str) -> Result<Self, BadName> {
        check_label("namespace", namespace)?;
        check_label("service", name)?;
        let text: Arc<str> = format!("{namespace}/{name}").into();
        Ok(Self {
            // A label: 63 bytes at the most.
            split: namespace.len() as u32,
            hash: fnv(text.as_bytes()),
            text,
        })
    }

    /// The same for equal names, and mostly another one for others: a quick no, for which the text
    /// need not be looked at. Names can be chosen to share one, so nothing but speed may rest on it.
    #[inline]
    pub const fn quick_hash(&self) -> u32 {
        self.hash
    }

    /// `namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The namespace part.
    pub fn namespace(&self) -> &str {
        self.parts().0
    }

    /// The service part.
    pub fn name(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        let (namespace, rest) = self.text.split_at(self.split as usize);
        (namespace, rest.strip_prefix('/').unwrap_or(rest))
    }
}

impl PartialEq for ServiceKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // No label has a slash: equal texts are equal names.
        self.hash == other.hash && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for ServiceKey {}

/// By namespace, then by name.
impl Ord for ServiceKey {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.text, &other.text) {
            Ordering::Equal
        } else if self.split == other.split {
            // The slashes stand at the same place: one comparison does for both parts.
            self.text.cmp(&other.text)
        } else {
            self.parts().cmp(&other.parts())
        }
    }
}

impl PartialOrd for ServiceKey {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for ServiceKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// FNV-1a of 32 bits (Fowler, Noll, Vo), its upper half folded into the lower one.
fn fnv(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    hash ^ (hash >> 16)
}

/// Checks that `name` is a DNS label (RFC 1123); `what` names its use in the error.
pub fn check_label(what: &'static str, name: &str) -> Result<(), BadName> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let edge = |c: Option<&u8>| c.is_some_and(|c| *c != b'-');
    let bytes = name.as_bytes();
    let fine = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|c| inner(*c))
        && edge(bytes.first())
        && edge(bytes.last());
    if fine {
        Ok(())
    } else {
        Err(BadName {
            what,
            name: name.chars().take(80).collect(),
        })
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ServiceKey {
    type Err = BadName;

    /// Reads `namespace/name`, or `name` in the default namespace.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new(Self::DEFAULT_NAMESPACE, text),
        }
    }
}

impl TryFrom<String> for ServiceKey {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ServiceKey> for String {
    fn from(key: ServiceKey) -> Self {
        key.text.as_ref().to_owned()
    }
}

/// One place of a service that wants to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Slot {
    /// The n-th replica of a replicated service.
    Replica(u32),
    /// The one replica of a daemon service on this node; every node claims its own.
    Node(NodeId),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(index) => write!(f, "{index}"),
            Self::Node(node) => f.write_str(&node.short()),
        }
    }
}

/// A slot of a particular service.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlotId {
    /// Whose slot it is.
    pub service: ServiceKey,
    /// Which one.
    pub slot: Slot,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.slot)
    }
}

impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
