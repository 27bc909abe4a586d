//! A signed text that carries its author's certificates, so that anybody who knows the root key
//! can check it at any time, and without the author.
//!
//! ```text
//! version (1) | length of the chain (2) | chain | way to what is signed | signature (64) | text
//! ```
//!
//! The signature covers the cluster, a context, such as the key of the register whose value the
//! text is, and the text. A statement is therefore worth nothing in another place. Statements that
//! are made together share one signature, which covers a hash of them all: the way from the text to
//! that hash ([`tree`](crate::tree)) stands in each, so that each is still checked by itself, but the
//! signature, which takes most of the time, once.

use thiserror::Error;

use crate::chain::{Chain, ChainError, MAX_CHAIN, Verified};
use crate::credential::Credential;
use crate::encode::{Malformed, Reader};
use crate::keys::{ClusterId, PublicKey, Signature};
use crate::tree::{self, Hash, MAX_TOGETHER, Path};

/// Bytes of an order that travels in a refusal.
pub(crate) const MAX_ORDER: usize = 8 * 1024;

const VERSION: u8 = 2;
const DOMAIN: &[u8] = b"dunlin statement 2\0";

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
    path: Path,
    signature: Signature,
}

/// Signs `text` about `context`.
pub fn sign(credential: &Credential, cluster: ClusterId, context: &str, text: &[u8]) -> Vec<u8> {
    let leaf = tree::leaf(&cluster.0, context, text);
    let signature = credential.key().sign(&signed(&leaf));
    statement(
        &credential.chain().encode(),
        &Path::default(),
        &signature,
        text,
    )
}

/// Signs texts, each about its context, with one signature for every sixteen of them. In their
/// order.
pub fn sign_all<C: AsRef<str>, T: AsRef<[u8]>>(
    credential: &Credential,
    cluster: ClusterId,
    texts: &[(C, T)],
) -> Vec<Vec<u8>> {
    let chain = credential.chain().encode();
    let mut statements = Vec::with_capacity(texts.len());
    for together in texts.chunks(MAX_TOGETHER) {
        let leaf =
            |(context, text): &(C, T)| tree::leaf(&cluster.0, context.as_ref(), text.as_ref());
        let leaves: Vec<Hash> = together.iter().map(leaf).collect();
        let (top, paths) = tree::grow(&leaves);
        let signature = credential.key().sign(&signed(&top));
        let each = together.iter().zip(&paths);
        statements.extend(
            each.map(|((_, text), path)| statement(&chain, path, &signature, text.as_ref())),
        );
    }
    statements
}

fn statement(chain: &[u8], path: &Path, signature: &Signature, text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 2 + chain.len() + 64 + 192 + text.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&u16::try_from(chain.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend_from_slice(chain);
    path.write(&mut bytes);
    bytes.extend_from_slice(&signature.0);
    bytes.extend_from_slice(text);
    bytes
}

fn signed(top: &Hash) -> Vec<u8> {
    [DOMAIN, top].concat()
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
        let path = Path::read(&mut reader)?;
        let signature = Signature(reader.array()?);
        let text = reader.rest();
        Ok(Self {
            chain,
            text,
            path,
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
        self.seal(cluster, context).verify_by(author)
    }

    /// What is left to be verified, once the text is known to be in its place. Statements that were
    /// made together have the same one.
    pub fn seal(&self, cluster: ClusterId, context: &str) -> Seal {
        let leaf = tree::leaf(&cluster.0, context, self.text);
        Seal {
            top: self.path.climb(leaf),
            signature: self.signature,
        }
    }
}

/// A signature and what it is said to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    top: Hash,
    signature: Signature,
}

impl Seal {
    /// Verifies it; the verdict is a function of the author and of [`Self::to_bytes`].
    pub fn verify_by(&self, author: &PublicKey) -> Result<(), StatementError> {
        match author.verifies(&signed(&self.top), &self.signature) {
            true => Ok(()),
            false => Err(StatementError::Forged(author.short())),
        }
    }

    /// To remember it by.
    pub fn to_bytes(&self) -> [u8; 96] {
        let mut bytes = [0; 96];
        bytes[..32].copy_from_slice(&self.top);
        bytes[32..].copy_from_slice(&self.signature.0);
        bytes
    }
}
