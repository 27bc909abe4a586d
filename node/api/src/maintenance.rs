//! When nodes are worked on.

use dunlin_state::model::Window;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// When a node is worked on: it is drained then, and comes back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Maintenance {
    /// All windows.
    pub windows: Vec<NamedWindow>,
    /// While one is open: until when, by the clock of the answering node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// When the next one opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A window with the name by which it is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedWindow {
    /// Its name; follows from what it is.
    pub id: String,
    /// When it is open.
    pub window: Window,
}

/// Changes when a node is worked on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct MaintenanceRequest {
    /// Windows to add.
    pub add: Vec<Window>,
    /// Names of those to remove.
    pub remove: Vec<String>,
}
