//! An answer of an upstream resolver, checked and kept as the bytes it came in.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use thiserror::Error;

use super::{FAILURE, Key, LONGEST, LONGEST_DENIAL};
use crate::answer::{Counts, Out};
use crate::wire::{HEADER, WireName, flag, skip_name, u16_at, u32_at};

/// Most bytes of an answer that is kept for later. Larger ones are rare, and a few of them would
/// push everything else out.
const MAX_KEPT: usize = 4_096;

/// What an upstream sent is not the answer to the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum BadReply {
    /// It answers something else, or is forged.
    #[error("it does not answer the question")]
    Foreign,
    /// It cannot be read.
    #[error("it is malformed")]
    Malformed,
    /// It did not fit into the datagram.
    #[error("it is cut")]
    Cut,
    /// The upstream does not know EDNS (RFC 6891, 7).
    #[error("EDNS is not understood")]
    NoEdns,
    /// It could not or would not answer.
    #[error("the upstream answers {0}")]
    Failed(ResponseCode),
}

/// A checked answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    code: ResponseCode,
    authentic: bool,
    counts: Counts,
    /// What follows the question, without EDNS.
    body: Box<[u8]>,
    /// Where in it lifetimes stand.
    lifetimes: Box<[u16]>,
    /// How long it may be kept.
    pub(super) keep: Duration,
}

impl Stored {
    /// Reads the reply to a question. `id` is what the question had.
    pub(super) fn read(packet: &[u8], id: u16, key: &Key) -> Result<Self, BadReply> {
        let header = packet.first_chunk::<HEADER>().ok_or(BadReply::Malformed)?;
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let answers = header[2] & flag::QR != 0 && header[2] & flag::OPCODE == 0;
        if !answers || count(0) != id {
            return Err(BadReply::Foreign);
        }
        let code = ResponseCode::from_low(header[3]);
        let question = (count(4) == 1)
            .then(|| WireName::read(packet, HEADER))
            .flatten();
        let Some((name, at)) = question else {
            // Servers from before EDNS may send the header alone.
            return Err(match code {
                ResponseCode::FormErr | ResponseCode::NotImp => BadReply::NoEdns,
                _other => BadReply::Foreign,
            });
        };
        let same = key.name.strip_suffix(&[0]) == Some(name.as_bytes())
            && u16_at(packet, at) == Some(key.record_type)
            && u16_at(packet, at + 2) == Some(key.class);
        if !same {
            return Err(BadReply::Foreign);
        }
        match code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            ResponseCode::FormErr | ResponseCode::NotImp => return Err(BadReply::NoEdns),
            other => return Err(BadReply::Failed(other)),
        }
        if header[2] & flag::TC != 0 {
            return Err(BadReply::Cut);
        }
        let sections = [count(6), count(8), count(10)];
        let walked = walk(packet, at + 4, sections).ok_or(BadReply::Malformed)?;
        match walked.edns {
            Edns::InTheMiddle => {
                let without = without_edns(packet).ok_or(BadReply::Malformed)?;
                Self::read(&without, id, key)
            }
            Edns::ExtendedCode => Err(BadReply::Failed(ResponseCode::ServFail)),
            Edns::None | Edns::Last => {
                let authentic = header[3] & flag::AD != 0;
                Ok(walked.into_stored(packet, at + 4, code, authentic))
            }
        }
    }

    /// A failure, to be kept for a moment.
    pub(super) fn failure() -> Self {
        Self {
            code: ResponseCode::ServFail,
            authentic: false,
            counts: Counts::default(),
            body: Box::default(),
            lifetimes: Box::default(),
            keep: FAILURE,
        }
    }

    /// Whether it is worth a place in the cache.
    pub(super) fn is_kept(&self) -> bool {
        self.keep > Duration::ZERO && self.body.len() <= MAX_KEPT
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.body.len() + 2 * self.lifetimes.len()
    }

    /// Writes the answer for a client, `age` after it came.
    pub(super) fn write(&self, out: &mut Out<'_, '_>, age: Duration) {
        out.start(self.code, 0);
        if self.body.len() > out.room() {
            return out.empty(self.code, flag::TC);
        }
        let start = out.reply.len();
        out.reply.extend_from_slice(&self.body);
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        if age > 0 {
            for at in &self.lifetimes {
                let at = start + usize::from(*at);
                if let Some(field) = out.reply.get_mut(at..at + 4)
                    && let Ok(bytes) = <[u8; 4]>::try_from(&*field)
                {
                    let left = lifetime(u32::from_be_bytes(bytes)).saturating_sub(age);
                    field.copy_from_slice(&left.to_be_bytes());
                }
            }
        }
        // A client that understands the bit has set it, or asks for signatures (RFC 6840, 5.8).
        let (_, asked) = out.query.flags();
        let understands = asked & flag::AD != 0 || out.query.edns.is_some_and(|e| e.dnssec_ok);
        if self.authentic
            && understands
            && let Some(fourth) = out.reply.get_mut(3)
        {
            *fourth |= flag::AD;
        }
        out.finish(self.code, self.counts);
    }
}

