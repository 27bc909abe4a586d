//! Secrets and configs: named content that replicas get as files.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::{BadName, ServiceKey, check_label};

/// Bytes of a secret's or config's value. One register (64 KiB) holds it in base 64, sealed to many
/// nodes.
pub const MAX_ITEM_BYTES: usize = 32 * 1024;

/// Characters of a secret's or config's name, as Docker.
const MAX_NAME: usize = 64;

/// What kind of content it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ItemKind {
    /// Sealed to the nodes that need it.
    Secret,
    /// Readable by every member.
    Config,
}

impl ItemKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Secret, Self::Config];

    /// As written in keys and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The full name of a secret or config. The name is also that of a file, so it holds nothing that
/// means something in a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ItemKey {
    namespace: String,
    name: String,
}

impl ItemKey {
    /// Checks both parts: the namespace is a DNS label, the name 1 to 64 of `a-z A-Z 0-9 _ . -`
    /// that starts with a letter or digit.
    ///
    /// # Errors
    /// When one of them is something else.
    pub fn new(namespace: &str, name: &str) -> Result<Self, BadItemName> {
        check_label("namespace", namespace)?;
        if !is_file_name(name) {
            return Err(BadItemName::Name(name.chars().take(80).collect()));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The namespace part.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name part.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Whether a text names a file and nothing else: no separators, no `..`, nothing hidden.
pub fn is_file_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=MAX_NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(fine)
}

/// Why a text names no secret or config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadItemName {
    /// Its namespace.
    #[error(transparent)]
    Namespace(#[from] BadName),
    /// Its name.
    #[error(
        "'{0}' cannot name a secret or config: use 1 to 64 of a-z, A-Z, 0-9, '_', '.' and '-', and start with a letter or digit"
    )]
    Name(String),
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ItemKey {
    type Err = BadItemName;

    /// Reads `namespace/name`, or `name` in the default namespace.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Self::new(ServiceKey::DEFAULT_NAMESPACE, text),
        }
    }
}

impl TryFrom<String> for ItemKey {
    type Error = BadItemName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ItemKey> for String {
    fn from(key: ItemKey) -> Self {
        key.to_string()
    }
}

/// Names one version of a secret's or config's content: the first half of a hash of what is stored,
/// which for a secret is its sealed form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId(pub [u8; 16]);

impl ContentId {
    /// The id of stored content.
    pub fn of(stored: &[u8]) -> Self {
        let hash = blake3::derive_key("dunlin 2026 content of a secret or config", stored);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

impl Serialize for ContentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        let id = bytes.and_then(|bytes| bytes.try_into().ok());
        id.map(Self).ok_or_else(|| {
            serde::de::Error::custom("a content id is written as 32 lower-case hexadecimal digits")
        })
    }
}

/// A secret or config as a file of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileMount {
    /// The name of the secret or config in the service's namespace.
    pub source: String,
    /// Where it appears: a file name, or an absolute path in a container. As `source` when empty.
    pub target: String,
    /// The owner's number; for containers 0, and for processes their user, when absent.
    pub uid: Option<u32>,
    /// The group's number; likewise.
    pub gid: Option<u32>,
    /// Permission bits; `0444` in containers and `0400` for processes when absent.
    pub mode: Option<u32>,
}

impl FileMount {
    /// Where it appears, as written or by default.
    pub fn target(&self) -> &str {
        match self.target.as_str() {
            "" => &self.source,
            target => target,
        }
    }

    /// The last part of where it appears: the name of its file.
    pub fn file_name(&self) -> &str {
        let target = self.target();
        target.rsplit_once('/').map_or(target, |(_, name)| name)
    }
}
