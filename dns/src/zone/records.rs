//! Records in wire form, encoded by hickory once per change and copied once per answer.
//!
//! A question's length is known when its answer is encoded, though not its case. So names in the
//! records are compressed against the question's name, which stands at the same place in every
//! answer, and an answer is put together by copying bytes.

use std::net::IpAddr;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};

use crate::wire::HEADER;

/// Encoded records of one name and type, with what belongs beside them in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordSet {
    bytes: Box<[u8]>,
    /// Where each record starts.
    starts: Box<[u32]>,
    /// Addresses of the names in the records, for the additional section.
    extra: Box<[u8]>,
    extra_count: u16,
    /// Most records in one answer.
    most: u16,
}

impl RecordSet {
    /// Encodes the answer to a question for `question`. Absent when there is none: no records, or
    /// some that DNS cannot carry.
    pub(super) fn new(question: &Name, records: &[Record]) -> Option<Self> {
        Self::with_extra(question, records, &[])
    }

    /// The same with additional records.
    pub(super) fn with_extra(
        question: &Name,
        records: &[Record],
        extra: &[Record],
    ) -> Option<Self> {
        let most = u16::try_from(records.len()).ok().filter(|n| *n > 0)?;
        let mut scratch = Vec::new();
        let mut bytes = Vec::new();
        let mut starts = Vec::with_capacity(records.len());
        for record in records {
            starts.push(u32::try_from(bytes.len()).ok()?);
            bytes.extend_from_slice(encode(question, record, &mut scratch).ok()?);
        }
        let mut encoded_extra = Vec::new();
        for record in extra {
            encoded_extra.extend_from_slice(encode(question, record, &mut scratch).ok()?);
        }
        Some(Self {
            bytes: bytes.into(),
            starts: starts.into(),
            extra: encoded_extra.into(),
            extra_count: u16::try_from(extra.len()).ok()?,
            most,
        })
    }

    /// No records.
    pub(super) fn none() -> Self {
        Self {
            bytes: Box::default(),
            starts: Box::default(),
            extra: Box::default(),
            extra_count: 0,
            most: 0,
        }
    }

    /// Gives at most so many records in one answer.
    pub(super) fn at_most(mut self, most: u16) -> Self {
        self.most = self.most.min(most);
        self
    }

    /// How many records an answer has.
    pub fn count(&self) -> u16 {
        self.most
    }

    /// Appends the answer's records, beginning at a point that moves with `turn`, so that clients
    /// that always take the first spread over all. False when there is no room for all of them;
    /// then `reply` is as it was.
    pub fn write(&self, turn: u32, reply: &mut Vec<u8>, room: usize) -> bool {
        let all = self.starts.len();
        let start = turn as usize % all.max(1);
        let most = usize::from(self.most);
        let first = self.range(start, (start + most).min(all));
        let second = self.range(0, most.saturating_sub(all - start));
        if first.len() + second.len() > room {
            return false;
        }
        reply.extend_from_slice(first);
        reply.extend_from_slice(second);
        true
    }

    /// The additional records, and how many they are.
    pub fn extra(&self) -> (&[u8], u16) {
        (&self.extra, self.extra_count)
    }

    fn range(&self, from: usize, to: usize) -> &[u8] {
        let at = |index: usize| {
            let start = self.starts.get(index).map(|start| *start as usize);
            start.unwrap_or(self.bytes.len())
        };
        self.bytes.get(at(from)..at(to)).unwrap_or_default()
    }
}

/// The bytes of a record in an answer to a question for `question`.
fn encode<'s>(
    question: &Name,
    record: &Record,
    scratch: &'s mut Vec<u8>,
) -> Result<&'s [u8], ProtoError> {
    scratch.clear();
    let mut encoder = BinEncoder::new(scratch);
    encoder.emit_vec(&[0; HEADER])?;
    question.emit(&mut encoder)?;
    encoder.emit_u32(0)?;
    let start = encoder.len();
    record.emit(&mut encoder)?;
    Ok(scratch.get(start..).unwrap_or_default())
}

/// The address records of a name, by their type.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    pub(super) a: Option<RecordSet>,
    pub(super) aaaa: Option<RecordSet>,
}

impl Addresses {
    pub(super) fn new(owner: &Name, ttl: u32, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let (mut a, mut aaaa) = (Vec::new(), Vec::new());
        for address in addresses {
            let list = if address.is_ipv4() { &mut a } else { &mut aaaa };
            list.push(address_record(owner, ttl, address));
        }
        Self {
            a: RecordSet::new(owner, &a),
            aaaa: RecordSet::new(owner, &aaaa),
        }
    }

    pub(super) fn at_most(self, most: u16) -> Self {
        Self {
            a: self.a.map(|set| set.at_most(most)),
            aaaa: self.aaaa.map(|set| set.at_most(most)),
        }
    }

    pub(super) fn get(&self, kind: RecordType) -> Option<&RecordSet> {
        match kind {
            RecordType::A => self.a.as_ref(),
            RecordType::AAAA => self.aaaa.as_ref(),
            // One set of those there are (RFC 8482, 4.1).
            RecordType::ANY => self.a.as_ref().or(self.aaaa.as_ref()),
            _other => None,
        }
    }
}

pub(super) fn address_record(owner: &Name, ttl: u32, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    };
    Record::from_rdata(owner.clone(), ttl, data)
}

/// An address as a key, the same for both ways to write an IPv4 address.
pub(super) fn octets(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
