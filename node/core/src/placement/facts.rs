//! What a constraint's key is on a node.

use dunlin_state::model::Constraint;

use super::NodeView;

/// The value of a key on the node; `None` when it has none. Docker compares the names of facts
/// without regard to case, but label keys exactly.
pub(super) fn value(key: &str, node: &NodeView) -> Option<String> {
    if let Some(label) = strip_prefix_ignoring_case(key, Constraint::LABEL_PREFIX) {
        return node.labels.get(label).cloned();
    }
    if let Some(device) = strip_prefix_ignoring_case(key, Constraint::DEVICE_PREFIX) {
        // That there is none is a fact too.
        let count = node.facts.devices.get(device).copied().unwrap_or(0);
        return Some(count.to_string());
    }
    let facts = &node.facts;
    match key.to_ascii_lowercase().as_str() {
        "node.id" => Some(node.id.to_string()),
        "node.hostname" => Some(node.name.clone()),
        "node.platform.os" => Some(facts.os.clone()),
        "node.platform.arch" => Some(facts.arch.clone()),
        "node.distribution" => Some(facts.distribution.clone()),
        "node.kernel" => Some(facts.kernel.clone()),
        "node.engine" => facts.engine.clone(),
        "node.cpus" => Some(facts.cpus.to_string()),
        "node.memory" => Some(facts.memory.to_string()),
        "node.disk" => Some(facts.disk.to_string()),
        _ => None,
    }
}

/// Whether a key's values are amounts of bytes, which people read in larger units.
pub(super) fn is_bytes(key: &str) -> bool {
    ["node.memory", "node.disk"]
        .iter()
        .any(|known| key.eq_ignore_ascii_case(known))
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix)
        .then(|| &text[prefix.len()..])
}
