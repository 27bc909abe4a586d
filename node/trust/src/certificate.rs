//! One certificate: a key may do something for some time, says the key before it in the chain.
//!
//! ```text
//! subject (32) | power (1 to some 2,000) | not before (8) | not after (8) | signature (64)
//! ```
//!
//! The issuer and the cluster are not written down: both stand before it in the chain, and the
//! signature covers them.

use crate::Seconds;
use crate::encode::{Malformed, Reader};
use crate::keys::{ClusterId, PublicKey, SecretKey, Signature};
use crate::power::Power;

/// Bytes of the longest certificate: an operator of 32 namespaces with the longest names.
pub const MAX_CERTIFICATE: usize = 32 + 2 + 32 * 64 + 16 + 64;

/// Separates certificates from every other signed text.
const DOMAIN: &[u8] = b"dunlin certificate 1\0";

/// One link of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose key may do it.
    pub subject: PublicKey,
    /// What it may do.
    pub power: Power,
    /// From when.
    pub not_before: Seconds,
    /// Until when.
    pub not_after: Seconds,
    signature: Signature,
}

impl Certificate {
    /// Signs a certificate with the issuer's key. Whether the issuer may grant that is checked
    /// where the chain is verified, not here.
    pub fn issue(
        cluster: ClusterId,
        issuer: &SecretKey,
        subject: PublicKey,
        power: Power,
        (not_before, not_after): (Seconds, Seconds),
    ) -> Self {
        let mut certificate = Self {
            subject,
            power,
            not_before,
            not_after,
            signature: Signature([0; 64]),
        };
        certificate.signature = issuer.sign(&certificate.signed(cluster, &issuer.public()));
        certificate
    }

    /// Whether `issuer` signed it for this cluster.
    pub(crate) fn is_by(&self, cluster: ClusterId, issuer: &PublicKey) -> bool {
        issuer.verifies(&self.signed(cluster, issuer), &self.signature)
    }

    fn signed(&self, cluster: ClusterId, issuer: &PublicKey) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        bytes.extend_from_slice(&cluster.0);
        bytes.extend_from_slice(&issuer.0);
        self.body(&mut bytes);
        bytes
    }

    fn body(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.subject.0);
        self.power.write(to);
        to.extend_from_slice(&self.not_before.to_be_bytes());
        to.extend_from_slice(&self.not_after.to_be_bytes());
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        self.body(to);
        to.extend_from_slice(&self.signature.0);
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            subject: PublicKey(from.array()?),
            power: Power::read(from)?,
            not_before: from.u64()?,
            not_after: from.u64()?,
            signature: Signature(from.array()?),
        })
    }
}
