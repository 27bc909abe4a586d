//! When nodes are to be worked on.

use super::{Draft, json};
use crate::desired::keys::{Key, NodeAspect};
use crate::desired::rejection::Rejection;
use crate::desired::value::Value;
use crate::model::{NodeId, Window};
use crate::windows;

impl Value for Vec<Window> {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        let read: Self =
            serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))?;
        windows::check(&read).map_err(|fault| fault.to_string())?;
        Ok(read)
    }
}

impl Draft {
    pub(super) fn set_windows(
        &mut self,
        node: NodeId,
        windows: &[Window],
    ) -> Result<(), Rejection> {
        windows::check(windows).map_err(|fault| Rejection::BadWindow { node, fault })?;
        let mut windows = windows.to_vec();
        windows.sort();
        windows.dedup();
        let intent = self.desired.nodes.entry(node).or_default();
        if intent.windows == windows {
            return Ok(());
        }
        let value = match windows.is_empty() {
            true => serde_json::Value::Null,
            false => json(&windows),
        };
        intent.windows = windows;
        self.writes
            .insert(Key::Node(node, NodeAspect::Windows), value);
        Ok(())
    }
}
