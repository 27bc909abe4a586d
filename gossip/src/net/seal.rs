//! Sealing of membership datagrams with the cluster's symmetric key.
//!
//! A sealed datagram is
//!
//! ```text
//! version (1) | key id (4) | nonce (24) | ciphertext (= plain text + 16 bytes of tag)
//! ```
//!
//! under XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), with version and key id as associated
//! data. The nonce is random: at 24 bytes it may be drawn for every datagram by every node without
//! any coordination, which a counter shared by a whole cluster could never be. The key id lets a
//! receiver hold the current and the previous key while a cluster changes keys.
//!
//! Sealing proves membership, not freshness: a recorded datagram can be replayed. SWIM tolerates
//! that by its own incarnation numbers.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use thiserror::Error;

use super::ClusterSecret;

/// Bytes of plain text that may be sealed. Sealed they stay under [`MAX_SEALED`].
pub const MAX_PLAIN: usize = 1_150;

/// Bytes of the largest sealed datagram: fits the smallest IPv6 MTU (1,280, RFC 8200) with the IP
/// and UDP headers and a tunnel's overhead, so that no path fragments it.
pub const MAX_SEALED: usize = 1_200;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 24;

const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 4;
const HEADER_LEN: usize = 1 + KEY_ID_LEN;
const TAG_LEN: usize = 16;

/// Bytes that sealing adds.
pub const OVERHEAD: usize = HEADER_LEN + NONCE_LEN + TAG_LEN;

const _: () = assert!(MAX_PLAIN + OVERHEAD <= MAX_SEALED);

/// Separates the key of this cipher from every other key that is derived from the cluster's.
const KEY_CONTEXT: &str = "dunlin 2026 membership datagram seal v1";
const KEY_ID_CONTEXT: &str = "dunlin 2026 membership datagram key id v1";

/// Why a datagram was not sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// Nothing was produced.
    #[error("a membership datagram of {0} bytes is over the limit of {MAX_PLAIN}")]
    TooLong(usize),
}

/// Why a datagram was not opened. It is dropped in silence: an answer would tell strangers that
/// somebody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// Too short or too long to be one of ours.
    #[error("{0} bytes cannot be a sealed membership datagram")]
    Length(usize),
    /// Of a format that this daemon does not know.
    #[error("unknown format version {0}")]
    Version(u8),
    /// Sealed with a key that is neither current nor previous.
    #[error("sealed with a key that this cluster does not use")]
    UnknownKey,
    /// The right key's id, and yet not sealed by it.
    #[error("it has been tampered with")]
    Forged,
}

/// Seals with the current key; opens with the current and the previous one.
#[derive(Clone)]
pub struct Sealer {
    current: SealKey,
    previous: Option<SealKey>,
}

#[derive(Clone)]
struct SealKey {
    id: [u8; KEY_ID_LEN],
    cipher: XChaCha20Poly1305,
}

impl SealKey {
    fn derive(cluster_key: &[u8; 32]) -> Self {
        let key = blake3::derive_key(KEY_CONTEXT, cluster_key);
        let hash = blake3::derive_key(KEY_ID_CONTEXT, cluster_key);
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&hash[..KEY_ID_LEN]);
        Self {
            id,
            cipher: XChaCha20Poly1305::new(&key.into()),
        }
    }
}

impl Sealer {
    /// Derives the keys of the seal from the cluster's.
    pub fn new(secret: &ClusterSecret) -> Self {
        Self {
            current: SealKey::derive(&secret.key),
            previous: secret.previous_key.as_ref().map(SealKey::derive),
        }
    }

