//! The seal of a real node: ed25519. A node's identity is its public key, so its register needs
//! no certificate to be believed.

use dunlin_state::model::NodeId;
use dunlin_state::observed::{Proof, Seal};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

/// What is signed besides the digest, so that no other signature of this key can stand in for it.
const CONTEXT: &[u8] = b"dunlin observed register";

/// Signs with this node's key.
#[derive(Debug)]
pub(crate) struct NodeSeal {
    key: SigningKey,
}

impl NodeSeal {
    pub(crate) fn new(key: SigningKey) -> Self {
        Self { key }
    }
}

fn signed(digest: &[u8; 32]) -> Vec<u8> {
    [CONTEXT, digest].concat()
}

impl Seal for NodeSeal {
    fn sign(&self, digest: &[u8; 32]) -> Proof {
        Proof(self.key.sign(&signed(digest)).to_bytes())
    }

    fn verify(&self, node: NodeId, digest: &[u8; 32], proof: &Proof) -> bool {
        // Strict: a key of small order would make one signature fit many registers.
        let signature = Signature::from_bytes(&proof.0);
        VerifyingKey::from_bytes(node.as_bytes())
            .is_ok_and(|key| key.verify_strict(&signed(digest), &signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_of_the_node_can_vouch_for_it() {
        let seal = |byte| NodeSeal::new(SigningKey::from_bytes(&[byte; 32]));
        let node = |seal: &NodeSeal| NodeId::from_bytes(seal.key.verifying_key().to_bytes());
        let (a, b) = (seal(1), seal(2));
        let digest = [7; 32];
        let proof = a.sign(&digest);
        assert!(b.verify(node(&a), &digest, &proof));
        assert!(!b.verify(node(&b), &digest, &proof), "another node");
        assert!(!b.verify(node(&a), &[8; 32], &proof), "another register");
        let bare = Proof(a.key.sign(&digest).to_bytes());
        assert!(
            !b.verify(node(&a), &digest, &bare),
            "signed for another use"
        );
        let no_key = NodeId::from_bytes([0xff; 32]);
        assert!(!b.verify(no_key, &digest, &proof));
        // The identity element as a key accepts a signature of zeros unless one looks.
        let mut small = [0; 32];
        small[0] = 1;
        let mut zeros = [0; 64];
        zeros[0] = 1;
        assert!(!b.verify(NodeId::from_bytes(small), &digest, &Proof(zeros)));
    }
}
