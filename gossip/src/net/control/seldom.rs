//! Warnings that strangers can cause: some in a while, so that nobody can fill the log.

use std::time::Duration;

use tokio::time::Instant;

/// Warnings in each [`WINDOW`]; further ones belong into the debug log.
const WARNINGS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Counts the warnings of one kind.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    since: Option<Instant>,
    count: u32,
}

impl Seldom {
    /// Whether one more is worth a line that everybody reads.
    pub(super) fn may_warn(&mut self, now: Instant) -> bool {
        if self
            .since
            .is_none_or(|at| now.saturating_duration_since(at) >= WINDOW)
        {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count = self.count.saturating_add(1);
        self.count <= WARNINGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_warnings_is_cut_off_and_later_ones_are_read() {
        let (mut seldom, now) = (Seldom::default(), Instant::now());
        let mut read = |now| (0..1_000).filter(|_| seldom.may_warn(now)).count();
        assert_eq!((read(now), read(now), read(now + WINDOW)), (10, 0, 10));
    }
}
