//! The join ticket: everything a fresh host needs to become a member, as one line of text.
//!
//! A ticket holds the cluster's key: whoever has it can join. It is text that survives mail and
//! chat (lower-case base32), carries a version, and a checksum so that a mangled one is told from
//! a foreign one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

use crate::cluster::Cluster;

/// Tickets of this version start so.
const PREFIX: &str = "dunlin1-";
/// More addresses than this do not help a newcomer.
pub(crate) const MAX_ADDRESSES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
/// The longest text worth decoding: 16 + 32 bytes, 8 IPv6 addresses and a checksum, in base32.
const MAX_TEXT: usize = 512;

/// What a newcomer is given.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The cluster and its key.
    pub cluster: Cluster,
    /// Membership addresses of some members.
    pub addresses: Vec<SocketAddr>,
}

/// Why a text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadTicket {
    /// It does not look like one.
    #[error(
        "this is no ticket: a ticket starts with '{PREFIX}'; `dunlin ticket` on a member prints one"
    )]
    NotATicket,
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
        bytes.extend_from_slice(&self.cluster.id);
        bytes.extend_from_slice(&self.cluster.key);
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
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let text = data_encoding::BASE32_NOPAD
            .encode(&bytes)
            .to_ascii_lowercase();
        write!(f, "{PREFIX}{text}")
    }
}

impl fmt::Debug for Ticket {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("cluster", &self.cluster)
            .field("addresses", &self.addresses)
            .finish()
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(PREFIX) else {
            let newer = text
                .strip_prefix("dunlin")
                .is_some_and(|t| t.starts_with(|c: char| c.is_ascii_digit()));
            return Err(if newer {
                BadTicket::Newer
            } else {
                BadTicket::NotATicket
            });
        };
        if body.len() > MAX_TEXT {
            return Err(BadTicket::Damaged);
        }
        let bytes = data_encoding::BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_malformed| BadTicket::Damaged)?;
        let split = bytes
            .len()
            .checked_sub(CHECKSUM_BYTES)
            .ok_or(BadTicket::Damaged)?;
        let (content, sum) = bytes.split_at(split);
        if checksum(content) != sum {
            return Err(BadTicket::Damaged);
        }
        parse(content).ok_or(BadTicket::Damaged)
    }
}

fn parse(content: &[u8]) -> Option<Ticket> {
    let (id, rest) = content.split_first_chunk::<16>()?;
    let (key, mut rest) = rest.split_first_chunk::<32>()?;
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
        cluster: Cluster { id: *id, key: *key },
        addresses,
    })
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::hash(content);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            cluster: Cluster {
                id: [7; 16],
                key: [9; 32],
            },
            addresses: vec![
                "10.0.0.1:7400".parse().unwrap(),
                "[fd00::1]:7400".parse().unwrap(),
            ],
        }
    }

    #[test]
    fn what_is_written_can_be_read() {
        assert_eq!(ticket().to_string().parse(), Ok(ticket()));
        assert_eq!(format!("  {}\n", ticket()).parse(), Ok(ticket()));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let text = ticket().to_string();
        for at in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(
                changed.parse::<Ticket>(),
                Err(BadTicket::Damaged),
                "at {at}"
            );
        }
    }

    #[test]
    fn the_error_says_what_is_wrong() {
        let cases = [
            ("", BadTicket::NotATicket),
            ("SWMTKN-1-abc", BadTicket::NotATicket),
            ("dunlin2-abc", BadTicket::Newer),
            ("dunlin1-", BadTicket::Damaged),
            ("dunlin1-!!", BadTicket::Damaged),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Ticket>(), Err(error), "{text}");
        }
    }

    #[test]
    fn debug_output_does_not_leak_the_key() {
        let shown = format!("{:?}", ticket());
        assert!(!shown.contains("9, 9"), "{shown}");
    }
}
