//! The three messages of the gate as bytes.

use crate::chain::{Chain, MAX_CHAIN};
use crate::encode::{Malformed, Reader};
use crate::keyring::Keyring;
use crate::keys::{ClusterId, PublicKey, Signature};
use crate::statement::MAX_ORDER;

use super::Welcome;

/// Bytes of the longest message of the gate: a refusal with an order, or a welcome with the
/// longest chains. Who announces more is cut off before anything is allocated.
pub const MAX_GATE_MESSAGE: usize = 32 * 1024;

const _: () = assert!(4 * MAX_CHAIN + 256 <= MAX_GATE_MESSAGE);

/// Characters of a refusal that are believed to be worth reading.
const MAX_REASON: usize = 500;

const MAGIC: [u8; 7] = *b"dunlin2";
const REFUSED: u8 = 0;
const MEMBER: u8 = 1;
const INVITED: u8 = 2;
const ACCEPTED: u8 = 3;
const WELCOME: u8 = 4;

pub(super) enum Hello {
    Member {
        epoch: u64,
        chain: Chain,
    },
    Invited {
        cluster: ClusterId,
        invite: PublicKey,
        proof: Signature,
    },
}

pub(super) enum Answer {
    Refused {
        reason: String,
        order: Vec<u8>,
    },
    Accepted {
        root: PublicKey,
        chain: Chain,
        keyring: Option<Keyring>,
    },
    Welcome {
        chain: Chain,
        welcome: Box<Welcome>,
    },
}

fn start(kind: u8) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.push(kind);
    bytes
}

fn kind(reader: &mut Reader<'_>) -> Result<u8, Malformed> {
    match reader.array::<7>()? {
        MAGIC => reader.u8(),
        _ => Err(Malformed(
            "it is no dunlin node, or of an incompatible version",
        )),
    }
}

/// A part whose length stands before it; none is empty.
fn part(to: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&len.to_be_bytes());
    to.extend_from_slice(&bytes[..usize::from(len)]);
}

fn read_part<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let len = usize::from(reader.u16()?);
    reader.bytes(len)
}

impl Hello {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Member { epoch, chain } => {
                let mut bytes = start(MEMBER);
                bytes.extend_from_slice(&epoch.to_be_bytes());
                bytes.extend_from_slice(&chain.encode());
                bytes
            }
            Self::Invited {
                cluster,
                invite,
                proof,
            } => {
                let mut bytes = start(INVITED);
                bytes.extend_from_slice(&cluster.0);
                bytes.extend_from_slice(&invite.0);
                bytes.extend_from_slice(&proof.0);
                bytes
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let hello = match kind(&mut reader)? {
            MEMBER => Self::Member {
                epoch: reader.u64()?,
                chain: Chain::read(&mut reader)?,
            },
            INVITED => Self::Invited {
                cluster: ClusterId(reader.array()?),
                invite: PublicKey(reader.array()?),
                proof: Signature(reader.array()?),
            },
            _ => return Err(Malformed("it is no hello")),
        };
        reader.end()?;
        Ok(hello)
    }
}

impl Answer {
    pub(super) fn refused(reason: &str, order: &[u8]) -> Vec<u8> {
        let mut bytes = start(REFUSED);
        let reason: String = reason.chars().take(MAX_REASON).collect();
        part(&mut bytes, reason.as_bytes());
        part(
            &mut bytes,
            if order.len() <= MAX_ORDER { order } else { &[] },
        );
        bytes
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Refused { reason, order } => Self::refused(reason, order),
            Self::Accepted {
                root,
                chain,
                keyring,
            } => {
                let mut bytes = start(ACCEPTED);
                bytes.extend_from_slice(&root.0);
                part(&mut bytes, &chain.encode());
                let keyring = keyring.as_ref().map(Keyring::encode);
                part(&mut bytes, &keyring.unwrap_or_default());
                bytes
            }
            Self::Welcome { chain, welcome } => {
                let mut bytes = start(WELCOME);
                bytes.extend_from_slice(&welcome.root.0);
                part(&mut bytes, &chain.encode());
                part(&mut bytes, &welcome.keyring.encode());
                part(&mut bytes, &welcome.node.encode());
                let role = welcome.role.as_ref().map(Chain::encode);
                part(&mut bytes, &role.unwrap_or_default());
                bytes
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let answer = match kind(&mut reader)? {
            REFUSED => {
                let reason = String::from_utf8_lossy(read_part(&mut reader)?);
                let plain = reason.chars().filter(|c| !c.is_control());
                Self::Refused {
                    reason: plain.take(MAX_REASON).collect(),
                    order: read_part(&mut reader)?.to_vec(),
                }
            }
            ACCEPTED => Self::Accepted {
                root: PublicKey(reader.array()?),
                chain: Chain::decode(read_part(&mut reader)?)?,
                keyring: optional(read_part(&mut reader)?, Keyring::decode)?,
            },
            WELCOME => {
                let root = PublicKey(reader.array()?);
                Self::Welcome {
                    chain: Chain::decode(read_part(&mut reader)?)?,
                    welcome: Box::new(Welcome {
                        root,
                        keyring: Keyring::decode(read_part(&mut reader)?)?,
                        node: Chain::decode(read_part(&mut reader)?)?,
                        role: optional(read_part(&mut reader)?, Chain::decode)?,
                    }),
                }
            }
            _ => return Err(Malformed("it is no answer")),
        };
        reader.end()?;
        Ok(answer)
    }
}

fn optional<T>(
    bytes: &[u8],
    read: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    match bytes.is_empty() {
        true => Ok(None),
        false => read(bytes).map(Some),
    }
}
