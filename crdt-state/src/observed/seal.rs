//! Who vouches for a register.

use std::fmt;

use crate::model::NodeId;

/// Bytes of a [`Proof`]: an ed25519 signature.
pub const PROOF_BYTES: usize = 64;

/// Shows that a register was written by the node that it names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof(pub [u8; PROOF_BYTES]);

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = data_encoding::HEXLOWER.encode(&self.0[..4]);
        write!(f, "Proof({start})")
    }
}

/// Signs this node's registers and checks those of others. It is given to the machine because
/// keys, like clocks and sockets, belong to the shell: the daemon's is ed25519, and the simulator
/// has a checksum that costs a hundredth.
pub trait Seal: fmt::Debug + Send + Sync {
    /// Vouches for a digest in this node's name.
    fn sign(&self, digest: &[u8; 32]) -> Proof;

    /// Whether `node` vouched for this digest. Called with what strangers sent: no panic, and no
    /// more work than a signature costs.
    fn verify(&self, node: NodeId, digest: &[u8; 32], proof: &Proof) -> bool;
}

/// A checksum under a secret that all nodes share: **for simulations and tests**. Each node signs
/// for itself only, so the machines cannot forge anything by accident and a simulated liar has to
/// guess, but whoever holds the secret could sign for anyone.
#[derive(Clone)]
pub struct SharedSecret {
    me: NodeId,
    secret: [u8; 32],
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSecret({})", self.me.short())
    }
}

impl SharedSecret {
    /// The seal of one simulated node.
    pub const fn new(me: NodeId, secret: [u8; 32]) -> Self {
        Self { me, secret }
    }

    fn checksum(&self, node: NodeId, digest: &[u8; 32]) -> Proof {
        let mut input = [0; 64];
        input[..32].copy_from_slice(node.as_bytes());
        input[32..].copy_from_slice(digest);
        let hash = blake3::keyed_hash(&self.secret, &input);
        let mut proof = [0; PROOF_BYTES];
        proof[..32].copy_from_slice(hash.as_bytes());
        Proof(proof)
    }
}

impl Seal for SharedSecret {
    fn sign(&self, digest: &[u8; 32]) -> Proof {
        self.checksum(self.me, digest)
    }

    fn verify(&self, node: NodeId, digest: &[u8; 32], proof: &Proof) -> bool {
        self.checksum(node, digest) == *proof
    }
}
