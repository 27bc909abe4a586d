//! The compact binary form of membership messages.
//!
//! A datagram is an envelope of ten bytes and a body. The envelope belongs to this crate: it
//! numbers transmissions, so that loss can be measured and copies dropped. The body is what foca
//! reads and writes: a header, then optionally a count and that many member updates.
//!
//! | envelope | bytes | |
//! |---|---|---|
//! | version | 1 | [`VERSION`]; anything else is refused |
//! | copies | 1 | bits 0-1 which copy, bits 2-3 of how many, bit 4 not numbered; others zero |
//! | number | 2 | of this transmission to this receiver, counting every copy |
//! | loss | 1 | share of the receiver's datagrams that the sender misses, in 1/255 |
//! | stall | 1 | longest recent stall of the sender, in [`STALL_UNIT_MS`] |
//! | view | 4 | digest of the sender's list of active members |
//!
//! Nothing here trusts its input: every read checks what is left, and trailing bytes are an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::TryFromIntError;

use bytes::{Buf, BufMut};
use dunlin_state::model::NodeId;
use foca::{Codec, Header, Member, Message, State};
use thiserror::Error;

use super::MemberId;
use super::identity::WireId;

/// Largest datagram before sealing, bytes: fits the smallest IPv6 path (1,280) with room for the
/// seal, UDP and a tunnel.
pub(super) const MAX_DATAGRAM: usize = 1030;
/// Length of the envelope, bytes.
pub(super) const ENVELOPE: usize = 10;
/// Largest body, bytes.
pub(super) const MAX_BODY: usize = MAX_DATAGRAM - ENVELOPE;
/// Most members in one message over the reliable path: with the longest identities 18 kB, little
/// enough for any queue.
pub(super) const MAX_LISTED: usize = 256;
/// Largest message over the reliable path, bytes.
const MAX_RELIABLE: usize = ENVELOPE + 4 * MAX_ID + MAX_LISTED * (MAX_ID + 3);
/// Unit of the stall report, ms: one byte reaches four seconds.
pub(super) const STALL_UNIT_MS: u64 = 16;
/// First byte of every message.
const VERSION: u8 = 1;
/// Most bytes an identity takes: key, boot, bump, flags, IPv6 address, port.
const MAX_ID: usize = 32 + 10 + 10 + 1 + 16 + 2;
const FLAG_V6: u8 = 1;
const FLAG_LEFT: u8 = 2;
const UNNUMBERED: u8 = 1 << 4;

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum WireError {
    /// It ends too early.
    #[error("the message is cut short")]
    Short,
    /// It goes on after its end.
    #[error("the message has bytes after its end")]
    Trailing,
    /// Longer than its way allows.
    #[error("the message is too long")]
    Long,
    /// Another version of the format.
    #[error("the message has format {0}, this node speaks {VERSION}")]
    Version(u8),
    /// A tag or flag with no meaning.
    #[error("the message has a field with no meaning: {0}")]
    Meaning(u8),
    /// No room left in a buffer that is being written.
    #[error("no room left in the datagram")]
    Full,
}

/// What this crate adds around foca's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Envelope {
    /// Which copy of the message: 0, 1 or 2.
    pub(super) copy: u8,
    /// How many copies there are: 1 to 3.
    pub(super) copies: u8,
    /// Number of this transmission, `None` when the sender keeps no count for the receiver.
    pub(super) number: Option<u16>,
    /// What the sender misses of the receiver's datagrams, in 1/255.
    pub(super) loss: u8,
    /// The sender's longest recent stall, in [`STALL_UNIT_MS`].
    pub(super) stall: u8,
    /// Digest of the sender's list of active members.
    pub(super) view: u32,
}

