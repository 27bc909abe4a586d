//! Hashes that every node computes alike.
//!
//! Ranking a thousand nodes for a thousand services takes a million hashes, so names are hashed
//! once with BLAKE3, and pairs are mixed by folding one 128-bit product (the core of Wang Yi's
//! wyhash), which costs a nanosecond.

use dunlin_state::model::{NodeId, ServiceKey};

/// The hash of a node's identity.
pub(crate) fn node_hash(node: NodeId) -> u64 {
    first_word(blake3::hash(node.as_bytes()))
}

/// The hash of a service's name.
pub(crate) fn service_hash(service: &ServiceKey) -> u64 {
    first_word(blake3::hash(service.as_str().as_bytes()))
}

/// Combines two hashes; the order of the arguments matters.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let a = u128::from(a ^ 0x9E37_79B9_7F4A_7C15);
    let b = u128::from(b ^ 0xD1B5_4A32_D192_ED03);
    let product = a * b;
    // Both halves are needed: the lower bits of a product depend only on the lower bits of its
    // factors, and the upper ones little on those.
    (product >> 64) as u64 ^ product as u64
}

fn first_word(hash: blake3::Hash) -> u64 {
    let bytes = hash.as_bytes();
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}
