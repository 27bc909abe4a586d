//! A key with what it may do.

use crate::chain::{Chain, ChainError, Verified};
use crate::keys::{PublicKey, SecretKey};

/// A key, its chain, and what that chain proves. Made only from chains that are valid.
#[derive(Debug, Clone)]
pub struct Credential {
    key: SecretKey,
    chain: Chain,
    verified: Verified,
}

impl Credential {
    /// Puts a key and its chain together.
    ///
    /// # Errors
    /// When the chain is not valid, or about another key.
    pub fn new(key: SecretKey, chain: Chain, root: &PublicKey) -> Result<Self, ChainError> {
        let verified = chain.verify(root)?;
        if verified.subject != key.public() {
            return Err(ChainError::Forged(verified.subject.short()));
        }
        Ok(Self {
            key,
            chain,
            verified,
        })
    }

    /// The private key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The certificates.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// What they prove.
    pub fn verified(&self) -> &Verified {
        &self.verified
    }
}
