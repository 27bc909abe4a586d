//! Secrets and configs.

use std::collections::BTreeMap;
use std::fmt;

use dunlin_state::model::{ContentId, ItemKey, NodeId, ServiceKey};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which secrets or configs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ItemQuery {
    /// Only those of this namespace.
    pub namespace: Option<String>,
}

/// What a secret or config shall be.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemRequest {
    /// The content, in base 64.
    pub value: String,
    /// Its labels; those that it has, when absent.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// `true` when it has to exist, `false` when it must not; either when absent.
    #[serde(default)]
    pub existing: Option<bool>,
}

impl fmt::Debug for ItemRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ItemRequest(..)")
    }
}

/// Secrets or configs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ItemList {
    /// They, by name.
    pub items: Vec<ItemSummary>,
}

/// A secret or config in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemSummary {
    /// Its full name.
    pub name: ItemKey,
    /// Counts its versions.
    pub version: u64,
    /// Names its content.
    pub content: ContentId,
    /// Milliseconds since the Unix epoch.
    pub updated: u64,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The services whose replicas get it.
    #[serde(default)]
    pub used_by: Vec<ServiceKey>,
}

/// A secret or config in full; a secret without its value, which nobody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemDetail {
    /// In short.
    #[serde(flatten)]
    pub summary: ItemSummary,
    /// A config's content, in base 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The nodes that a secret was sealed to when it was written; others have got its key since.
    #[serde(default)]
    pub sealed_to: Vec<NodeId>,
    /// Whether the node that answers can open it.
    pub opens_here: bool,
}
