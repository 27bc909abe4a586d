//! From a query to the bytes of its answer, by copying records that are encoded already.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, RecordType};

use crate::answer::{Counts, Manner, Out};
use crate::wire::{HEADER, Packet, Query, Transport, flag};
use crate::zone::{Found, RecordSet, Soa, Zone};

/// What became of a packet.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a box would cost an allocation per query"
)]
pub enum Outcome<'p> {
    /// It gets no answer.
    Silent,
    /// The answer has been written.
    Answered,
    /// A question about a name that is not ours. Nothing has been written.
    Elsewhere(Query<'p>),
}

/// Writes the answer to `packet` into `reply`, replacing what is there.
///
/// `turn` rotates the records, see [`RecordSet::write`](crate::zone::RecordSet::write).
pub fn respond<'p>(
    zone: &Zone,
    packet: &'p [u8],
    transport: Transport,
    manner: Manner,
    turn: u32,
    reply: &mut Vec<u8>,
) -> Outcome<'p> {
    let query = match Packet::read(packet) {
        Packet::Silent => return Outcome::Silent,
        Packet::Bad(code) => {
            bare(packet, code, reply);
            return Outcome::Answered;
        }
        Packet::Query(query) => query,
    };
    let mut out = Out {
        query: &query,
        limit: query.limit(transport),
        manner,
        reply,
    };
    if query.edns.is_some_and(|edns| edns.version > 0) {
        out.empty(ResponseCode::BADVERS, 0);
        return Outcome::Answered;
    }
    // A transfer is none of a client's business, and an answer to it would be the largest of all.
    let transfer = matches!(query.record_type, RecordType::AXFR | RecordType::IXFR);
    if query.class != DNSClass::IN || transfer {
        out.empty(ResponseCode::Refused, 0);
        return Outcome::Answered;
    }
    match zone.find(&query.name, query.record_type) {
        Found::NotOurs => return Outcome::Elsewhere(query),
        Found::NoSuchName => denial(&mut out, ResponseCode::NXDomain, zone),
        Found::NoSuchAddress => out.empty(ResponseCode::NXDomain, flag::AA),
        Found::Empty => denial(&mut out, ResponseCode::NoError, zone),
        Found::Records(set) | Found::Reverse(set) => records(&mut out, set, turn),
    }
    Outcome::Answered
}

/// Writes the answer to a query that is not served: no records, and EDNS if the query has it.
pub(crate) fn decline(query: &Query<'_>, code: ResponseCode, manner: Manner, reply: &mut Vec<u8>) {
    let mut out = Out {
        query,
        limit: usize::from(u16::MAX),
        manner,
        reply,
    };
    out.empty(code, 0);
}

/// Writes the answer to a packet from someone who is not served: a bare header, never longer than
/// the packet. False when there is none.
pub(crate) fn refuse(packet: &[u8], reply: &mut Vec<u8>) -> bool {
    match Packet::read(packet) {
        Packet::Silent => false,
        Packet::Bad(_) | Packet::Query(_) => {
            bare(packet, ResponseCode::Refused, reply);
            true
        }
    }
}

/// An answer of nothing but a header: the query's id, operation and wish for recursion.
fn bare(packet: &[u8], code: ResponseCode, reply: &mut Vec<u8>) {
    reply.clear();
    let [id0, id1, third, ..] = packet else {
        return;
    };
    let third = flag::QR | (third & (flag::OPCODE | flag::RD));
    reply.extend_from_slice(&[*id0, *id1, third, code.low()]);
    reply.resize(HEADER, 0);
}

/// NXDOMAIN or NODATA: the authority section says for how long (RFC 2308, 3).
fn denial(out: &mut Out<'_, '_>, code: ResponseCode, zone: &Zone) {
    out.start(code, flag::AA);
    let mut counts = Counts::default();
    if out.room() >= Soa::LENGTH {
        let before = out.query.name.as_bytes().len() - zone.suffix_wire().len();
        zone.soa().write(before, out.reply);
        counts.authority = 1;
    }
    out.finish(code, counts);
}

/// Leaves out the additional records before anything else, without a word (RFC 2181, 9). An
/// answer that does not fit is sent empty: the client must ask again over TCP and may not use
/// a part of it.
fn records(out: &mut Out<'_, '_>, set: &RecordSet, turn: u32) {
    let code = ResponseCode::NoError;
    out.start(code, flag::AA);
    let room = out.room();
    if !set.write(turn, out.reply, room) {
        return out.empty(code, flag::AA | flag::TC);
    }
    let mut counts = Counts {
        answers: set.count(),
        ..Counts::default()
    };
    let (extra, count) = set.extra();
    if extra.len() <= out.room() {
        out.reply.extend_from_slice(extra);
        counts.additional = count;
    }
    out.finish(code, counts);
}

#[cfg(test)]
mod tests;