/// EDNS in an upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edns {
    None,
    Last,
    InTheMiddle,
    ExtendedCode,
}

/// What is found in the records of an answer.
struct Walked {
    /// Where the records end, without a last EDNS record.
    end: usize,
    /// Where lifetimes stand, from the start of the packet.
    lifetimes: Vec<usize>,
    /// Smallest lifetime of the answer section.
    least: Option<u32>,
    /// How long a denial may be kept (RFC 2308, 5).
    denial: Option<u32>,
    counts: Counts,
    edns: Edns,
}

fn walk(packet: &[u8], start: usize, sections: [u16; 3]) -> Option<Walked> {
    let [answers, authority, additional] = sections;
    let mut walked = Walked {
        end: start,
        lifetimes: Vec::new(),
        least: None,
        denial: None,
        counts: Counts {
            answers,
            authority,
            additional,
        },
        edns: Edns::None,
    };
    let mut at = start;
    let all = u32::from(answers) + u32::from(authority) + u32::from(additional);
    for index in 0..all {
        let kind_at = skip_name(packet, at)?;
        let kind = RecordType::from(u16_at(packet, kind_at)?);
        let ttl = u32_at(packet, kind_at + 4)?;
        let data = kind_at + 10;
        let next = data + usize::from(u16_at(packet, kind_at + 8)?);
        packet.get(data..next)?;
        if kind == RecordType::OPT {
            if walked.edns != Edns::None || index < u32::from(answers) + u32::from(authority) {
                return None;
            }
            walked.edns = match ttl >> 24 {
                0 => Edns::Last,
                _extended => Edns::ExtendedCode,
            };
            walked.counts.additional -= 1;
        } else {
            if walked.edns == Edns::Last {
                walked.edns = Edns::InTheMiddle;
            }
            walked.lifetimes.push(kind_at + 4);
            let ttl = lifetime(ttl);
            if index < u32::from(answers) {
                walked.least = Some(walked.least.map_or(ttl, |least| least.min(ttl)));
            } else if kind == RecordType::SOA && index < u32::from(answers) + u32::from(authority) {
                let minimum = u32_at(packet, next.checked_sub(4)?)?;
                walked.denial = Some(ttl.min(minimum));
            }
            walked.end = next;
        }
        at = next;
    }
    Some(walked)
}

impl Walked {
    fn into_stored(
        self,
        packet: &[u8],
        start: usize,
        code: ResponseCode,
        authentic: bool,
    ) -> Stored {
        let seconds = |s: u32| Duration::from_secs(s.into());
        let denies = code == ResponseCode::NXDomain || self.counts.answers == 0;
        let keep = match (denies, self.denial) {
            // Without an SOA record a denial is not kept (RFC 2308, 5).
            (true, None) => Duration::ZERO,
            (true, Some(denial)) => {
                let least = self.least.map_or(denial, |least| least.min(denial));
                seconds(least).min(LONGEST_DENIAL)
            }
            (false, _) => seconds(self.least.unwrap_or(0)).min(LONGEST),
        };
        let lifetimes = self.lifetimes.iter();
        Stored {
            code,
            authentic,
            counts: self.counts,
            body: packet.get(start..self.end).unwrap_or_default().into(),
            // A packet has less than 65,536 bytes.
            lifetimes: lifetimes
                .filter_map(|at| u16::try_from(at - start).ok())
                .collect(),
            keep,
        }
    }
}

/// A lifetime as it is meant: with the highest bit set it is none (RFC 2181, 8).
fn lifetime(ttl: u32) -> u32 {
    if ttl > i32::MAX.unsigned_abs() {
        0
    } else {
        ttl
    }
}

/// The message without its EDNS record, which stands before others: names in those may point
/// behind it, so that it takes a decoder to cut it out.
fn without_edns(packet: &[u8]) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(packet).ok()?;
    message.edns = None;
    message.to_vec().ok()
}

/// The question in wire form, sent to an upstream.
pub(super) fn question(key: &Key, id: u16, edns: bool) -> Vec<u8> {
    let fourth = if key.checking_disabled { flag::CD } else { 0 };
    // The wish to hear about authenticity costs nothing; clients that did not ask are not told.
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend_from_slice(&[
        flag::RD,
        fourth | flag::AD,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        edns.into(),
    ]);
    packet.extend_from_slice(&key.name);
    packet.extend_from_slice(&key.record_type.to_be_bytes());
    packet.extend_from_slice(&key.class.to_be_bytes());
    if edns {
        packet.extend_from_slice(&crate::wire::opt(ResponseCode::NoError, key.dnssec_ok));
    }
    packet
}

/// Addresses of this host as itself (RFC 6761, 6.3).
pub(super) const LOOPBACK_4: [u8; 4] = Ipv4Addr::LOCALHOST.octets();
pub(super) const LOOPBACK_6: [u8; 16] = Ipv6Addr::LOCALHOST.octets();
