//! Sealing of membership datagrams: only members can read and write them, and each is bound to
//! the member that wrote it.
//!
//! ```text
//! version (1) | key id (4) | nonce (24) | ciphertext of: sender (32), signature (64), text | tag (16)
//! ```
//!
//! The cipher is XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) under a key derived from the
//! cluster's keyring, so strangers cost one failed tag and learn nothing, not even who is there.
//! Inside stands the sender's public key and its ed25519 signature over everything: a member that
//! lies can lie in its own name only. The nonce is
//!
//! ```text
//! start of the sender's key (8) | its boot count (8) | number of the datagram in that life (8)
//! ```
//!
//! which never repeats, because boot counts do not, and which tells a replay: each sender's
//! numbers are taken once, within a window of [`WINDOW`]. The key id lets the current and the
//! previous key be told apart while a cluster changes keys.
//!
//! Signatures cost 25 µs to make and 50 µs to check on one old core, for some ten datagrams a
//! second: a thousandth of it. Keys agreed between each pair of nodes would cost less and need 48
//! bytes less, but a newcomer knows an address to call and not yet who lives there, and every
//! node would keep a key for every other one.

use std::collections::BTreeMap;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use dunlin_trust::{PublicKey, SecretKey, Signature};
use thiserror::Error;

/// Bytes of the largest sealed datagram: fits the smallest IPv6 MTU (1,280, RFC 8200) with the IP
/// and UDP headers and a tunnel's overhead, so that no path fragments it.
pub const MAX_SEALED: usize = 1_178;

const VERSION: u8 = 2;
const KEY_ID: usize = 4;
const HEADER: usize = 1 + KEY_ID;
const NONCE: usize = 24;
const SIGNER: usize = 32 + 64;
const TAG: usize = 16;

/// Bytes that sealing adds.
pub const OVERHEAD: usize = HEADER + NONCE + SIGNER + TAG;

/// Bytes of plain text that may be sealed.
pub const MAX_PLAIN: usize = MAX_SEALED - OVERHEAD;

/// How far behind a sender's newest datagram an older one may arrive: seconds of its traffic.
pub const WINDOW: u64 = 128;

/// Senders whose numbers are remembered: several times the design size. Beyond, one is forgotten,
/// whose last datagrams could then be replayed once.
const MAX_SENDERS: usize = 8_192;

const KEY_ID_CONTEXT: &str = "dunlin 2026 membership datagram key id v2";
const DOMAIN: &[u8] = b"dunlin datagram 2\0";

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
    /// Sealed by a member in another one's name.
    #[error("it was not signed by {0:?}, in whose name it comes")]
    Impersonated(PublicKey),
    /// Seen before, or too old to tell.
    #[error("it has been seen before, or is too old to tell")]
    Replayed,
}

/// The symmetric key of a keyring.
#[derive(Clone)]
pub struct SealKey {
    id: [u8; KEY_ID],
    cipher: XChaCha20Poly1305,
}

impl PartialEq for SealKey {
    /// Two keys of one id would be two halves of a collision.
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl SealKey {
    /// From the keyring's key for datagrams.
    pub fn new(key: &[u8; 32]) -> Self {
        let hash = blake3::derive_key(KEY_ID_CONTEXT, key);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&hash[..KEY_ID]);
        Self {
            id,
            cipher: XChaCha20Poly1305::new(&(*key).into()),
        }
    }

    /// Whether a datagram claims to be sealed with this key.
    pub fn is_of(&self, sealed: &[u8]) -> bool {
        sealed.get(1..HEADER) == Some(self.id.as_slice())
    }
}

/// Seals in the name of one life of one node.
pub struct Sealer {
    me: SecretKey,
    sender: PublicKey,
    boot: u64,
    number: u64,
}

impl Sealer {
    /// For the `boot`-th life of the node with this key; a boot count must never come again.
    pub fn new(me: SecretKey, boot: u64) -> Self {
        Self {
            sender: me.public(),
            me,
            boot,
            number: 0,
        }
    }

    /// Seals `plain`.
    pub fn seal(&mut self, key: &SealKey, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let too_long = SealError::TooLong(plain.len());
        if plain.len() > MAX_PLAIN {
            return Err(too_long);
        }
        self.number = self.number.saturating_add(1);
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id);
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(&self.sender.0[..8]);
        nonce[8..16].copy_from_slice(&self.boot.to_be_bytes());
        nonce[16..].copy_from_slice(&self.number.to_be_bytes());
        let signature = self.me.sign(&signed(&sealed, &nonce, plain));
        let text = [&self.sender.0[..], &signature.0, plain].concat();
        let payload = Payload {
            msg: &text,
            aad: &sealed,
        };
        let text = key
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            // The cipher refuses nothing but lengths near 2^38 bytes.
            .map_err(|_opaque| too_long)?;
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&text);
        Ok(sealed)
    }
}

