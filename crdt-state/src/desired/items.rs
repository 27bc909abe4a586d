//! Secrets and configs in desired state.
//!
//! A config's content stands in its register. A secret's stands there sealed with a key of its own,
//! and that key sealed to some nodes; desired state never sees either in plain text. A version is
//! named by a hash of what is stored, so nobody can put other content under its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::validate::check_labels;
use super::value::Value;
use crate::model::{ContentId, ItemKey, ItemKind, MAX_ITEM_BYTES, NodeId, ServiceSpec};

/// Secrets, and likewise configs, of a cluster: each may take 64 KiB a version.
pub const MAX_ITEMS: usize = 1_000;

/// Nodes that one version of a secret is sealed to in desired state. Others get it from these.
pub const MAX_SECRET_BOXES: usize = 64;

/// Bytes that sealing adds to a value at most.
const MAX_SEAL_BYTES: usize = 64;

/// Bytes of a sealed key at most.
const MAX_BOX_BYTES: usize = 256;

/// A secret or config as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Counts its versions.
    pub version: u64,
    /// Names the content.
    pub content: ContentId,
    /// The content; sealed for a secret.
    pub stored: Bytes,
    /// A secret's key, sealed to each of these nodes.
    pub boxes: BTreeMap<NodeId, Bytes>,
    /// For people.
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since the Unix epoch, by the clock of the node that took it.
    pub updated: u64,
}

/// All secrets, and all configs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Items {
    /// Secrets.
    pub secrets: BTreeMap<ItemKey, Arc<Item>>,
    /// Configs.
    pub configs: BTreeMap<ItemKey, Arc<Item>>,
}

impl Items {
    /// Those of one kind.
    pub fn of(&self, kind: ItemKind) -> &BTreeMap<ItemKey, Arc<Item>> {
        match kind {
            ItemKind::Secret => &self.secrets,
            ItemKind::Config => &self.configs,
        }
    }

    pub(super) fn of_mut(&mut self, kind: ItemKind) -> &mut BTreeMap<ItemKey, Arc<Item>> {
        match kind {
            ItemKind::Secret => &mut self.secrets,
            ItemKind::Config => &mut self.configs,
        }
    }
}

/// The secrets or configs that a specification in this namespace names.
pub fn items_of<'a>(
    spec: &'a ServiceSpec,
    namespace: &'a str,
    kind: ItemKind,
) -> impl Iterator<Item = ItemKey> + 'a {
    let mounts = match kind {
        ItemKind::Secret => &spec.secrets,
        ItemKind::Config => &spec.configs,
    };
    // A specification with a name that is none is refused before it gets here.
    let keys = mounts.iter().map(|m| ItemKey::new(namespace, &m.source));
    keys.filter_map(Result::ok)
}

/// The content of a secret or config on its way into desired state.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewItem {
    /// The content; sealed for a secret.
    pub stored: Bytes,
    /// A secret's key, sealed to each of these nodes.
    pub boxes: BTreeMap<NodeId, Bytes>,
    /// Its labels; those that it has, when absent.
    pub labels: Option<BTreeMap<String, String>>,
    /// Whether it has to exist, or must not.
    pub existing: Option<bool>,
}

impl std::fmt::Debug for NewItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewItem({} bytes)", self.stored.len())
    }
}

/// An item as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredItem {
    version: u64,
    /// Base 64.
    content: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    boxes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl StoredItem {
    pub(super) fn new(
        version: u64,
        stored: &[u8],
        boxes: &BTreeMap<NodeId, Bytes>,
        labels: BTreeMap<String, String>,
    ) -> Self {
        let encode = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        let boxes = boxes.iter();
        Self {
            version,
            content: encode(stored),
            boxes: boxes.map(|(n, b)| (n.to_string(), encode(b))).collect(),
            labels,
        }
    }
}

/// A secret's or config's register, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ItemValue(pub(super) Arc<Item>);

impl ItemValue {
    /// With the time of its register.
    pub(super) fn at(self, updated: u64) -> Arc<Item> {
        let mut item = self.0;
        Arc::make_mut(&mut item).updated = updated;
        item
    }
}

impl Value for ItemValue {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        let stored: StoredItem =
            serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))?;
        let decode = |text: &str| {
            let bytes = data_encoding::BASE64.decode(text.as_bytes());
            bytes
                .map(Bytes::from)
                .map_err(|e| format!("it is no base 64: {e}"))
        };
        let content = decode(&stored.content)?;
        if content.len() > MAX_ITEM_BYTES + MAX_SEAL_BYTES {
            return Err(format!("its content takes {} bytes", content.len()));
        }
        if stored.boxes.len() > MAX_SECRET_BOXES {
            return Err(format!("it is sealed to {} nodes", stored.boxes.len()));
        }
        let mut boxes = BTreeMap::new();
        for (node, sealed) in &stored.boxes {
            let node: NodeId = node.parse().map_err(|e| format!("{e}"))?;
            let sealed = decode(sealed)?;
            if sealed.len() > MAX_BOX_BYTES {
                return Err(format!("a sealed key takes {} bytes", sealed.len()));
            }
            boxes.insert(node, sealed);
        }
        check_labels(stored.labels.iter()).map_err(|fault| fault.to_string())?;
        Ok(Self(Arc::new(Item {
            version: stored.version,
            content: ContentId::of(&content),
            stored: content,
            boxes,
            labels: stored.labels,
            updated: 0,
        })))
    }
}