impl Envelope {
    /// The whole message.
    pub(super) fn wrap(&self, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENVELOPE + body.len());
        out.put_u8(VERSION);
        let flag = if self.number.is_none() { UNNUMBERED } else { 0 };
        out.put_u8((self.copy & 3) | ((self.copies & 3) << 2) | flag);
        out.put_u16(self.number.unwrap_or_default());
        out.put_u8(self.loss);
        out.put_u8(self.stall);
        out.put_u32(self.view);
        out.put_slice(body);
        out
    }

    /// Splits a message in envelope and body.
    pub(super) fn unwrap(message: &[u8], reliable: bool) -> Result<(Self, &[u8]), WireError> {
        let most = if reliable { MAX_RELIABLE } else { MAX_DATAGRAM };
        if message.len() > most {
            return Err(WireError::Long);
        }
        let mut rest = message;
        let version = byte(&mut rest)?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let packed = byte(&mut rest)?;
        let (copy, copies) = (packed & 3, (packed >> 2) & 3);
        if copy >= copies || packed > (UNNUMBERED | 0x0f) {
            return Err(WireError::Meaning(packed));
        }
        let number = rest.try_get_u16().map_err(short)?;
        let envelope = Self {
            copy,
            copies,
            number: (packed & UNNUMBERED == 0).then_some(number),
            loss: byte(&mut rest)?,
            stall: byte(&mut rest)?,
            view: rest.try_get_u32().map_err(short)?,
        };
        Ok((envelope, rest))
    }
}

/// In whose name a message comes, read without judging the rest of it.
pub fn sender(message: &[u8]) -> Option<NodeId> {
    // The tag and the flags of the identity stand before it.
    let start = ENVELOPE + 2;
    let key = message.get(start..start + 32)?;
    Some(NodeId::from_bytes(key.try_into().ok()?))
}

/// A body, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) header: Header<WireId>,
    pub(super) updates: Vec<Member<WireId>>,
}

impl Packet {
    /// Reads a whole body and refuses anything foca would stumble over.
    pub(super) fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut rest = body;
        let header = WireCodec.decode_header(&mut rest)?;
        let mut updates = Vec::new();
        if !rest.is_empty() {
            let count = rest.try_get_u16().map_err(short)?;
            for _ in 0..count {
                updates.push(WireCodec.decode_member(&mut rest)?);
            }
        }
        if !rest.is_empty() || (header.message == Message::Announce && !updates.is_empty()) {
            return Err(WireError::Trailing);
        }
        Ok(Self { header, updates })
    }

    /// The body; fails when it would be longer than [`MAX_BODY`].
    pub(super) fn encode(&self) -> Result<Vec<u8>, WireError> {
        self.encode_within(MAX_BODY)
    }

    /// The body of a message over the reliable path.
    pub(super) fn encode_reliable(&self) -> Result<Vec<u8>, WireError> {
        self.encode_within(MAX_RELIABLE - ENVELOPE)
    }

    fn encode_within(&self, most: usize) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::with_capacity(MAX_BODY).limit(most);
        WireCodec.encode_header(&self.header, &mut out)?;
        if !self.updates.is_empty() {
            if out.remaining_mut() < 2 {
                return Err(WireError::Full);
            }
            out.put_u16(u16::try_from(self.updates.len()).map_err(too_many)?);
            for update in &self.updates {
                WireCodec.encode_member(update, &mut out)?;
            }
        }
        Ok(out.into_inner())
    }
}

/// The form of foca's own part.
#[derive(Debug, Clone, Copy)]
pub(super) struct WireCodec;

impl Codec<WireId> for WireCodec {
    type Error = WireError;

