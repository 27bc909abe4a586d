//! The one place where the daemon reads the clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_state::Now;

/// Both clocks, the monotonic one counted from the daemon's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            mono: millis(self.start.elapsed()),
            wall: wall_millis(),
        }
    }

    /// The instant at which the monotonic clock shows `mono`.
    pub(crate) fn instant(&self, mono: u64) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + Duration::from_millis(mono))
    }
}

/// Milliseconds since the Unix epoch; zero on a clock set before it.
pub(crate) fn wall_millis() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