fn signed(header: &[u8], nonce: &[u8; NONCE], plain: &[u8]) -> Vec<u8> {
    [DOMAIN, header, nonce, plain].concat()
}

/// Opens, and remembers what it has opened.
#[derive(Debug, Default)]
pub struct Opener {
    senders: BTreeMap<PublicKey, Window>,
}

/// Which numbers of a sender have come.
#[derive(Debug, Clone, Copy)]
struct Window {
    boot: u64,
    newest: u64,
    /// Bit n: the n-th before the newest has come.
    seen: u128,
}

impl Opener {
    /// Opens what [`Sealer::seal`] of any member made with this key, once, and says who it was.
    pub fn open(&mut self, key: &SealKey, sealed: &[u8]) -> Result<(PublicKey, Bytes), OpenError> {
        if !(OVERHEAD..=MAX_SEALED).contains(&sealed.len()) {
            return Err(OpenError::Length(sealed.len()));
        }
        let (header, rest) = sealed.split_at(HEADER);
        let Some((nonce, text)) = rest.split_first_chunk::<NONCE>() else {
            return Err(OpenError::Length(sealed.len()));
        };
        if header[0] != VERSION {
            return Err(OpenError::Version(header[0]));
        }
        if !key.is_of(sealed) {
            return Err(OpenError::UnknownKey);
        }
        let payload = Payload {
            msg: text,
            aad: header,
        };
        let opened = key.cipher.decrypt(&XNonce::from(*nonce), payload);
        let opened = Bytes::from(opened.map_err(|_opaque| OpenError::Forged)?);
        let Some((sender, rest)) = opened.split_first_chunk::<32>() else {
            return Err(OpenError::Forged);
        };
        let Some((signature, plain)) = rest.split_first_chunk::<64>() else {
            return Err(OpenError::Forged);
        };
        let sender = PublicKey(*sender);
        let (boot, number) = (at(nonce, 8), at(nonce, 16));
        let window = self.senders.get(&sender).copied();
        let window = advance(window, boot, number).ok_or(OpenError::Replayed)?;
        let signature = Signature(*signature);
        let genuine = nonce[..8] == sender.0[..8]
            && sender.verifies(&signed(header, nonce, plain), &signature);
        if !genuine {
            return Err(OpenError::Impersonated(sender));
        }
        self.remember(sender, window);
        Ok((sender, opened.slice(SIGNER..)))
    }

    fn remember(&mut self, sender: PublicKey, window: Window) {
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&sender) {
            self.senders.pop_first();
        }
        self.senders.insert(sender, window);
    }
}

fn at(nonce: &[u8; NONCE], start: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&nonce[start..start + 8]);
    u64::from_be_bytes(bytes)
}

