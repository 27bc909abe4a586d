//! Reading a query without allocating, and the few bytes of an answer that are no records.
//!
//! Queries come from strangers. A query that is served has exactly one question, no records but
//! EDNS and a signature, no compressed question name, and nothing after its last record. Hickory
//! would decode more, and allocate for it; it is what the tests compare this reader with.

use hickory_proto::op::{OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

/// Length of a DNS header in bytes (RFC 1035, 4.1.1).
pub(crate) const HEADER: usize = 12;

/// Longest name in wire form (RFC 1035, 2.3.4).
pub(crate) const MAX_NAME: usize = 255;

/// Most labels of a name: each takes two octets at least, and the root one.
const MAX_LABELS: usize = 127;

/// Longest label (RFC 1035, 2.3.4).
const MAX_LABEL: u8 = 63;

/// Most additional records of a query: EDNS and a transaction signature.
const MAX_ADDITIONAL: u16 = 2;

/// Largest answer over UDP in bytes without EDNS (RFC 1035, 4.2.1).
pub(crate) const MAX_PLAIN_UDP: u16 = 512;

/// Largest answer over UDP in bytes, whatever the client offers: what passes every path without
/// fragmenting, as agreed for the DNS flag day of 2020. It also bounds amplification.
pub(crate) const MAX_UDP: u16 = 1232;

/// Length of an EDNS record without options (RFC 6891, 6.1.2).
pub(crate) const OPT: usize = 11;

/// Bits of the third and fourth byte of a header (RFC 1035, 4.1.1; RFC 4035, 3).
pub(crate) mod flag {
    /// Third byte: an answer.
    pub(crate) const QR: u8 = 0x80;
    /// Third byte: the operation.
    pub(crate) const OPCODE: u8 = 0x78;
    /// Third byte: authoritative.
    pub(crate) const AA: u8 = 0x04;
    /// Third byte: cut, ask over TCP.
    pub(crate) const TC: u8 = 0x02;
    /// Third byte: recursion desired.
    pub(crate) const RD: u8 = 0x01;
    /// Fourth byte: recursion available.
    pub(crate) const RA: u8 = 0x80;
    /// Fourth byte: authentic data.
    pub(crate) const AD: u8 = 0x20;
    /// Fourth byte: checking disabled.
    pub(crate) const CD: u8 = 0x10;
}

/// A name in wire form and lower case, without its root label.
#[derive(Clone)]
pub struct WireName {
    bytes: [u8; MAX_NAME],
    length: u8,
    /// Where its labels start.
    starts: [u8; MAX_LABELS],
    labels: u8,
}

impl WireName {
    /// The name's labels in wire form.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or_default()
    }

    /// How many labels it has.
    pub fn labels(&self) -> usize {
        self.labels.into()
    }

    /// The part from label `index` on, counted from the left; empty beyond the last.
    pub fn from_label(&self, index: usize) -> &[u8] {
        let bytes = self.as_bytes();
        let starts = self.starts.get(..self.labels()).unwrap_or_default();
        match starts.get(index) {
            Some(start) => bytes.get(usize::from(*start)..).unwrap_or_default(),
            None => &[],
        }
    }

    /// Reads an uncompressed name at `at` of `packet`; also gives where it ends.
    pub(crate) fn read(packet: &[u8], mut at: usize) -> Option<(Self, usize)> {
        let mut name = Self {
            bytes: [0; MAX_NAME],
            length: 0,
            starts: [0; MAX_LABELS],
            labels: 0,
        };
        loop {
            let length = *packet.get(at)?;
            if length == 0 {
                return Some((name, at + 1));
            }
            if length > MAX_LABEL {
                return None;
            }
            let end = at + 1 + usize::from(length);
            let label = packet.get(at..end)?;
            let from = usize::from(name.length);
            // The root label needs the last octet.
            if from + label.len() >= MAX_NAME {
                return None;
            }
            let room = name.bytes.get_mut(from..from + label.len())?;
            room.copy_from_slice(label);
            // The length octet is below 64, so it is no letter.
            room.make_ascii_lowercase();
            *name.starts.get_mut(usize::from(name.labels))? = name.length;
            name.labels += 1;
            name.length += u8::try_from(label.len()).ok()?;
            at = end;
        }
    }
}

impl std::fmt::Debug for WireName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

/// What a client says with EDNS (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// Largest datagram it takes, in bytes.
    pub payload: u16,
    /// The version it speaks.
    pub version: u8,
    /// Whether it wants signatures (RFC 3225).
    pub dnssec_ok: bool,
}

/// A well-formed query with one question.
#[derive(Debug, Clone)]
pub struct Query<'p> {
    packet: &'p [u8],
    question_end: usize,
    /// The name asked for.
    pub name: WireName,
    /// The type of records asked for.
    pub record_type: RecordType,
    /// The class asked for.
    pub class: DNSClass,
    /// What the client says with EDNS, if it does.
    pub edns: Option<Edns>,
}

