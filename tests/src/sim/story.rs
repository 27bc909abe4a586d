//! What happened in a run, for whoever has to find out why.

use std::collections::VecDeque;

use super::report::Outcome;
use super::world::SECOND;

/// Lines kept for the story of a violation.
const TRACE: usize = 400;
/// After this many a run has failed plainly enough.
pub(super) const MAX_VIOLATIONS: usize = 20;

/// The last lines, and a hash over all of them.
#[derive(Debug, Default)]
pub(super) struct Story {
    log: blake3::Hasher,
    trace: VecDeque<String>,
}

impl Story {
    /// Remembers a line, and lets it count for the digest.
    pub(super) fn note(&mut self, now: u64, line: &str) {
        let line = format!("{:>10.3} {line}", now as f64 / SECOND as f64);
        self.log.update(line.as_bytes());
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    /// Records that a rule was broken.
    pub(super) fn violation(&mut self, now: u64, what: String, outcome: &mut Outcome) {
        self.note(now, &format!("VIOLATION {what}"));
        if outcome.violations.is_empty() {
            outcome.trace = self.trace.iter().cloned().collect();
        }
        if outcome.violations.len() < MAX_VIOLATIONS {
            outcome.violations.push(what);
        }
    }

    /// Ends the run at virtual time `now`.
    pub(super) fn end(self, now: u64, mut outcome: Outcome) -> Outcome {
        if outcome.trace.is_empty() {
            outcome.trace = self.trace.into();
        }
        outcome.simulated_s = now as f64 / SECOND as f64;
        outcome.digest = self.log.finalize().to_hex()[..16].to_owned();
        outcome
    }
}
