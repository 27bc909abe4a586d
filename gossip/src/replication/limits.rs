//! The bounds of what travels.

use bytes::Bytes;

/// Bytes of one pushed message, roughly. Larger pushes are split, so that no peer's stream is
/// blocked for long: 256 KiB take 20 ms at 100 Mbit/s.
pub const MAX_PUSH_BYTES: usize = 256 * 1024;

/// Bytes of changes that are passed on together. What a large cluster gathers in a moment is less.
pub(super) const MAX_BUNDLE_BYTES: usize = 4 * MAX_PUSH_BYTES;

/// Bytes of a whole document on the wire; what the control connection carries at most.
pub const MAX_DOCUMENT_BYTES: usize = 8 * 1024 * 1024;

/// Changes in one message that are looked at. An honest push of more is split by its size.
pub(super) const MAX_CHANGES: usize = 4_096;

/// Nodes whose registers are kept: ten times the design size. Beyond it a peer that invents nodes
/// could fill the memory.
pub const MAX_NODES: usize = 10_000;

/// Bytes of all registers together. The design size, 1,000 nodes with ten replicas each, takes five
/// million. In memory a register is two to three times as large.
pub(super) const MAX_TABLE_BYTES: usize = 12 * 1024 * 1024;

/// Bytes of all registers beyond which nodes are not taken that nobody has heard of: those that are
/// known keep room to grow, whoever invents others.
pub(super) const MAX_TABLE_BYTES_NEW: usize = MAX_TABLE_BYTES / 3 * 2;

/// Splits a push into messages of at most [`MAX_PUSH_BYTES`], keeping the order; what is larger
/// by itself goes alone.
pub(super) fn split<T>(items: Vec<T>, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = weight(&item);
        if !part.is_empty() && bytes + more > MAX_PUSH_BYTES {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += more;
        part.push(item);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// What a change weighs in a message.
pub(super) fn change_weight(change: &Bytes) -> usize {
    change.len() + 16
}
