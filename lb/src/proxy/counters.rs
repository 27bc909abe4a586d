//! What a pool has counted since the daemon started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of connect times, in microseconds: a local connect is in the first,
/// one hop in a data centre in the next three, a lost SYN beyond the last.
pub const LATENCY_BUCKETS: [u64; 11] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
];

/// Counters of one port of a service. Each is read alone, so nothing orders them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) active: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) isolated: AtomicU64,
    pub(crate) limited: AtomicU64,
    pub(crate) overflowed: AtomicU64,
    pub(crate) unserved: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) broken: AtomicU64,
    pub(crate) idle: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) dropped: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS.len() + 1],
    latency_sum: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Connections, or UDP sessions, that were accepted.
    pub connections: u64,
    /// Those that are open.
    pub active: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
    /// Refused by the lists of networks.
    pub denied: u64,
    /// Refused because they came from a replica that shares no network.
    pub isolated: u64,
    /// Refused by the rate of their source.
    pub limited: u64,
    /// Refused because too many waited.
    pub overflowed: u64,
    /// Given up because no replica took them in time.
    pub unserved: u64,
    /// Connects to a replica that failed and were made to another one or again.
    pub retries: u64,
    /// Times that a replica was offered no connections for a while, because it had failed some.
    pub ejections: u64,
    /// Ended by a reset of either side.
    pub broken: u64,
    /// Ended because nothing was said for too long.
    pub idle: u64,
    /// Ended because their replica had left and the time to finish was over.
    pub cut: u64,
    /// UDP datagrams that found no room.
    pub dropped: u64,
    /// Connects by time, see [`LATENCY_BUCKETS`]; the last holds what took longer.
    pub latency: Vec<u64>,
    /// Microseconds of all connects together.
    pub latency_sum: u64,
}

impl Counters {
    pub(crate) fn tally(&self) -> Tally {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tally {
            connections: read(&self.connections),
            active: read(&self.active),
            received: read(&self.received),
            sent: read(&self.sent),
            denied: read(&self.denied),
            isolated: read(&self.isolated),
            limited: read(&self.limited),
            overflowed: read(&self.overflowed),
            unserved: read(&self.unserved),
            retries: read(&self.retries),
            // The balancer counts them.
            ejections: 0,
            broken: read(&self.broken),
            idle: read(&self.idle),
            cut: read(&self.cut),
            dropped: read(&self.dropped),
            latency: self.latency.iter().map(read).collect(),
            latency_sum: read(&self.latency_sum),
        }
    }

    pub(crate) fn connect_took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BUCKETS.partition_point(|bound| *bound < micros);
        add(&self.latency[bucket], 1);
        add(&self.latency_sum, micros);
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// One more of something that is open, until it is dropped: also when its task is cut off.
pub(crate) struct Open<'a>(&'a AtomicU64);

impl<'a> Open<'a> {
    pub(crate) fn count(counter: &'a AtomicU64) -> Self {
        add(counter, 1);
        Self(counter)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
