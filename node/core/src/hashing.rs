//! Hashes that every node computes alike.
//!
//! Ranking a thousand nodes for a thousand services takes a million hashes, so names are hashed
//! once with BLAKE3 and pairs are mixed with the finaliser of SplitMix64 (Steele, Lea, Flood:
//! "Fast splittable pseudorandom number generators", 2014), which costs two nanoseconds.

use dunlin_state::model::{NodeId, ServiceKey};

/// The hash of a node's identity.
pub(crate) fn node_hash(node: NodeId) -> u64 {
    first_word(blake3::hash(node.as_bytes()))
}

/// The hash of a service's name.
pub(crate) fn service_hash(service: &ServiceKey) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(service.namespace().as_bytes());
    hasher.update(b"/");
    hasher.update(service.name().as_bytes());
    first_word(hasher.finalize())
}

/// Combines two hashes; the order of the arguments matters.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a
        .wrapping_add(b.rotate_left(32))
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn first_word(hash: blake3::Hash) -> u64 {
    let bytes = hash.as_bytes();
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}
