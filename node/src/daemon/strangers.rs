//! How many strangers on the local network are called.
//!
//! Anyone there can announce itself, and daemons of other clusters do: each announcement costs a
//! datagram that only members of this cluster can read.

use std::time::Duration;

use tokio::time::Instant;

/// Calls in one window: an office full of clusters, all seen at once after the start.
const CALLS: u32 = 32;
/// Length of a window: short against the minutes after which an announcement is repeated.
const WINDOW: Duration = Duration::from_secs(10);

/// Limits the calls.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    since: Option<Instant>,
    calls: u32,
}

impl Strangers {
    /// Whether one more may be called now.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let over = |since| now.saturating_duration_since(since) >= WINDOW;
        if self.since.is_none_or(over) {
            self.since = Some(now);
            self.calls = 0;
        }
        self.calls = self.calls.saturating_add(1);
        self.calls <= CALLS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_is_cut_off_and_later_ones_are_called() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        let called = (0..1_000).filter(|_| strangers.admit(now)).count();
        assert_eq!(called, 32);
        assert!(strangers.admit(now + WINDOW));
    }
}
