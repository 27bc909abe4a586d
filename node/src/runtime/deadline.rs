//! Until when a replica with a lease may live.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// An instant of the host's monotonic clock, which daemon and supervisors share, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Deadline(pub(crate) u64);

impl Deadline {
    /// So many milliseconds from now.
    pub(crate) fn after(ms: u64) -> Self {
        Self(now().saturating_add(ms))
    }

    /// What is left until then.
    pub(crate) fn left(self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(now()))
    }
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let ms = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    seconds.saturating_mul(1_000).saturating_add(ms)
}
