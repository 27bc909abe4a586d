//! A secret's value, sealed with a key of its own, and that key, sealed to nodes.
//!
//! ```text
//! value   version (1) | nonce (24) | XChaCha20-Poly1305(value + 16)
//! key     a box (see `seal_box`) with: hash of name and value's hash (32) | content key (32)
//! ```
//!
//! The value is bound to its full name: under another one it does not open. The key is bound to the
//! name and to the very bytes that it opens, so a box is of no use for another version.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use thiserror::Error;

use crate::keys::{PublicKey, SecretKey};
use crate::sealed::{open_box, seal_box};

/// Bytes that sealing adds to a value.
pub const SECRET_OVERHEAD: usize = 1 + NONCE + 16;

const VERSION: u8 = 1;
const NONCE: usize = 24;
const DOMAIN: &str = "dunlin 2026 secret";

/// Why a secret does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadSecret {
    /// Written by a later version.
    #[error("it is sealed in a way that this version does not know")]
    Version,
    /// Another key, another name, or damage.
    #[error("it is sealed with another key, for another name, or damaged")]
    Closed,
}

/// The key that seals one version of one secret. It shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentKey([u8; 32]);

impl ContentKey {
    /// Made of random bytes, which must be used for one value only.
    pub fn new(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// Seals a value under its full name. `nonce` must be random.
    ///
    /// # Errors
    /// When the value is longer than the cipher takes, 256 GiB.
    pub fn seal(&self, name: &str, nonce: [u8; NONCE], value: &[u8]) -> Result<Vec<u8>, BadSecret> {
        let aad = name_hash(name);
        let payload = Payload {
            msg: value,
            aad: &aad,
        };
        let text = self.cipher().encrypt(&XNonce::from(nonce), payload);
        let text = text.map_err(|_too_long| BadSecret::Closed)?;
        Ok([&[VERSION], &nonce[..], &text].concat())
    }

    /// Opens what [`Self::seal`] made under this name.
    ///
    /// # Errors
    /// When it was sealed otherwise.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, BadSecret> {
        let (version, rest) = sealed.split_first().ok_or(BadSecret::Closed)?;
        if *version != VERSION {
            return Err(BadSecret::Version);
        }
        let (nonce, text) = rest.split_first_chunk::<NONCE>().ok_or(BadSecret::Closed)?;
        let aad = name_hash(name);
        let payload = Payload {
            msg: text,
            aad: &aad,
        };
        self.cipher()
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_opaque| BadSecret::Closed)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.0.into())
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(..)")
    }
}

/// A content key, sealed to one node.
#[derive(Debug)]
pub struct SealedKey;

impl SealedKey {
    /// Seals the key of a sealed value to a node. `ephemeral` must be random and used once.
    ///
    /// # Errors
    /// When the node's key is no point of the curve.
    pub fn seal(
        to: &PublicKey,
        ephemeral: [u8; 32],
        name: &str,
        sealed: &[u8],
        key: &ContentKey,
    ) -> Result<Vec<u8>, BadSecret> {
        let text = [&about(name, sealed)[..], &key.0].concat();
        seal_box(to, ephemeral, &text).map_err(|_no_key| BadSecret::Closed)
    }

    /// Opens a sealed key for this sealed value.
    ///
    /// # Errors
    /// When it is for another node, name or value.
    pub fn open(
        own: &SecretKey,
        name: &str,
        sealed: &[u8],
        boxed: &[u8],
    ) -> Result<ContentKey, BadSecret> {
        let text = open_box(own, boxed).map_err(|_opaque| BadSecret::Closed)?;
        let key = text.strip_prefix(&about(name, sealed)[..]);
        let key = key.and_then(|key| key.try_into().ok());
        key.map(ContentKey).ok_or(BadSecret::Closed)
    }
}

fn name_hash(name: &str) -> [u8; 32] {
    blake3::derive_key(DOMAIN, name.as_bytes())
}

/// What a box is about.
fn about(name: &str, sealed: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
    hasher.update(&name_hash(name)).update(sealed);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_name_and_node_open_a_secret() {
        let key = ContentKey::new([7; 32]);
        let sealed = key.seal("shop/db", [1; 24], b"marked").unwrap();
        assert_eq!(sealed.len(), b"marked".len() + SECRET_OVERHEAD);
        assert_eq!(key.open("shop/db", &sealed).unwrap(), b"marked");
        assert_eq!(key.open("shop/other", &sealed), Err(BadSecret::Closed));
        let other = ContentKey::new([8; 32]);
        assert_eq!(other.open("shop/db", &sealed), Err(BadSecret::Closed));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(key.open("shop/db", &damaged).is_err(), "byte {at}");
        }
        let node = SecretKey::from_seed([3; 32]);
        let boxed = SealedKey::seal(&node.public(), [9; 32], "shop/db", &sealed, &key).unwrap();
        let open = |own: &SecretKey, name: &str, of: &[u8]| SealedKey::open(own, name, of, &boxed);
        assert_eq!(open(&node, "shop/db", &sealed), Ok(key.clone()));
        assert!(open(&SecretKey::from_seed([4; 32]), "shop/db", &sealed).is_err());
        assert!(open(&node, "shop/other", &sealed).is_err(), "another name");
        let next = key.seal("shop/db", [2; 24], b"next").unwrap();
        assert!(open(&node, "shop/db", &next).is_err(), "another version");
        assert!(!format!("{key:?}").contains('7'));
    }

    #[test]
    fn rubbish_opens_nothing() {
        let key = ContentKey::new([7; 32]);
        assert_eq!(key.open("a", &[]), Err(BadSecret::Closed));
        assert_eq!(key.open("a", &[9, 0, 0]), Err(BadSecret::Version));
        assert_eq!(key.open("a", &[VERSION, 1, 2]), Err(BadSecret::Closed));
        let own = SecretKey::from_seed([3; 32]);
        assert!(SealedKey::open(&own, "a", b"x", &[0; 31]).is_err());
        assert!(SealedKey::open(&own, "a", b"x", &[0; 96]).is_err());
    }
}
