//! Whether replicas are moved: one register for the whole cluster.

use super::draft::Draft;
use super::keys::Key;
use super::value::Value;
use crate::model::Rebalancing;

impl Value for Rebalancing {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))
    }
}

impl Draft {
    pub(super) fn set_rebalancing(&mut self, new: Rebalancing) {
        if self.desired.rebalancing == new {
            return;
        }
        self.desired.rebalancing = new;
        // What everybody assumes anyway need not be kept for ever: a tombstone is purged.
        let value = match new == Rebalancing::default() {
            true => serde_json::Value::Null,
            false => super::draft::json(&new),
        };
        self.writes.insert(Key::Rebalancing, value);
    }
}
