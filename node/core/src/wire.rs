//! What nodes say to each other over the control plane, as bytes.
//!
//! One version byte, then CBOR (RFC 8949). A peer of another version, or one that sends rubbish,
//! gets an error here and nothing else happens. Sizes are checked before anything is decoded;
//! CBOR's lengths are hints that the decoder does not trust with memory.

use bytes::Bytes;
use dunlin_gossip::replication;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{bidding, lease, secrets};

/// The version of this format. Fields can be added within a version; meanings cannot change.
pub const WIRE_VERSION: u8 = 1;

/// Bytes of a message at most: a saved document of a large cluster, and some room.
pub const MAX_MESSAGE_BYTES: usize = 9 * 1024 * 1024;

/// Bytes of a membership message at most. Most fit a datagram; a whole member list, which is sent
/// when two views differ for long, holds up to 256 members of less than 80 bytes.
pub const MAX_SWIM_BYTES: usize = 24 * 1024;

/// Nesting of a message at most; honest ones need less than half of it.
const MAX_DEPTH: usize = 32;

/// A message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerMessage {
    /// A membership message, for when datagrams get lost.
    Swim(Bytes),
    /// Desired and observed state.
    Replication(replication::Message),
    /// The auctions.
    Bidding(bidding::Message),
    /// The keys of secrets.
    Secrets(secrets::Message),
    /// Votes for what must never run twice.
    Lease(lease::Message),
    /// The register of a node that has volumes and cannot tell of them itself, as it signed it.
    Holder(Bytes),
}

/// Why bytes are no message. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// There are no bytes.
    #[error("the message is empty")]
    Empty,
    /// The message is too large.
    #[error("the message has {bytes} bytes, more than the {max} that are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The peer speaks another version.
    #[error(
        "the message has format version {0}, and this node speaks {WIRE_VERSION}: update the older \
         daemon"
    )]
    Version(u8),
    /// It is not what it claims to be.
    #[error("the message cannot be read: {0}")]
    Malformed(String),
}

/// Encodes a message.
///
/// # Errors
/// When it is larger than any receiver would take.
pub fn encode(message: &PeerMessage) -> Result<Bytes, WireError> {
    let mut bytes = vec![WIRE_VERSION];
    ciborium::into_writer(message, &mut bytes)
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    check_size(bytes.len(), MAX_MESSAGE_BYTES)?;
    Ok(bytes.into())
}

/// Decodes a message from a peer.
///
/// # Errors
/// When it is too large, of another version, or malformed.
pub fn decode(bytes: &[u8]) -> Result<PeerMessage, WireError> {
    check_size(bytes.len(), MAX_MESSAGE_BYTES)?;
    let (version, body) = bytes.split_first().ok_or(WireError::Empty)?;
    if *version != WIRE_VERSION {
        return Err(WireError::Version(*version));
    }
    let message = ciborium::de::from_reader_with_recursion_limit(body, MAX_DEPTH)
        .map_err(|error| WireError::Malformed(error.to_string()))?;
    if let PeerMessage::Swim(bytes) = &message {
        check_size(bytes.len(), MAX_SWIM_BYTES)?;
    }
    Ok(message)
}

fn check_size(bytes: usize, max: usize) -> Result<(), WireError> {
    if bytes > max {
        return Err(WireError::TooLarge { bytes, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dunlin_state::model::{NodeId, Slot};
    use proptest::prelude::*;

    use super::*;
    use crate::bidding::{Message, RoundId};
    use crate::placement::Reason;

    fn samples() -> Vec<PeerMessage> {
        let round = RoundId { boot: 3, seq: 9 };
        let node = NodeId::from_bytes([1; 32]);
        vec![
            PeerMessage::Swim(Bytes::from_static(b"ping")),
            PeerMessage::Bidding(Message::Call {
                round,
                service: "web".parse().unwrap(),
                revision: "abc".to_owned(),
                slots: 3,
                by_force: true,
                first: 7,
                moved_from: Some(node),
            }),
            PeerMessage::Bidding(Message::Bid {
                round,
                scores: vec![1, -2, i64::MIN],
            }),
            PeerMessage::Bidding(Message::Refusal {
                round,
                reasons: vec![Reason::Busy, Reason::MaxPerNode(2)],
            }),
            PeerMessage::Bidding(Message::Award {
                round,
                slots: vec![(Slot::Replica(1), 5), (Slot::Node(node), u64::MAX)],
            }),
            PeerMessage::Bidding(Message::AwardRefused {
                round,
                slots: vec![Slot::Replica(0)],
                reason: Reason::FailedHere {
                    reason: "no such image".to_owned(),
                    retry_s: 60,
                },
            }),
        ]
    }

    #[test]
    fn messages_survive_the_wire() {
        for message in samples() {
            let bytes = encode(&message).unwrap();
            assert_eq!(decode(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn other_versions_and_sizes_are_refused() {
        let mut bytes = encode(&samples()[0]).unwrap().to_vec();
        bytes[0] = 9;
        assert_eq!(decode(&bytes), Err(WireError::Version(9)));
        assert_eq!(decode(&[]), Err(WireError::Empty));
        let long = PeerMessage::Swim(vec![0; MAX_SWIM_BYTES + 1].into());
        let refused = decode(&encode(&long).unwrap());
        assert!(matches!(refused, Err(WireError::TooLarge { .. })));
        let huge = PeerMessage::Swim(vec![0; MAX_MESSAGE_BYTES].into());
        assert!(matches!(encode(&huge), Err(WireError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(
            which in 0..6usize,
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut bytes = encode(&samples()[which]).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode(&bytes);
        }
    }
}
