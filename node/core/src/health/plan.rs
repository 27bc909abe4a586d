//! What a specification and an image say about health, made into at most two checks.

use dunlin_state::model::{HealthCheck, HealthTest, ServiceSpec};

use super::Test;

/// Milliseconds between probes until the first success, at most, where the specification does not
/// say. A connection or a request costs next to nothing.
const START_INTERVAL_MS: u64 = 1_000;

/// The same for commands, each of which is a process.
const START_INTERVAL_EXEC_MS: u64 = 2_000;

/// Milliseconds that the connect of a replica without any check may take.
const CONNECT_TIMEOUT_MS: u64 = 500;

/// Shortest time in milliseconds that is given between two probes: a slip of the pen must not load
/// a host.
const MIN_INTERVAL_MS: u64 = 100;

/// Characters of a complaint: it stands in a claim's message together with other words.
const MAX_COMPLAINT: usize = 200;

/// What a check decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Traffic and restarts.
    Both,
    /// Traffic.
    Traffic,
    /// Restarts.
    Restart,
}

impl Role {
    pub(super) fn decides_traffic(self) -> bool {
        match self {
            Self::Both | Self::Traffic => true,
            Self::Restart => false,
        }
    }

    pub(super) fn decides_restart(self) -> bool {
        match self {
            Self::Both | Self::Restart => true,
            Self::Traffic => false,
        }
    }
}

/// How a check is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) test: Test,
    pub(super) interval_ms: u64,
    pub(super) start_interval_ms: u64,
    pub(super) start_period_ms: u64,
    pub(super) timeout_ms: u64,
    pub(super) retries: u32,
    pub(super) successes: u32,
    /// Whether it is over with the first time it passes.
    pub(super) once: bool,
}

impl Pace {
    fn of(check: &HealthCheck) -> Option<Self> {
        let (test, usual) = match &check.test {
            HealthTest::None => return None,
            HealthTest::Exec(words) => (Test::Exec(words.clone()), START_INTERVAL_EXEC_MS),
            HealthTest::Shell(line) => {
                let words = ["/bin/sh", "-c", line].map(str::to_owned);
                (Test::Exec(words.to_vec()), START_INTERVAL_EXEC_MS)
            }
            HealthTest::Http(test) => (Test::Http(test.clone()), START_INTERVAL_MS),
            HealthTest::Tcp(port) => (Test::Tcp(*port), START_INTERVAL_MS),
        };
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let interval_ms = or(check.interval_ms, HealthCheck::DEFAULT_INTERVAL_MS);
        let interval_ms = interval_ms.max(MIN_INTERVAL_MS);
        Some(Self {
            test,
            interval_ms,
            start_interval_ms: or(check.start_interval_ms, usual.min(interval_ms))
                .max(MIN_INTERVAL_MS),
            start_period_ms: check.start_period_ms,
            timeout_ms: or(check.timeout_ms, HealthCheck::DEFAULT_TIMEOUT_MS),
            retries: match check.retries {
                0 => HealthCheck::DEFAULT_RETRIES,
                retries => retries,
            },
            successes: check.successes.max(1),
            once: false,
        })
    }

    /// The check of a replica for which nobody has defined one.
    fn connect_once() -> Self {
        Self {
            test: Test::Tcp(None),
            interval_ms: START_INTERVAL_MS,
            start_interval_ms: START_INTERVAL_MS,
            start_period_ms: u64::MAX,
            timeout_ms: CONNECT_TIMEOUT_MS,
            retries: 1,
            successes: 1,
            once: true,
        }
    }

    /// Milliseconds after the start from which a replica that has never been well is unwell.
    pub(super) fn start_patience(&self) -> u64 {
        let retries = u64::from(self.retries);
        self.start_period_ms
            .saturating_add(self.interval_ms.saturating_mul(retries))
    }

    pub(super) fn complain(&self, reason: &str) -> String {
        let what = match &self.test {
            Test::Tcp(_) => "the TCP health check fails",
            Test::Http(_) => "the HTTP health check fails",
            Test::Exec(_) => "the health check fails",
        };
        let reason: String = reason.chars().take(MAX_COMPLAINT).collect();
        format!("{what}: {reason}")
    }
}

/// The checks of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) checks: Vec<(Role, Pace)>,
}

impl Plan {
    /// Chooses the checks. What the specification says goes before what the image says, what it
    /// says about traffic or restarts alone before what it says about both.
    pub(crate) fn of(
        spec: Option<&ServiceSpec>,
        image: Option<&HealthCheck>,
        has_tcp: bool,
    ) -> Self {
        let common = spec.and_then(|s| s.health.as_ref()).or(image);
        let traffic = spec.and_then(|s| s.readiness.as_ref());
        let restart = spec.and_then(|s| s.liveness.as_ref());
        let pace = |check: Option<&HealthCheck>| check.and_then(Pace::of);
        let mut checks = Vec::new();
        if traffic.is_none() && restart.is_none() {
            checks.extend(pace(common).map(|pace| (Role::Both, pace)));
        } else {
            checks.extend(pace(traffic.or(common)).map(|pace| (Role::Traffic, pace)));
            checks.extend(pace(restart.or(common)).map(|pace| (Role::Restart, pace)));
        }
        // A readiness that is switched off by name means: ready when it runs.
        let waived = traffic.is_some_and(|check| check.test == HealthTest::None);
        let decided = checks.iter().any(|(role, _)| role.decides_traffic());
        if !decided && !waived && has_tcp {
            checks.push((Role::Traffic, Pace::connect_once()));
        }
        Self { checks }
    }
}
