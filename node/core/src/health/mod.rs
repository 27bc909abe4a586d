//! Whether a replica is well: when to probe it, and what the answers mean.
//!
//! A [`Monitor`] goes with one attempt of a replica from its start to its end. It holds up to two
//! checks: one decides about traffic, one about restarts, or one about both. It asks for probes
//! ([`Ask`]) and turns their answers into [`Verdict`]s; who carries out a probe, and what follows
//! from a verdict, is decided elsewhere.
//!
//! Rules:
//! - A replica is ready once its check has succeeded `successes` times in a row, and stays so until
//!   the check has failed `retries` times in a row. Both thresholds together keep a replica that
//!   answers now and then from flapping in and out of the routes.
//! - Until the first success probes come quickly, so that a replica is ready as soon as it can be.
//!   Their failures count only from the moment at which Docker's own schedule would have counted
//!   `retries` of them: after `start_period + retries * interval`.
//! - A check about restarts that fails condemns the attempt once. What comes after, with which
//!   delay, is the restart policy's.
//! - Without any check, a replica with a TCP port is ready when that port accepts a connection.
//! - Probes of many replicas that started together are spread by a tenth of the interval.

mod plan;
#[cfg(test)]
mod tests;

use dunlin_state::model::HttpTest;

pub(crate) use plan::Plan;
use plan::{Pace, Role};

/// Milliseconds beyond a probe's timeout after which a lost answer is not waited for any more. The
/// shell may hold a probe back until others have ended.
const PATIENCE_MS: u64 = 30_000;

/// Milliseconds before the second probe after a start; the delay then grows by half.
const FIRST_DELAY_MS: u64 = 50;

/// What a probe tries, by the ports of the specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Test {
    /// A connection to this port; to the first one when absent.
    Tcp(Option<u16>),
    /// A request.
    Http(HttpTest),
    /// A command.
    Exec(Vec<String>),
}

/// A probe that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Which check.
    pub(crate) check: u8,
    /// Counts its probes.
    pub(crate) seq: u32,
    /// What to try.
    pub(crate) test: Test,
    /// Milliseconds after which it has failed.
    pub(crate) timeout_ms: u64,
}

/// What an answer has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Verdict {
    /// Nothing.
    Same,
    /// It should get traffic.
    Ready,
    /// It should get none, for this reason.
    NotReady(String),
    /// It is to be restarted, for this reason.
    Dead(String),
}

/// The health of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Monitor {
    since: u64,
    checks: Vec<Check>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    role: Role,
    pace: Pace,
    next: Next,
    seq: u32,
    /// Until the first success.
    starting: bool,
    delay: u64,
    successes: u32,
    failures: u32,
    /// Whether it holds that the replica is well.
    passing: bool,
    /// Whether it has condemned the attempt.
    condemned: bool,
}

/// What a check waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// To ask at this instant.
    Due(u64),
    /// For the answer to what was asked at this instant.
    Asked(u64),
    /// For nothing: it was asked whether the start is over, and it is.
    Done,
}

impl Monitor {
    /// Watches an attempt that runs since `since`.
    pub(crate) fn new(plan: Plan, since: u64) -> Self {
        let checks = plan.checks.into_iter();
        Self {
            since,
            checks: checks
                .map(|(role, pace)| Check::new(role, pace, since))
                .collect(),
        }
    }

    /// Whether the replica should get traffic.
    pub(crate) fn is_ready(&self) -> bool {
        let mut checks = self.checks.iter();
        checks.all(|check| !check.role.decides_traffic() || check.passing)
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.checks.iter().filter_map(Check::due).min()
    }

    /// Time has passed: probes may be due.
    pub(crate) fn handle_timeout(&mut self, now: u64) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (index, check) in (0_u8..).zip(&mut self.checks) {
            if check.due().is_some_and(|at| at <= now) {
                check.seq = check.seq.wrapping_add(1);
                check.next = Next::Asked(now);
                asks.push(Ask {
                    check: index,
                    seq: check.seq,
                    test: check.pace.test.clone(),
                    timeout_ms: check.pace.timeout_ms,
                });
            }
        }
        asks
    }

    /// Nobody listened for a while: what was asked meanwhile is asked again.
    pub(crate) fn listen_again(&mut self, now: u64) {
        for check in &mut self.checks {
            if let Next::Asked(_) = check.next {
                check.next = Next::Due(now);
            }
        }
    }

    /// A probe was answered. `random` spreads the next one.
    pub(crate) fn handle_probed(
        &mut self,
        check: u8,
        seq: u32,
        result: &Result<(), String>,
        now: u64,
        random: u64,
    ) -> Verdict {
        let since = self.since;
        let was_ready = self.is_ready();
        let Some(check) = self.checks.get_mut(usize::from(check)) else {
            return Verdict::Same;
        };
        // An answer to an earlier question says nothing about now.
        if check.seq != seq || !matches!(check.next, Next::Asked(_)) {
            return Verdict::Same;
        }
        let unwell = match result {
            Ok(()) => {
                check.succeed();
                None
            }
            Err(reason) => check.fail(now.saturating_sub(since)).then_some(reason),
        };
        check.schedule(now, random);
        if let Some(reason) = unwell
            && check.role.decides_restart()
            && !check.condemned
        {
            check.condemned = true;
            return Verdict::Dead(check.pace.complain(reason));
        }
        let complaint = unwell.map(|reason| check.pace.complain(reason));
        match (was_ready, self.is_ready(), complaint) {
            (false, true, _) => Verdict::Ready,
            (true, false, complaint) => Verdict::NotReady(complaint.unwrap_or_default()),
            (true, true, _) | (false, false, None) => Verdict::Same,
            // Said again and again while it lasts, so that the newest reason is shown.
            (false, false, Some(complaint)) => Verdict::NotReady(complaint),
        }
    }
}

impl Check {
    fn new(role: Role, pace: Pace, since: u64) -> Self {
        Self {
            role,
            pace,
            next: Next::Due(since),
            seq: 0,
            starting: true,
            delay: FIRST_DELAY_MS,
            successes: 0,
            failures: 0,
            passing: false,
            condemned: false,
        }
    }

    fn due(&self) -> Option<u64> {
        match self.next {
            Next::Due(at) => Some(at),
            Next::Asked(at) => Some(
                at.saturating_add(self.pace.timeout_ms)
                    .saturating_add(PATIENCE_MS),
            ),
            Next::Done => None,
        }
    }

    fn succeed(&mut self) {
        self.failures = 0;
        self.starting = false;
        self.successes = self.successes.saturating_add(1);
        self.passing |= self.successes >= self.pace.successes;
    }

    /// Takes note of a failure `age` milliseconds after the start. Returns whether the replica is
    /// unwell.
    fn fail(&mut self, age: u64) -> bool {
        self.successes = 0;
        if self.starting {
            return age >= self.pace.start_patience();
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.pace.retries {
            return false;
        }
        self.passing = false;
        true
    }

    fn schedule(&mut self, now: u64, random: u64) {
        if self.passing && self.pace.once {
            self.next = Next::Done;
            return;
        }
        // On the way to its first readiness it is asked quickly.
        let wait = if self.starting || !self.passing {
            let wait = self.delay.min(self.pace.start_interval_ms);
            self.delay = wait.saturating_add(wait / 2).max(1);
            wait
        } else {
            self.delay = FIRST_DELAY_MS;
            self.pace.interval_ms
        };
        let spread = wait / 10;
        let at = now
            .saturating_add(wait - spread)
            .saturating_add(random % (spread * 2).max(1));
        self.next = Next::Due(at);
    }
}
