//! How many connections each source may open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use dunlin_state::model::RateLimit;

/// Sources that are remembered. One more displaces the one that has been quiet for longest, which
/// then starts anew: whoever has more addresses than this cannot be limited by address anyway.
pub const MAX_SOURCES: usize = 8_192;

/// Parts of a token, so that slow rates do not round to nothing: one per millisecond and second.
const PARTS: u64 = 1_000;

/// A token bucket for each source.
#[derive(Debug)]
pub struct Limiter {
    rate: RateLimit,
    buckets: BTreeMap<IpAddr, Bucket>,
    /// The same by time of last use, oldest first.
    by_age: BTreeSet<(u64, IpAddr)>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    parts: u64,
    at: u64,
}

impl Limiter {
    /// With full buckets.
    pub fn new(rate: RateLimit) -> Self {
        Self {
            rate,
            buckets: BTreeMap::new(),
            by_age: BTreeSet::new(),
        }
    }

    /// What it goes by.
    pub fn rate(&self) -> RateLimit {
        self.rate
    }

    /// Whether a source may open one more connection now; if so it is counted. `now` is in
    /// milliseconds of a clock that never goes back.
    pub fn admit(&mut self, source: IpAddr, now: u64) -> bool {
        let source = network(source);
        let full = u64::from(self.rate.burst).max(1) * PARTS;
        let mut bucket = match self.buckets.get(&source) {
            Some(bucket) => {
                self.by_age.remove(&(bucket.at, source));
                *bucket
            }
            None => Bucket {
                parts: full,
                at: now,
            },
        };
        let gained = now
            .saturating_sub(bucket.at)
            .saturating_mul(u64::from(self.rate.per_second));
        bucket.parts = bucket.parts.saturating_add(gained).min(full);
        bucket.at = bucket.at.max(now);
        let may = bucket.parts >= PARTS;
        if may {
            bucket.parts -= PARTS;
        }
        self.buckets.insert(source, bucket);
        self.by_age.insert((bucket.at, source));
        if self.buckets.len() > MAX_SOURCES
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.buckets.remove(&oldest);
        }
        may
    }
}

/// One customer has a whole IPv6 network of 64 bits.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(a) => IpAddr::V4(a),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() >> 64 << 64)),
    }
}
