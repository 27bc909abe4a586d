//! From the bytes of a query to the bytes of its answer.
//!
//! Queries come from strangers, so what a packet may contain is checked before hickory decodes it:
//! one question, no records but EDNS and a signature. The counts in the header would otherwise
//! make the decoder reserve memory for what never comes.

use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::op::{Edns, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::zone::{Answer, Rotated, Zone};

/// Length of a DNS header in bytes (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// Largest answer over UDP in bytes without EDNS (RFC 1035, 4.2.1).
const MAX_PLAIN_UDP: u16 = 512;

/// Largest answer over UDP in bytes, whatever the client offers: what passes every path without
/// fragmenting, as agreed for the DNS flag day of 2020. It also bounds amplification.
const MAX_UDP: u16 = 1232;

/// Most additional records of a query: EDNS and a transaction signature.
const MAX_ADDITIONAL: u16 = 2;

/// How a query came, which says how large its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream, with its length before it.
    Tcp,
}

/// Writes the answer to `query` into `reply`, replacing what is there, and says whether there is
/// one: what is too short for a header, or is itself an answer, gets none.
///
/// `turn` rotates the records, see [`Zone::answer`].
pub fn respond(
    zone: &Zone,
    query: &[u8],
    transport: Transport,
    turn: u32,
    reply: &mut Vec<u8>,
) -> bool {
    match check(query) {
        Shape::NoQuery => false,
        Shape::Bad(code) => bare(query, code, reply),
        Shape::Query => {
            // Hickory wants to know who asks and how, only to tell its handlers.
            let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            let Ok(request) = Request::from_bytes(query.to_vec(), nobody, Protocol::Udp) else {
                return bare(query, ResponseCode::FormErr, reply);
            };
            answer(zone, &request, transport, turn, reply)
                || bare(query, ResponseCode::ServFail, reply)
        }
    }
}

/// Writes the answer to a query from someone who is not served: a bare header, never longer than
/// the query.
pub fn refuse(query: &[u8], reply: &mut Vec<u8>) -> bool {
    match check(query) {
        Shape::NoQuery => false,
        Shape::Bad(_) | Shape::Query => bare(query, ResponseCode::Refused, reply),
    }
}

/// What a packet is by its header.
enum Shape {
    /// Nothing to answer.
    NoQuery,
    /// Not to be decoded.
    Bad(ResponseCode),
    /// One question.
    Query,
}

fn check(packet: &[u8]) -> Shape {
    let Some(header) = packet.first_chunk::<HEADER>() else {
        return Shape::NoQuery;
    };
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if header[2] & 0x80 != 0 {
        return Shape::NoQuery;
    }
    if OpCode::from_u8((header[2] >> 3) & 0xf) != OpCode::Query {
        return Shape::Bad(ResponseCode::NotImp);
    }
    let plain = count(4) == 1 && count(6) == 0 && count(8) == 0 && count(10) <= MAX_ADDITIONAL;
    if plain {
        Shape::Query
    } else {
        Shape::Bad(ResponseCode::FormErr)
    }
}

/// An answer of nothing but a header: the query's id, operation and wish for recursion.
fn bare(query: &[u8], code: ResponseCode, reply: &mut Vec<u8>) -> bool {
    let Some(header) = query.first_chunk::<HEADER>() else {
        return false;
    };
    reply.clear();
    reply.extend_from_slice(&header[..2]);
    reply.extend_from_slice(&[0x80 | (header[2] & 0x79), code.low()]);
    reply.resize(HEADER, 0);
    true
}

/// Answers a decoded query; false when it could not be encoded.
fn answer(
    zone: &Zone,
    request: &Request,
    transport: Transport,
    turn: u32,
    reply: &mut Vec<u8>,
) -> bool {
    let [question] = request.queries.queries() else {
        return false;
    };
    let edns = request.edns.as_ref().map(|_asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        edns
    });
    let limit = match (transport, &edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => MAX_PLAIN_UDP,
        (Transport::Udp, Some(_)) => request.max_payload().min(MAX_UDP),
    };
    let mut out = Out {
        request,
        edns: edns.as_ref(),
        limit,
        reply,
    };
    let mut head = Metadata::response_from_request(&request.metadata);
    if request.version() > 0 {
        head.response_code = ResponseCode::BADVERS;
        return out.send(head, None, None, &[]);
    }
    let served = question.query_class() == DNSClass::IN
        && !matches!(question.query_type(), RecordType::AXFR | RecordType::IXFR);
    let found = if served {
        zone.answer(question.name(), question.query_type(), turn)
    } else {
        Answer::NotOurs
    };
    match found {
        Answer::NotOurs => {
            head.response_code = ResponseCode::Refused;
            out.send(head, None, None, &[])
        }
        Answer::NoSuchName { soa } => {
            head.authoritative = true;
            head.response_code = ResponseCode::NXDomain;
            out.send(head, None, Some(soa), &[])
        }
        Answer::Empty { soa } => {
            head.authoritative = true;
            out.send(head, None, Some(soa), &[])
        }
        Answer::Records {
            answers,
            additional,
        } => {
            head.authoritative = true;
            out.send_whole_or_cut(head, answers, additional)
        }
    }
}

/// Where an answer goes, and how large it may be.
struct Out<'a> {
    request: &'a Request,
    edns: Option<&'a Edns>,
    limit: u16,
    reply: &'a mut Vec<u8>,
}

impl Out<'_> {
    /// Leaves out the additional records before anything else, without a word (RFC 2181, 9). An
    /// answer that does not fit is sent empty: the client must ask again over TCP and may not use
    /// a part of it.
    fn send_whole_or_cut(
        &mut self,
        mut head: Metadata,
        answers: Rotated<'_>,
        additional: &[Record],
    ) -> bool {
        if self.send(head, Some(answers), None, additional)
            || (!additional.is_empty() && self.send(head, Some(answers), None, &[]))
        {
            return true;
        }
        head.truncation = true;
        self.send(head, None, None, &[])
    }

    /// Encodes an answer; false when it does not fit.
    fn send(
        &mut self,
        head: Metadata,
        answers: Option<Rotated<'_>>,
        soa: Option<&Record>,
        additional: &[Record],
    ) -> bool {
        self.reply.clear();
        let mut encoder = BinEncoder::new(self.reply);
        encoder.set_max_size(self.limit);
        let mut builder = MessageResponseBuilder::from_message_request(self.request);
        if let Some(edns) = self.edns {
            builder.edns(edns);
        }
        let answers = answers.iter().flat_map(Rotated::iter);
        let message = builder.build(head, answers, None, soa, additional);
        match message.destructive_emit(&mut encoder) {
            Ok(info) => info.truncation == head.truncation,
            Err(_does_not_fit) => false,
        }
    }
}

#[cfg(test)]
mod tests;
