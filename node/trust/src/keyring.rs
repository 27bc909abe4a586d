//! The one secret that all members share, and that is replaced when one of them is removed.
//!
//! Two keys are derived from it: the one that seals membership datagrams, and the *admission
//! key*, which signs certificates of nodes and nothing else. An admission certificate, signed by
//! the root key or an admin's, vouches for the latter.

use std::fmt;

use crate::Seconds;
use crate::chain::{Chain, ChainError, Verified};
use crate::encode::{Malformed, Reader};
use crate::keys::{PublicKey, SecretKey};
use crate::power::Power;

const DATAGRAM_CONTEXT: &str = "dunlin 2026 keyring: membership datagrams";
const ADMISSION_CONTEXT: &str = "dunlin 2026 keyring: admission of nodes";

/// The secret, before anybody has vouched for its admission key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyringSecret(pub [u8; 32]);

impl KeyringSecret {
    /// The key that seals membership datagrams.
    pub fn datagram_key(&self) -> [u8; 32] {
        blake3::derive_key(DATAGRAM_CONTEXT, &self.0)
    }

    /// The key that admits nodes.
    pub fn admission_key(&self) -> SecretKey {
        SecretKey::from_seed(blake3::derive_key(ADMISSION_CONTEXT, &self.0))
    }
}

/// Which of two keyrings is newer: the one of the later replacement, and of two that were made
/// concurrently the one with the greater key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyringOrder {
    /// Counts replacements.
    pub epoch: u64,
    /// The public half of its admission key.
    pub admission: PublicKey,
}

/// What all members share.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    /// Counts replacements.
    pub epoch: u64,
    /// The secret.
    pub secret: KeyringSecret,
    /// Vouches for its admission key.
    pub admission: Chain,
}

impl Keyring {
    /// Its place among keyrings.
    pub fn order(&self) -> KeyringOrder {
        KeyringOrder {
            epoch: self.epoch,
            admission: self.secret.admission_key().public(),
        }
    }

    /// Checks that the root key, or an admin, vouches for its admission key.
    pub fn verify_at(&self, root: &PublicKey, at: Seconds) -> Result<Verified, ChainError> {
        let verified = self.admission.verify_at(root, at)?;
        let ours = self.secret.admission_key().public();
        if verified.power != Power::Admission(self.epoch) || verified.subject != ours {
            return Err(ChainError::Forged(ours.short()));
        }
        Ok(verified)
    }

    /// As it is kept, and as it travels inside a sealed connection or box.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.epoch.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(&self.admission.encode());
        bytes
    }

    /// Reads what [`Self::encode`] made, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let keyring = Self {
            epoch: reader.u64()?,
            secret: KeyringSecret(reader.array()?),
            admission: Chain::read(&mut reader)?,
        };
        reader.end()?;
        Ok(keyring)
    }
}

impl fmt::Debug for KeyringSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyringSecret(..)")
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({})", self.epoch)
    }
}
