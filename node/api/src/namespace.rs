//! Namespaces and what their services may reserve together.

use dunlin_state::model::{Excess, Quota, Usage};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Every namespace that has services or a quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceList {
    /// Ordered by name.
    pub namespaces: Vec<NamespaceSummary>,
}

/// One namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamespaceSummary {
    /// Its name.
    pub name: String,
    /// How many services it has.
    pub services: u32,
    /// What they want together.
    pub usage: Usage,
    /// What they may want; no bounds when empty.
    pub quota: Quota,
    /// The bounds that are exceeded: nothing is stopped for that, and nothing added.
    pub over: Vec<Excess>,
}