/// What a packet is.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost an allocation per query"
)]
pub enum Packet<'p> {
    /// Too short for a header, or itself an answer: it gets none, or two servers could answer each
    /// other for ever.
    Silent,
    /// Not served, with this code.
    Bad(ResponseCode),
    /// A query.
    Query(Query<'p>),
}

impl<'p> Packet<'p> {
    /// Reads a packet.
    pub fn read(packet: &'p [u8]) -> Self {
        let Some(header) = packet.first_chunk::<HEADER>() else {
            return Self::Silent;
        };
        if header[2] & flag::QR != 0 {
            return Self::Silent;
        }
        if OpCode::from_u8((header[2] & flag::OPCODE) >> 3) != OpCode::Query {
            return Self::Bad(ResponseCode::NotImp);
        }
        match Query::read(packet, header) {
            Some(query) => Self::Query(query),
            None => Self::Bad(ResponseCode::FormErr),
        }
    }
}

impl<'p> Query<'p> {
    fn read(packet: &'p [u8], header: &[u8; HEADER]) -> Option<Self> {
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let additional = count(10);
        if count(4) != 1 || count(6) != 0 || count(8) != 0 || additional > MAX_ADDITIONAL {
            return None;
        }
        let (name, at) = WireName::read(packet, HEADER)?;
        let question_end = at + 4;
        let record_type = RecordType::from(u16_at(packet, at)?);
        let class = DNSClass::from(u16_at(packet, at + 2)?);
        if record_type == RecordType::OPT {
            return None;
        }
        let edns = read_additional(packet, question_end, additional)?;
        Some(Self {
            packet,
            question_end,
            name,
            record_type,
            class,
            edns,
        })
    }

    /// The whole packet.
    pub fn packet(&self) -> &'p [u8] {
        self.packet
    }

    /// The question as it came, in the client's case: name, type and class.
    pub fn question(&self) -> &'p [u8] {
        let question = self.packet.get(HEADER..self.question_end);
        question.unwrap_or_default()
    }

    /// Third and fourth byte of the header.
    pub(crate) fn flags(&self) -> (u8, u8) {
        match self.packet {
            [_, _, third, fourth, ..] => (*third, *fourth),
            _short => (0, 0),
        }
    }

    /// Largest answer in bytes.
    pub(crate) fn limit(&self, transport: Transport) -> usize {
        let limit = match (transport, self.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => MAX_PLAIN_UDP,
            (Transport::Udp, Some(edns)) => edns.payload.clamp(MAX_PLAIN_UDP, MAX_UDP),
        };
        limit.into()
    }
}

/// How a query came, which says how large its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream, with its length before it.
    Tcp,
}

/// Reads the records after the question, which must fill the rest of the packet. The outer option
/// is whether they are well-formed, the inner one whether there is EDNS among them.
fn read_additional(packet: &[u8], mut at: usize, count: u16) -> Option<Option<Edns>> {
    let mut edns = None;
    for _ in 0..count {
        let owner = at;
        at = skip_name(packet, at)?;
        let kind = RecordType::from(u16_at(packet, at)?);
        let (class, ttl) = (u16_at(packet, at + 2)?, u32_at(packet, at + 4)?);
        let data = at + 10;
        at = data + usize::from(u16_at(packet, at + 8)?);
        let data = packet.get(data..at)?;
        if kind == RecordType::OPT {
            // One at most, owned by the root (RFC 6891, 6.1.1).
            if edns.is_some() || packet.get(owner) != Some(&0) || !are_options(data) {
                return None;
            }
            let [_, version, flags, _] = ttl.to_be_bytes();
            edns = Some(Edns {
                payload: class,
                version,
                dnssec_ok: flags & 0x80 != 0,
            });
        }
    }
    (at == packet.len()).then_some(edns)
}

fn are_options(mut data: &[u8]) -> bool {
    while let [_, _, high, low, rest @ ..] = data {
        match rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) {
            Some(after) => data = after,
            None => return false,
        }
    }
    data.is_empty()
}

/// Where the name at `at` ends. A pointer ends a name, so this follows none and always ends.
pub(crate) fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=MAX_LABEL => at += 1 + usize::from(length),
            0xc0.. => return (at + 2 <= packet.len()).then_some(at + 2),
            _reserved => return None,
        }
    }
}

pub(crate) fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    let bytes = packet.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

pub(crate) fn u32_at(packet: &[u8], at: usize) -> Option<u32> {
    let bytes = packet.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The EDNS record of an answer: what this server takes, the upper bits of the code, and the
/// client's wish for signatures, copied (RFC 3225, 3).
pub(crate) fn opt(code: ResponseCode, dnssec_ok: bool) -> [u8; OPT] {
    let [high, low] = MAX_UDP.to_be_bytes();
    let flags = if dnssec_ok { 0x80 } else { 0 };
    [0, 0, 41, high, low, code.high(), 0, flags, 0, 0, 0]
}

#[cfg(test)]
mod tests;
