//! The X.509 envelope (RFC 5280, RFC 8410): written by hand, because it is always the same but for
//! a key, an extension and a signature; read by a parser that is made for hostile input.

use dunlin_trust::{PublicKey, SecretKey};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::NotOurs;

/// The algorithm identifier of ed25519, whole: `1.3.101.112`.
const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
/// The same identifier alone.
const ED25519_ARCS: &[u8] = &[0x2b, 0x65, 0x70];
/// Of the extension: `2.25` with a UUID (ITU-T X.667), which nobody has to register.
const EXTENSION_ARCS: &[u8] = &[
    0x69, 0x82, 0xa8, 0xd7, 0x9c, 0xfb, 0xf7, 0xe2, 0xc6, 0xd4, 0x87, 0xaf, 0xd1, 0xe3, 0x91, 0xbb,
    0xf5, 0xe1, 0x8d, 0x53,
];
/// From the first instant that the format knows until "no well-defined end" (RFC 5280, 4.1.2.5):
/// the dates that count are those of the chain.
const SINCE: &[u8] = b"700101000000Z";
const UNTIL: &[u8] = b"99991231235959Z";

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTF8: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const LONG_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// A certificate that the key signs for itself.
pub(super) fn certificate(key: &SecretKey, extension: &[u8]) -> Vec<u8> {
    let bits = |bytes: &[u8]| element(BIT_STRING, &[&[0], bytes]);
    let common_name = element(OBJECT, &[&[0x55, 0x04, 0x03]]);
    let pair = element(SEQUENCE, &[&common_name, &element(UTF8, &[b"dunlin"])]);
    let name = element(SEQUENCE, &[&element(SET, &[&pair])]);
    let dates = element(
        SEQUENCE,
        &[&element(UTC_TIME, &[SINCE]), &element(LONG_TIME, &[UNTIL])],
    );
    let public = element(SEQUENCE, &[ED25519, &bits(&key.public().0)]);
    let value = element(OCTET_STRING, &[&element(OCTET_STRING, &[extension])]);
    let ours = element(SEQUENCE, &[&element(OBJECT, &[EXTENSION_ARCS]), &value]);
    let extensions = element(0xa3, &[&element(SEQUENCE, &[&ours])]);
    let content = element(
        SEQUENCE,
        &[
            // Version 3.
            &element(0xa0, &[&element(INTEGER, &[&[2]])]),
            // Serial numbers are for authorities.
            &element(INTEGER, &[&[1]]),
            ED25519,
            &name,
            &dates,
            &name,
            &public,
            &extensions,
        ],
    );
    let signature = key.sign(&content);
    element(SEQUENCE, &[&content, ED25519, &bits(&signature.0)])
}

/// The key as PKCS #8 (RFC 8410, 7).
pub(super) fn private_key(key: &SecretKey) -> Vec<u8> {
    let seed = element(OCTET_STRING, &[&element(OCTET_STRING, &[&key.seed()])]);
    element(SEQUENCE, &[&element(INTEGER, &[&[0]]), ED25519, &seed])
}

/// The key and the extension of such a certificate.
pub(super) fn read(certificate: &[u8]) -> Result<(PublicKey, Vec<u8>), NotOurs> {
    let (rest, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_malformed| NotOurs("its certificate cannot be read"))?;
    let public = &parsed.tbs_certificate.subject_pki;
    let key: [u8; 32] = public
        .subject_public_key
        .data
        .as_ref()
        .try_into()
        .ok()
        .filter(|_| public.algorithm.algorithm.as_bytes() == ED25519_ARCS && rest.is_empty())
        .ok_or(NotOurs("its key is not of the kind that dunlin uses"))?;
    let mut extensions = parsed.tbs_certificate.extensions().iter();
    let extension = extensions
        .find(|e| e.oid.as_bytes() == EXTENSION_ARCS)
        .ok_or(NotOurs("its certificate says nothing of a cluster"))?;
    let (header, inner) = extension
        .value
        .split_first()
        .ok_or(NotOurs("its certificate is empty"))?;
    let content = (*header == OCTET_STRING)
        .then(|| content(inner))
        .flatten()
        .ok_or(NotOurs("its certificate is malformed"))?;
    Ok((PublicKey(key), content.to_vec()))
}

/// What follows a length, if that is all there is.
fn content(bytes: &[u8]) -> Option<&[u8]> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81 => rest
            .split_first_chunk::<1>()
            .map(|(n, r)| (usize::from(n[0]), r))?,
        0x82 => rest
            .split_first_chunk::<2>()
            .map(|(n, r)| (usize::from(u16::from_be_bytes(*n)), r))?,
        _ => return None,
    };
    (rest.len() == length).then_some(rest)
}

/// A tag, a length, and what is in it. Nothing here is longer than 64 KiB.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    match length {
        0..=0x7f => bytes.push(low),
        0x80..=0xff => bytes.extend_from_slice(&[0x81, low]),
        _ => bytes.extend_from_slice(&[0x82, high, low]),
    }
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}
