//! Two ways to close a box: for the holder of a key, and for whoever knows a passphrase.
//!
//! A box for a key is `ephemeral key (32) | XChaCha20-Poly1305 (text + 16)`: an X25519 agreement
//! (RFC 7748) between a key made for this box and the receiver's, hashed with both public keys
//! into the key of the cipher, as in NaCl's sealed boxes. It says nothing of the sender.
//!
//! A file for a passphrase is text: the key comes from argon2id (RFC 9106) with 64 MiB and three
//! passes, which costs a guesser some 0.1 s and that memory for every guess.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use thiserror::Error;

use crate::keys::{PublicKey, SecretKey};

/// Bytes that a box for a key adds.
pub const BOX_OVERHEAD: usize = 32 + 16;

const BOX_CONTEXT: &str = "dunlin 2026 sealed box";

/// First line of a file for a passphrase.
const HEADER: &str = "dunlin sealed file 1";
/// Memory for a guess in KiB, passes, and lanes: the second recommendation of RFC 9106, which
/// fits small hosts.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 4;
const SALT: usize = 16;
const NONCE: usize = 24;
/// The longest file worth decoding; a root key takes 200.
const MAX_FILE: usize = 16 * 1024;

/// Why a box cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BoxError {
    /// The receiver's key is no point of the curve.
    #[error("the receiver's key is none")]
    NoKey,
    /// It is for somebody else, or damaged.
    #[error("the box is for another key, or damaged")]
    Closed,
}

/// Why a sealed file cannot be opened or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PassphraseError {
    /// It is something else.
    #[error("this is no sealed file of dunlin: its first line should be '{HEADER}'")]
    NotSealed,
    /// The passphrase is another one.
    #[error("the passphrase is wrong, or the file is damaged")]
    Wrong,
    /// Memory, most likely.
    #[error("the key cannot be derived from the passphrase: it takes 64 MiB of memory")]
    Derivation,
}

/// Closes a box that only `to` can open. `ephemeral` must be random and used once.
pub fn seal_box(to: &PublicKey, ephemeral: [u8; 32], text: &[u8]) -> Result<Vec<u8>, BoxError> {
    let theirs = to.agreement().ok_or(BoxError::NoKey)?;
    let ours = x25519_dalek::x25519(ephemeral, x25519_dalek::X25519_BASEPOINT_BYTES);
    let shared = x25519_dalek::x25519(ephemeral, theirs);
    let cipher = box_cipher(&shared, &ours, &theirs);
    // The key is used for this box only, so the nonce may be fixed.
    let text = cipher
        .encrypt(&XNonce::from([0; NONCE]), text)
        .map_err(|_too_long| BoxError::Closed)?;
    Ok([&ours[..], &text].concat())
}

/// Opens a box with the key that it is for.
pub fn open_box(key: &SecretKey, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
    let (theirs, text) = sealed.split_first_chunk::<32>().ok_or(BoxError::Closed)?;
    let ours = key.public().agreement().ok_or(BoxError::NoKey)?;
    let shared = x25519_dalek::x25519(key.agreement(), *theirs);
    box_cipher(&shared, theirs, &ours)
        .decrypt(&XNonce::from([0; NONCE]), text)
        .map_err(|_opaque| BoxError::Closed)
}

fn box_cipher(shared: &[u8; 32], ephemeral: &[u8; 32], to: &[u8; 32]) -> XChaCha20Poly1305 {
    let mut hasher = blake3::Hasher::new_derive_key(BOX_CONTEXT);
    hasher.update(shared).update(ephemeral).update(to);
    XChaCha20Poly1305::new(&(*hasher.finalize().as_bytes()).into())
}

/// Closing and opening files with a passphrase.
#[derive(Debug)]
pub struct SealedFile;

impl SealedFile {
    /// The text of a file that holds `content`. `random` must be drawn for every call.
    pub fn seal(
        passphrase: &str,
        random: [u8; SALT + NONCE],
        content: &[u8],
    ) -> Result<String, PassphraseError> {
        let (salt, nonce) = random.split_at(SALT);
        let nonce: [u8; NONCE] = nonce
            .try_into()
            .map_err(|_length| PassphraseError::Derivation)?;
        let payload = Payload {
            msg: content,
            aad: HEADER.as_bytes(),
        };
        let text = passphrase_cipher(passphrase, salt)?
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_too_long| PassphraseError::Derivation)?;
        let bytes = [salt, &nonce, &text].concat();
        let body = data_encoding::BASE64.encode(&bytes);
        Ok(format!("{HEADER}\n{body}\n"))
    }

    /// The content of such a file.
    pub fn open(passphrase: &str, file: &str) -> Result<Vec<u8>, PassphraseError> {
        let body = file
            .trim()
            .strip_prefix(HEADER)
            .filter(|_| file.len() <= MAX_FILE)
            .ok_or(PassphraseError::NotSealed)?;
        let bytes = data_encoding::BASE64
            .decode(body.trim().as_bytes())
            .map_err(|_malformed| PassphraseError::Wrong)?;
        let (salt, rest) = bytes.split_at_checked(SALT).ok_or(PassphraseError::Wrong)?;
        let (nonce, text) = rest
            .split_first_chunk::<NONCE>()
            .ok_or(PassphraseError::Wrong)?;
        let payload = Payload {
            msg: text,
            aad: HEADER.as_bytes(),
        };
        passphrase_cipher(passphrase, salt)?
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_opaque| PassphraseError::Wrong)
    }
}

fn passphrase_cipher(passphrase: &str, salt: &[u8]) -> Result<XChaCha20Poly1305, PassphraseError> {
    let failed = |_error| PassphraseError::Derivation;
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).map_err(failed)?;
    let mut key = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut key)
        .map_err(failed)?;
    Ok(XChaCha20Poly1305::new(&key.into()))
}
