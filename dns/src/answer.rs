//! Putting an answer together: header, the client's question, records, EDNS.

use hickory_proto::op::ResponseCode;

use crate::wire::{OPT, Query, flag, opt};

/// How a server answers all its queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Whether it asks others about names that are not its own, which each answer tells.
    pub recursion: bool,
}

/// How many records an answer has in each section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) answers: u16,
    pub(crate) authority: u16,
    pub(crate) additional: u16,
}

/// Where an answer goes, and how large it may be.
pub(crate) struct Out<'a, 'p> {
    pub(crate) query: &'a Query<'p>,
    /// Largest answer in bytes.
    pub(crate) limit: usize,
    pub(crate) manner: Manner,
    pub(crate) reply: &'a mut Vec<u8>,
}

impl Out<'_, '_> {
    /// Starts an answer with the client's question in the case that it came in, which clients that
    /// mix the case against forgery compare (RFC 5452, 9.1). The counts come last.
    pub(crate) fn start(&mut self, code: ResponseCode, third: u8) {
        let (asked, asked_fourth) = self.query.flags();
        let third = flag::QR | third | (asked & (flag::OPCODE | flag::RD));
        let recursion = if self.manner.recursion { flag::RA } else { 0 };
        let fourth = recursion | (asked_fourth & flag::CD) | code.low();
        self.reply.clear();
        let id = self.query.packet().get(..2).unwrap_or_default();
        self.reply.extend_from_slice(id);
        self.reply.extend_from_slice(&[third, fourth]);
        self.reply.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        self.reply.extend_from_slice(self.query.question());
    }

    /// Adds EDNS, if the query has it, and the counts.
    pub(crate) fn finish(&mut self, code: ResponseCode, mut counts: Counts) {
        if let Some(edns) = self.query.edns {
            self.reply.extend_from_slice(&opt(code, edns.dnssec_ok));
            counts.additional += 1;
        }
        let sections = [counts.answers, counts.authority, counts.additional];
        for (count, at) in sections.into_iter().zip([6, 8, 10]) {
            if let Some(place) = self.reply.get_mut(at..at + 2) {
                place.copy_from_slice(&count.to_be_bytes());
            }
        }
    }

    /// Bytes that records may still take.
    pub(crate) fn room(&self) -> usize {
        let edns = if self.query.edns.is_some() { OPT } else { 0 };
        self.limit.saturating_sub(self.reply.len() + edns)
    }

    /// An answer without records.
    pub(crate) fn empty(&mut self, code: ResponseCode, third: u8) {
        self.start(code, third);
        self.finish(code, Counts::default());
    }
}
