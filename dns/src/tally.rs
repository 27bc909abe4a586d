//! What the server has counted since the daemon started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::Transport;

/// Where an answer has its code, and the bits that it takes there (RFC 1035, 4.1.1).
const CODE: (usize, u8) = (3, 0x0f);

/// Counters of a server, cheap to clone. Each is read alone, so nothing orders them.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    udp: AtomicU64,
    tcp: AtomicU64,
    found: AtomicU64,
    denied: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    asked: AtomicU64,
    silent: AtomicU64,
}

/// The same at one moment: queries of those who are let in, by transport and by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DnsTally {
    /// Over UDP.
    pub udp: u64,
    /// Over TCP.
    pub tcp: u64,
    /// The name exists; answered at once, perhaps without records.
    pub found: u64,
    /// There is no such name.
    pub denied: u64,
    /// Refused.
    pub refused: u64,
    /// Not understood, or not answerable.
    pub failed: u64,
    /// Others were asked.
    pub asked: u64,
    /// No query at all, and so without an answer.
    pub silent: u64,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome<'r> {
    /// This is the reply.
    Reply(&'r [u8]),
    /// Others were asked.
    Asked,
    /// There is none.
    Silent,
}

impl Counters {
    pub(crate) fn count(&self, transport: Transport, outcome: Outcome<'_>) {
        let inner = &self.0;
        let transport = match transport {
            Transport::Udp => &inner.udp,
            Transport::Tcp => &inner.tcp,
        };
        let outcome = match outcome {
            Outcome::Asked => &inner.asked,
            Outcome::Silent => &inner.silent,
            Outcome::Reply(reply) => match reply.get(CODE.0).map(|byte| byte & CODE.1) {
                Some(0) => &inner.found,
                Some(3) => &inner.denied,
                Some(5) => &inner.refused,
                Some(_) | None => &inner.failed,
            },
        };
        transport.fetch_add(1, Ordering::Relaxed);
        outcome.fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted.
    pub fn tally(&self) -> DnsTally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let inner = &self.0;
        DnsTally {
            udp: read(&inner.udp),
            tcp: read(&inner.tcp),
            found: read(&inner.found),
            denied: read(&inner.denied),
            refused: read(&inner.refused),
            failed: read(&inner.failed),
            asked: read(&inner.asked),
            silent: read(&inner.silent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_query_counts_once_by_transport_and_once_by_outcome() {
        let counters = Counters::default();
        for (transport, code) in [
            (Transport::Udp, 0),
            (Transport::Udp, 3),
            (Transport::Tcp, 5),
            (Transport::Tcp, 2),
        ] {
            let reply = [0, 0, 0x84, 0x80 | code, 0, 1];
            counters.count(transport, Outcome::Reply(&reply));
        }
        counters.count(Transport::Udp, Outcome::Asked);
        counters.count(Transport::Udp, Outcome::Silent);
        let expected = DnsTally {
            udp: 4,
            tcp: 2,
            found: 1,
            denied: 1,
            refused: 1,
            failed: 1,
            asked: 1,
            silent: 1,
        };
        assert_eq!(counters.tally(), expected);
    }
}
