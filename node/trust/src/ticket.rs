//! The join ticket: everything a fresh host needs to ask for admission, as one line of text.
//!
//! It holds the cluster's id, which is a hash of its root key, so that the newcomer recognises a
//! member by its chain; a secret of 16 bytes, from which the *invite key* is derived; and
//! addresses. Members know the public half of the invite key, with the role it stands for, its
//! end and its uses, from desired state. A ticket therefore stays short, can be counted and taken
//! back, and opens nothing by itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use crate::keys::{ClusterId, PublicKey, SecretKey, Signature};

/// Tickets of this version start so.
const PREFIX: &str = "dunlin2-";
/// More addresses than this do not help a newcomer.
pub const MAX_ADDRESSES: usize = 8;
const CHECKSUM: usize = 4;
/// The longest text worth decoding: 16 + 16 bytes, 8 IPv6 addresses and a checksum, in base32.
const MAX_TEXT: usize = 512;

const INVITE_CONTEXT: &str = "dunlin 2026 invite key";
const PROOF: &[u8] = b"dunlin invite proof 1\0";

/// What a newcomer is given.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Proves that the newcomer was invited. Not to be printed but inside the ticket.
    pub secret: [u8; 16],
    /// Membership addresses of some members.
    pub addresses: Vec<SocketAddr>,
}

/// The key that a ticket's secret stands for.
#[derive(Debug, Clone)]
pub struct InviteKey(SecretKey);

impl InviteKey {
    /// The key of this secret.
    pub fn of(secret: &[u8; 16]) -> Self {
        Self(SecretKey::from_seed(blake3::derive_key(
            INVITE_CONTEXT,
            secret,
        )))
    }

    /// By which members know the invite.
    pub fn id(&self) -> PublicKey {
        self.0.public()
    }

    /// Proves to `member` that `newcomer` holds the ticket; worth nothing to anybody else.
    pub fn prove(&self, cluster: ClusterId, newcomer: &PublicKey, member: &PublicKey) -> Signature {
        self.0.sign(&proof(cluster, newcomer, member))
    }

    /// Checks such a proof.
    pub fn is_proven(
        id: &PublicKey,
        cluster: ClusterId,
        newcomer: &PublicKey,
        member: &PublicKey,
        signature: &Signature,
    ) -> bool {
        id.verifies(&proof(cluster, newcomer, member), signature)
    }
}

fn proof(cluster: ClusterId, newcomer: &PublicKey, member: &PublicKey) -> Vec<u8> {
    [PROOF, &cluster.0, &newcomer.0, &member.0].concat()
}

/// Why a text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadTicket {
    /// It does not look like one.
    #[error(
        "this is no ticket: a ticket starts with '{PREFIX}'; `dunlin ticket` on a member prints one"
    )]
    NotATicket,
    /// It is of an earlier format.
    #[error(
        "this ticket was made by an older dunlin: make a new one with `dunlin ticket` on an upgraded member"
    )]
    Older,
    /// It is of a later format.
    #[error("this ticket was made by a newer dunlin: upgrade this host")]
    Newer,
    /// Characters were lost or changed.
    #[error("the ticket is damaged (its checksum does not match): copy all of it")]
    Damaged,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(MAX_TEXT);
        bytes.extend_from_slice(&self.cluster.0);
        bytes.extend_from_slice(&self.secret);
        for address in self.addresses.iter().take(MAX_ADDRESSES) {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&address.port().to_be_bytes());
        }
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let text = data_encoding::BASE32_NOPAD
            .encode(&bytes)
            .to_ascii_lowercase();
        write!(f, "{PREFIX}{text}")
    }
}

impl fmt::Debug for Ticket {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("cluster", &self.cluster)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(other_version(text));
        };
        if body.len() > MAX_TEXT {
            return Err(BadTicket::Damaged);
        }
        let bytes = data_encoding::BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_malformed| BadTicket::Damaged)?;
        let split = bytes.len().checked_sub(CHECKSUM);
        let (content, sum) = bytes.split_at(split.ok_or(BadTicket::Damaged)?);
        if checksum(content) != sum {
            return Err(BadTicket::Damaged);
        }
        parse(content).ok_or(BadTicket::Damaged)
    }
}

fn other_version(text: &str) -> BadTicket {
    match text.strip_prefix("dunlin").and_then(|t| t.chars().next()) {
        Some('1') => BadTicket::Older,
        Some(c) if c.is_ascii_digit() => BadTicket::Newer,
        Some(_) | None => BadTicket::NotATicket,
    }
}

fn parse(content: &[u8]) -> Option<Ticket> {
    let (cluster, rest) = content.split_first_chunk::<16>()?;
    let (secret, mut rest) = rest.split_first_chunk::<16>()?;
    let mut addresses = Vec::new();
    while let Some((family, after)) = rest.split_first() {
        let (ip, after): (IpAddr, &[u8]) = match family {
            4 => after
                .split_first_chunk::<4>()
                .map(|(ip, r)| (IpAddr::from(*ip), r))?,
            6 => after
                .split_first_chunk::<16>()
                .map(|(ip, r)| (IpAddr::from(*ip), r))?,
            _ => return None,
        };
        let (port, after) = after.split_first_chunk::<2>()?;
        if addresses.len() == MAX_ADDRESSES {
            return None;
        }
        addresses.push(SocketAddr::new(ip, u16::from_be_bytes(*port)));
        rest = after;
    }
    Some(Ticket {
        cluster: ClusterId(*cluster),
        secret: *secret,
        addresses,
    })
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM] {
    let hash = blake3::hash(content);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM]);
    sum
}
