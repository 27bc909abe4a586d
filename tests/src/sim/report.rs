//! What a run has measured.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One run of one scenario with one seed.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Virtual time that passed, in seconds.
    pub simulated_s: f64,
    /// What was wrong, in words; empty when all was well.
    pub violations: Vec<String>,
    /// The last things that happened before the first violation.
    pub trace: Vec<String>,
    /// Microseconds from a crash until every other node believes it.
    pub detection: Vec<u64>,
    /// Microseconds from a crash until each lost slot answers elsewhere.
    pub replacement: Vec<u64>,
    /// Microseconds from an accepted write until all reachable nodes have it.
    pub propagation: Vec<u64>,
    /// Slots started.
    pub awards: u64,
    /// Parts of jobs that have ended with success.
    pub succeeded: u64,
    /// Starts that were given what a job had told.
    pub given: u64,
    /// Starts of hooks.
    pub hooks: u64,
    /// Replicas that made way for others of a higher priority.
    pub preempted: u64,
    /// Changes that were refused because of a quota.
    pub refused: u64,
    /// Replicas that were moved to even out hosts.
    pub rebalanced: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Slots started although they answered on a host that lived.
    pub moved: u64,
    /// Times that a daemon was believed down that ran and could be reached.
    pub false_downs: u64,
    /// Real seconds from the first deploy until everything answered, in the scenario for speed.
    pub placing_s: f64,
    /// What went over control connections, by kind: messages, and bytes, which are estimated where
    /// nothing was encoded.
    pub control: BTreeMap<&'static str, (u64, u64)>,
    /// Hash over everything that happened.
    pub digest: String,
}

/// Many runs of one scenario.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Its name.
    pub scenario: &'static str,
    /// Runs.
    pub seeds: u64,
    /// Virtual seconds in all.
    pub simulated_s: f64,
    /// Real time that all runs took.
    pub wall: Duration,
    /// Violations in all.
    pub violations: usize,
    /// Faults in all.
    pub faults: u64,
    /// Slots started in all.
    pub awards: u64,
    /// Slots started although they answered elsewhere.
    pub moved: u64,
    /// Times that a daemon was believed down that ran and could be reached.
    pub false_downs: u64,
    placing_s: f64,
    detection: Vec<u64>,
    replacement: Vec<u64>,
    propagation: Vec<u64>,
}

impl Summary {
    /// No runs yet.
    pub fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            ..Self::default()
        }
    }

    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome, wall: Duration) {
        self.seeds += 1;
        self.simulated_s += outcome.simulated_s;
        self.wall += wall;
        self.violations += outcome.violations.len();
        self.faults += outcome.faults;
        self.awards += outcome.awards;
        self.moved += outcome.moved;
        self.false_downs += outcome.false_downs;
        self.placing_s += outcome.placing_s;
        self.detection.extend(&outcome.detection);
        self.replacement.extend(&outcome.replacement);
        self.propagation.extend(&outcome.propagation);
    }

    /// The head of the table that summaries print.
    pub fn header() -> String {
        format!(
            "{:<10} {:>6} {:>10} {:>8} {:>7} {:>11} {:>12} {:>6} {:>17} {:>17} {:>17} {:>8} {:>9}",
            "scenario",
            "seeds",
            "simulated",
            "wall",
            "faults",
            "violations",
            "false downs",
            "moved",
            "detect p50/p99",
            "replace p50/p99",
            "spread p50/p99",
            "awards",
            "awards/s"
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wall = self.wall.as_secs_f64();
        // Where placing was timed by itself, forming and resting do not count.
        let placing = if self.placing_s > 0.0 {
            self.placing_s
        } else {
            wall
        };
        write!(
            f,
            "{:<10} {:>6} {:>8.0} s {:>6.1} s {:>7} {:>11} {:>12} {:>6} {:>17} {:>17} {:>17} {:>8} {:>9.0}",
            self.scenario,
            self.seeds,
            self.simulated_s,
            wall,
            self.faults,
            self.violations,
            self.false_downs,
            self.moved,
            percentiles(&self.detection),
            percentiles(&self.replacement),
            percentiles(&self.propagation),
            self.awards,
            self.awards as f64 / placing.max(1e-9),
        )
    }
}

/// Median and 99th percentile in milliseconds.
fn percentiles(samples: &[u64]) -> String {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| {
        let last = sorted.len().saturating_sub(1) as f64;
        sorted
            .get((last * share).round() as usize)
            .map(|us| us / 1_000)
    };
    match (at(0.5), at(0.99)) {
        (Some(p50), Some(p99)) => format!("{p50}/{p99} ms"),
        (None, _) | (_, None) => "-".to_owned(),
    }
}