/// The window after this number, or `None` when it has come before or is too old to tell.
fn advance(window: Option<Window>, boot: u64, number: u64) -> Option<Window> {
    let first = Window {
        boot,
        newest: number,
        seen: 1,
    };
    let Some(window) = window.filter(|window| window.boot >= boot) else {
        return Some(first);
    };
    if window.boot > boot {
        return None;
    }
    if number > window.newest {
        let shift = u32::try_from(number - window.newest).unwrap_or(u32::MAX);
        let seen = window.seen.checked_shl(shift).unwrap_or(0) | 1;
        return Some(Window { seen, ..first });
    }
    let age = window.newest - number;
    let bit = (age < WINDOW).then(|| 1_u128 << age)?;
    (window.seen & bit == 0).then_some(Window {
        seen: window.seen | bit,
        ..window
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(n: u8) -> SealKey {
        SealKey::new(&[n; 32])
    }

    fn sealer(n: u8, boot: u64) -> Sealer {
        Sealer::new(SecretKey::from_seed([n; 32]), boot)
    }

    fn open(key: &SealKey, sealed: &[u8]) -> Result<(PublicKey, Bytes), OpenError> {
        Opener::default().open(key, sealed)
    }

    #[test]
    fn the_largest_plain_text_fits_and_a_longer_one_is_refused() {
        let plain = [9; MAX_PLAIN];
        let mut sealer = sealer(1, 1);
        let sealed = sealer.seal(&key(1), &plain).unwrap();
        assert_eq!(sealed.len(), MAX_SEALED);
        let (sender, opened) = open(&key(1), &sealed).unwrap();
        assert_eq!((sender, &opened[..]), (sealer.sender, &plain[..]));
        let refused = sealer.seal(&key(1), &[0; MAX_PLAIN + 1]);
        assert_eq!(refused, Err(SealError::TooLong(MAX_PLAIN + 1)));
    }

    #[test]
    fn lengths_that_cannot_be_ours_are_refused_before_any_work() {
        for len in [0, 1, OVERHEAD - 1, MAX_SEALED + 1, 65_507] {
            let refused = open(&key(1), &vec![VERSION; len]);
            assert_eq!(refused, Err(OpenError::Length(len)));
        }
    }

    #[test]
    fn another_keys_and_another_versions_datagrams_are_refused() {
        let mut sealed = sealer(1, 1).seal(&key(2), b"hello").unwrap();
        assert_eq!(open(&key(1), &sealed), Err(OpenError::UnknownKey));
        sealed[0] = 9;
        assert_eq!(open(&key(2), &sealed), Err(OpenError::Version(9)));
    }

    #[test]
    fn each_datagram_is_taken_once_in_any_order_within_the_window() {
        let (mut sealer, mut opener) = (sealer(1, 7), Opener::default());
        let sealed: Vec<_> = (0..200)
            .map(|_| sealer.seal(&key(1), b"x").unwrap())
            .collect();
        for index in [100, 99, 101, 150, 60, 199] {
            assert!(opener.open(&key(1), &sealed[index]).is_ok(), "{index}");
            let again = opener.open(&key(1), &sealed[index]);
            assert_eq!(again, Err(OpenError::Replayed), "{index}");
        }
        let old = opener.open(&key(1), &sealed[199 - WINDOW as usize]);
        assert_eq!(old, Err(OpenError::Replayed));
    }

    #[test]
    fn an_earlier_life_is_over_once_the_next_was_heard() {
        let mut opener = Opener::default();
        let (old, new) = (
            sealer(1, 7).seal(&key(1), b"old").unwrap(),
            sealer(1, 8).seal(&key(1), b"new").unwrap(),
        );
        assert!(opener.open(&key(1), &new).is_ok());
        assert_eq!(opener.open(&key(1), &old), Err(OpenError::Replayed));
    }

    #[test]
    fn a_member_cannot_speak_in_anothers_name() {
        let victim = SecretKey::from_seed([2; 32]).public();
        let mut liar = sealer(1, 1);
        liar.sender = victim;
        let sealed = liar.seal(&key(1), b"I am leaving").unwrap();
        assert_eq!(open(&key(1), &sealed), Err(OpenError::Impersonated(victim)));
        // And it does not use up the victim's numbers.
        let mut opener = Opener::default();
        assert!(opener.open(&key(1), &sealed).is_err());
        let honest = sealer(2, 1).seal(&key(1), b"I am here").unwrap();
        assert!(opener.open(&key(1), &honest).is_ok());
    }

    #[test]
    fn the_memory_for_senders_is_bounded() {
        let mut opener = Opener::default();
        let window = advance(None, 1, 1).unwrap();
        for n in 0..MAX_SENDERS + 100 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            opener.remember(PublicKey(key), window);
        }
        assert_eq!(opener.senders.len(), MAX_SENDERS);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(plain in proptest::collection::vec(any::<u8>(), 0..=MAX_PLAIN)) {
            let sealed = sealer(1, 1).seal(&key(1), &plain).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(open(&key(1), &sealed).unwrap().1, plain);
        }

        #[test]
        fn any_changed_bit_is_noticed(plain in proptest::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0u8..8) {
            let mut sealed = sealer(1, 1).seal(&key(1), &plain).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(open(&key(1), &sealed).is_err());
        }

        #[test]
        fn any_truncation_is_noticed(plain in proptest::collection::vec(any::<u8>(), 0..200), keep: prop::sample::Index) {
            let sealed = sealer(1, 1).seal(&key(1), &plain).unwrap();
            prop_assert!(open(&key(1), &sealed[..keep.index(sealed.len())]).is_err());
        }

        #[test]
        fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..1_400)) {
            prop_assert!(open(&key(1), &noise).is_err());
        }
    }
}