    /// Seals `plain`. `nonce` must be drawn at random for every call: using one twice under the
    /// same key reveals both texts.
    pub fn seal(&self, plain: &[u8], nonce: [u8; NONCE_LEN]) -> Result<Vec<u8>, SealError> {
        let too_long = SealError::TooLong(plain.len());
        if plain.len() > MAX_PLAIN {
            return Err(too_long);
        }
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.current.id);
        let payload = Payload {
            msg: plain,
            aad: &sealed,
        };
        let text = self
            .current
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            // The cipher refuses nothing but lengths near 2^38 bytes.
            .map_err(|_opaque| too_long)?;
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }

    /// Opens what [`Sealer::seal`] of any member made.
    pub fn open(&self, sealed: &[u8]) -> Result<Bytes, OpenError> {
        if !(OVERHEAD..=MAX_SEALED).contains(&sealed.len()) {
            return Err(OpenError::Length(sealed.len()));
        }
        let (header, rest) = sealed.split_at(HEADER_LEN);
        let Some((nonce, text)) = rest.split_first_chunk::<NONCE_LEN>() else {
            return Err(OpenError::Length(sealed.len()));
        };
        if header[0] != VERSION {
            return Err(OpenError::Version(header[0]));
        }
        let mut known = false;
        for key in [Some(&self.current), self.previous.as_ref()] {
            let Some(key) = key.filter(|key| key.id == header[1..]) else {
                continue;
            };
            known = true;
            let payload = Payload {
                msg: text,
                aad: header,
            };
            if let Ok(plain) = key.cipher.decrypt(&XNonce::from(*nonce), payload) {
                return Ok(plain.into());
            }
        }
        Err(if known {
            OpenError::Forged
        } else {
            OpenError::UnknownKey
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(key: u8, previous: Option<u8>) -> ClusterSecret {
        ClusterSecret {
            id: [7; 16],
            key: [key; 32],
            previous_key: previous.map(|key| [key; 32]),
        }
    }

    fn sealer(key: u8) -> Sealer {
        Sealer::new(&secret(key, None))
    }

    #[test]
    fn the_largest_plain_text_fits_the_datagram() {
        let plain = [9; MAX_PLAIN];
        let sealed = sealer(1).seal(&plain, [3; NONCE_LEN]).unwrap();
        assert!(sealed.len() <= MAX_SEALED);
        assert_eq!(sealer(1).open(&sealed).unwrap(), plain.as_slice());
    }

    #[test]
    fn longer_plain_text_is_refused() {
        let plain = [0; MAX_PLAIN + 1];
        let refused = sealer(1).seal(&plain, [0; NONCE_LEN]);
        assert_eq!(refused, Err(SealError::TooLong(MAX_PLAIN + 1)));
    }

    #[test]
    fn lengths_that_cannot_be_ours_are_refused_before_any_work() {
        for len in [0, 1, OVERHEAD - 1, MAX_SEALED + 1, 65_507] {
            let refused = sealer(1).open(&vec![VERSION; len]);
            assert_eq!(refused, Err(OpenError::Length(len)));
        }
    }

    #[test]
    fn another_clusters_datagram_is_refused() {
        let sealed = sealer(2).seal(b"hello", [0; NONCE_LEN]).unwrap();
        assert_eq!(sealer(1).open(&sealed), Err(OpenError::UnknownKey));
    }

    #[test]
    fn another_version_is_refused() {
        let mut sealed = sealer(1).seal(b"hello", [0; NONCE_LEN]).unwrap();
        sealed[0] = 9;
        assert_eq!(sealer(1).open(&sealed), Err(OpenError::Version(9)));
    }

    #[test]
    fn both_sides_of_a_key_change_understand_each_other() {
        let changed = Sealer::new(&secret(2, Some(1)));
        let from_old = sealer(1).seal(b"old", [0; NONCE_LEN]).unwrap();
        let from_new = changed.seal(b"new", [0; NONCE_LEN]).unwrap();
        assert_eq!(changed.open(&from_old).unwrap(), b"old".as_slice());
        assert_eq!(changed.open(&from_new).unwrap(), b"new".as_slice());
        assert_eq!(sealer(1).open(&from_new), Err(OpenError::UnknownKey));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(plain in proptest::collection::vec(any::<u8>(), 0..=MAX_PLAIN), nonce: [u8; NONCE_LEN]) {
            let sealed = sealer(1).seal(&plain, nonce).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(sealer(1).open(&sealed).unwrap(), plain);
        }

        #[test]
        fn any_changed_bit_is_noticed(plain in proptest::collection::vec(any::<u8>(), 0..200), nonce: [u8; NONCE_LEN], at: prop::sample::Index, bit in 0u8..8) {
            let mut sealed = sealer(1).seal(&plain, nonce).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(sealer(1).open(&sealed).is_err());
        }

        #[test]
        fn any_truncation_is_noticed(plain in proptest::collection::vec(any::<u8>(), 0..200), keep: prop::sample::Index) {
            let sealed = sealer(1).seal(&plain, [0; NONCE_LEN]).unwrap();
            prop_assert!(sealer(1).open(&sealed[..keep.index(sealed.len())]).is_err());
        }

        #[test]
        fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..1_400)) {
            prop_assert!(sealer(1).open(&noise).is_err());
        }
    }
}
