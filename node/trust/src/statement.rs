//! A signed text that carries its author's certificates, so that anybody who knows the root key
//! can check it at any time, and without the author.
//!
//! ```text
//! version (1) | length of the chain (2) | chain | signature (64) | text
//! ```
//!
//! The signature covers the cluster, a context, such as the key of the register whose value the
//! text is, and the text. A statement is therefore worth nothing in another place.

use thiserror::Error;

use crate::chain::{Chain, ChainError, MAX_CHAIN, Verified};
use crate::credential::Credential;
use crate::encode::{Malformed, Reader};
use crate::keys::{ClusterId, PublicKey, Signature};

/// Bytes of an order that travels in a refusal.
pub(crate) const MAX_ORDER: usize = 8 * 1024;

const VERSION: u8 = 1;
const DOMAIN: &[u8] = b"dunlin statement 1\0";

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StatementError {
    /// It is none.
    #[error("it is not signed: {0}")]
    Malformed(#[from] Malformed),
    /// Its author has no valid certificate.
    #[error("its author's certificate is not valid: {0}")]
    Chain(#[from] ChainError),
    /// The signature is wrong.
    #[error("its signature is not that of {0}, or it was altered")]
    Forged(String),
}

/// A statement taken apart; nothing of it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<'a> {
    /// The author's certificates, encoded.
    pub chain: &'a [u8],
    /// The text.
    pub text: &'a [u8],
    signature: Signature,
}

/// Signs `text` about `context`.
pub fn sign(credential: &Credential, cluster: ClusterId, context: &str, text: &[u8]) -> Vec<u8> {
    let chain = credential.chain().encode();
    let signature = credential.key().sign(&signed(cluster, context, text));
    let mut bytes = Vec::with_capacity(1 + 2 + chain.len() + 64 + text.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&u16::try_from(chain.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(&chain);
    bytes.extend_from_slice(&signature.0);
    bytes.extend_from_slice(text);
    bytes
}

fn signed(cluster: ClusterId, context: &str, text: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(DOMAIN.len() + 16 + 8 + context.len() + text.len());
    message.extend_from_slice(DOMAIN);
    message.extend_from_slice(&cluster.0);
    message.extend_from_slice(&(context.len() as u64).to_be_bytes());
    message.extend_from_slice(context.as_bytes());
    message.extend_from_slice(text);
    message
}

impl<'a> Signed<'a> {
    /// Takes the bytes apart.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed(
                "it is not signed, or not in a way that this daemon knows",
            ));
        }
        let len = usize::from(reader.u16()?);
        if len > MAX_CHAIN {
            return Err(Malformed("its certificates are too long"));
        }
        let chain = reader.bytes(len)?;
        let signature = Signature(reader.array()?);
        let text = reader.rest();
        Ok(Self {
            chain,
            text,
            signature,
        })
    }

    /// Verifies chain and signature; the time and the rights are the caller's to check.
    pub fn verify(&self, root: &PublicKey, context: &str) -> Result<Verified, StatementError> {
        let verified = Chain::decode(self.chain)?.verify(root)?;
        self.verify_by(&verified.subject, ClusterId::of(root), context)?;
        Ok(verified)
    }

    /// Verifies the signature alone, for who has verified [`Self::chain`] before.
    pub fn verify_by(
        &self,
        author: &PublicKey,
        cluster: ClusterId,
        context: &str,
    ) -> Result<(), StatementError> {
        match author.verifies(&signed(cluster, context, self.text), &self.signature) {
            true => Ok(()),
            false => Err(StatementError::Forged(author.short())),
        }
    }
}
