//! The start of authority: who answers for the zone, and how long a denial may be reused.

use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

use super::TTL;
use super::records::RecordSet;
use crate::wire::HEADER;

/// Refresh, retry and expiry in seconds: for secondary servers, which do not exist.
const TIMERS: i32 = 60;

/// The label of the address of whoever is responsible.
const PERSON: &[u8] = b"\x0ahostmaster";

/// The record that goes with every denial.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Soa {
    serial: u32,
}

impl Soa {
    /// Length of the encoded record. Its three names are pointers to the suffix in the question.
    pub(crate) const LENGTH: usize = 2 + 10 + 2 + PERSON.len() + 2 + 20;

    pub(super) fn new(serial: u32) -> Self {
        Self { serial }
    }

    pub(crate) fn serial(self) -> u32 {
        self.serial
    }

    /// Appends the record to an answer whose question has the suffix `before` octets after the
    /// start of its name.
    pub(crate) fn write(self, before: usize, reply: &mut Vec<u8>) {
        // A name has 255 octets at most, so that the pointer's 14 bits always do.
        let offset = u16::try_from(HEADER + before).unwrap_or_default();
        let pointer = (0xc000 | offset).to_be_bytes();
        let data = u16::try_from(Self::LENGTH - 12).unwrap_or_default();
        reply.extend_from_slice(&pointer);
        reply.extend_from_slice(&[0, 6, 0, 1]);
        reply.extend_from_slice(&TTL.to_be_bytes());
        reply.extend_from_slice(&data.to_be_bytes());
        reply.extend_from_slice(&pointer);
        reply.extend_from_slice(PERSON);
        reply.extend_from_slice(&pointer);
        reply.extend_from_slice(&self.serial.to_be_bytes());
        for _ in 0..3 {
            reply.extend_from_slice(&TIMERS.to_be_bytes());
        }
        reply.extend_from_slice(&TTL.to_be_bytes());
    }

    /// The record as the answer to a question for it.
    pub(super) fn apex(self, suffix: &Name) -> RecordSet {
        let person = suffix.prepend_label(b"hostmaster".as_slice());
        let person = person.unwrap_or_else(|_too_long| suffix.clone());
        let data = SOA::new(
            suffix.clone(),
            person,
            self.serial,
            TIMERS,
            TIMERS,
            TIMERS,
            TTL,
        );
        let record = Record::from_rdata(suffix.clone(), TTL, RData::SOA(data));
        RecordSet::new(suffix, &[record]).unwrap_or_else(RecordSet::none)
    }
}