    fn encode_header(
        &mut self,
        header: &Header<WireId>,
        mut buf: impl BufMut,
    ) -> Result<(), WireError> {
        let mut out = Vec::with_capacity(3 * MAX_ID + 4);
        let (tag, number, third) = parts(&header.message);
        out.put_u8(tag);
        put_id(&header.src, &mut out);
        out.put_u16(header.src_incarnation);
        put_id(&header.dst, &mut out);
        if let Some(third) = third {
            put_id(third, &mut out);
        }
        if let Some(number) = number {
            out.put_u8(number);
        }
        put_if_room(&out, &mut buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<WireId>, WireError> {
        let buf = &mut buf;
        let tag = byte(buf)?;
        let src = get_id(buf)?;
        let src_incarnation = buf.try_get_u16().map_err(short)?;
        let dst = get_id(buf)?;
        let message = match tag {
            0 => Message::Ping(byte(buf)?),
            1 => Message::Ack(byte(buf)?),
            2 => Message::PingReq {
                target: get_id(buf)?,
                probe_number: byte(buf)?,
            },
            3 => Message::IndirectPing {
                origin: get_id(buf)?,
                probe_number: byte(buf)?,
            },
            4 => Message::IndirectAck {
                target: get_id(buf)?,
                probe_number: byte(buf)?,
            },
            5 => Message::ForwardedAck {
                origin: get_id(buf)?,
                probe_number: byte(buf)?,
            },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            10 => Message::TurnUndead,
            other => return Err(WireError::Meaning(other)),
        };
        Ok(Header {
            src,
            src_incarnation,
            dst,
            message,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<WireId>,
        mut buf: impl BufMut,
    ) -> Result<(), WireError> {
        let mut out = Vec::with_capacity(MAX_ID + 3);
        put_id(member.id(), &mut out);
        out.put_u16(member.incarnation());
        out.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        put_if_room(&out, &mut buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<WireId>, WireError> {
        let buf = &mut buf;
        let id = get_id(buf)?;
        let incarnation = buf.try_get_u16().map_err(short)?;
        let state = match byte(buf)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            other => return Err(WireError::Meaning(other)),
        };
        Ok(Member::new(id, incarnation, state))
    }
}

/// Tag, probe number and third party of a message.
fn parts(message: &Message<WireId>) -> (u8, Option<u8>, Option<&WireId>) {
    match message {
        Message::Ping(number) => (0, Some(*number), None),
        Message::Ack(number) => (1, Some(*number), None),
        Message::PingReq {
            target,
            probe_number,
        } => (2, Some(*probe_number), Some(target)),
        Message::IndirectPing {
            origin,
            probe_number,
        } => (3, Some(*probe_number), Some(origin)),
        Message::IndirectAck {
            target,
            probe_number,
        } => (4, Some(*probe_number), Some(target)),
        Message::ForwardedAck {
            origin,
            probe_number,
        } => (5, Some(*probe_number), Some(origin)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    }
}

fn put_if_room(bytes: &[u8], buf: &mut impl BufMut) -> Result<(), WireError> {
    if buf.remaining_mut() < bytes.len() {
        return Err(WireError::Full);
    }
    buf.put_slice(bytes);
    Ok(())
}

fn put_id(id: &WireId, out: &mut Vec<u8>) {
    let v6 = if id.member.address.is_ipv6() {
        FLAG_V6
    } else {
        0
    };
    let left = if id.left { FLAG_LEFT } else { 0 };
    out.put_u8(v6 | left);
    out.put_slice(id.member.node.as_bytes());
    put_varint(id.member.boot, out);
    put_varint(u64::from(id.bump), out);
    match id.member.address.ip() {
        IpAddr::V4(ip) => out.put_slice(&ip.octets()),
        IpAddr::V6(ip) => out.put_slice(&ip.octets()),
    }
    out.put_u16(id.member.address.port());
}

fn get_id(buf: &mut impl Buf) -> Result<WireId, WireError> {
    let flags = byte(buf)?;
    if flags & !(FLAG_V6 | FLAG_LEFT) != 0 {
        return Err(WireError::Meaning(flags));
    }
    let node = NodeId::from_bytes(octets(buf)?);
    let boot = get_varint(buf)?;
    let bump = u32::try_from(get_varint(buf)?).map_err(too_large)?;
    let ip: IpAddr = if flags & FLAG_V6 == 0 {
        Ipv4Addr::from(octets(buf)?).into()
    } else {
        Ipv6Addr::from(octets(buf)?).into()
    };
    let port = buf.try_get_u16().map_err(short)?;
    Ok(WireId {
        member: MemberId {
            node,
            boot,
            address: SocketAddr::new(ip, port),
        },
        bump,
        left: flags & FLAG_LEFT != 0,
    })
}

/// LEB128: boots and bumps are small numbers.
fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn get_varint(buf: &mut impl Buf) -> Result<u64, WireError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let next = byte(buf)?;
        let bits = u64::from(next & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(WireError::Meaning(next));
        }
        value |= bits << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Meaning(u8::MAX))
}

fn byte(buf: &mut impl Buf) -> Result<u8, WireError> {
    buf.try_get_u8().map_err(short)
}

fn octets<const N: usize>(buf: &mut impl Buf) -> Result<[u8; N], WireError> {
    let mut out = [0; N];
    buf.try_copy_to_slice(&mut out).map_err(short)?;
    Ok(out)
}

fn too_many(_: TryFromIntError) -> WireError {
    WireError::Full
}

fn too_large(_: TryFromIntError) -> WireError {
    WireError::Meaning(u8::MAX)
}

fn short(_: bytes::TryGetError) -> WireError {
    WireError::Short
}
