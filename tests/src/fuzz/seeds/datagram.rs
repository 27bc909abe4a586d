//! Sealed membership datagrams, and what members could seal.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use dunlin_gossip::net::seal::{SealKey, Sealer};

use super::key;

/// The key of the cluster's membership datagrams.
pub const DATAGRAM_KEY: [u8; 32] = [0x0d; 32];

/// Bytes of a sealed datagram before its nonce: version and key id.
const SEALED_HEADER: usize = 5;

/// Bytes of its nonce.
const SEALED_NONCE: usize = 24;

/// A datagram of member 1.
fn datagram(text: &[u8]) -> Vec<u8> {
    let mut sealer = Sealer::new(key(1), 1);
    let sealed = sealer.seal(&SealKey::new(&DATAGRAM_KEY), text);
    sealed.unwrap_or_default()
}

/// What somebody with the cluster's key can make of any bytes: the nonce, and then what the seal
/// covers.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    let (nonce, text) = bytes.split_at(bytes.len().min(SEALED_NONCE));
    let mut padded = [0; SEALED_NONCE];
    padded[..nonce.len()].copy_from_slice(nonce);
    let header = datagram(&[])[..SEALED_HEADER].to_vec();
    let payload = Payload {
        msg: text,
        aad: &header,
    };
    let cipher = XChaCha20Poly1305::new(&DATAGRAM_KEY.into());
    let text = cipher.encrypt(&XNonce::from(padded), payload);
    [&header, &padded[..], &text.unwrap_or_default()].concat()
}

pub(super) fn encodings() -> Vec<Vec<u8>> {
    let whole = datagram(b"ping");
    let (header, rest) = whole.split_at(SEALED_HEADER);
    let (nonce, text) = rest.split_at(SEALED_NONCE);
    let cipher = XChaCha20Poly1305::new(&DATAGRAM_KEY.into());
    let payload = Payload {
        msg: text,
        aad: header,
    };
    let mut padded = [0; SEALED_NONCE];
    padded.copy_from_slice(nonce);
    let opened = cipher.decrypt(&XNonce::from(padded), payload);
    let inside = [nonce, &opened.unwrap_or_default()].concat();
    vec![whole, inside]
}
