//! `healthcheck`.

use dunlin_state::model::{HealthCheck, HealthTest};

use super::read::View;
use super::report::Report;
use super::support::HEALTHCHECK;
use super::units::duration_ms;

/// Docker's values where the file gives none, in milliseconds.
const DEFAULT_INTERVAL_MS: u64 = 30_000;
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
const DEFAULT_RETRIES: u32 = 3;

/// More failures in a row than this are a slip.
const MAX_RETRIES: u32 = 1_000;

/// The health check of a service.
pub(super) fn health(report: &mut Report, view: &View<'_>) -> Option<HealthCheck> {
    let mut check = HealthCheck {
        test: HealthTest::None,
        interval_ms: DEFAULT_INTERVAL_MS,
        timeout_ms: DEFAULT_TIMEOUT_MS,
        retries: DEFAULT_RETRIES,
        start_period_ms: 0,
    };
    let mut tested = None;
    let mut disabled = false;
    for (key, field) in report.section(view, &HEALTHCHECK) {
        match key {
            "test" => {
                tested = Some(field.clone());
                check.test = test(report, &field)?;
            }
            "interval" => set(&mut check.interval_ms, positive(report, &field)),
            "timeout" => set(&mut check.timeout_ms, positive(report, &field)),
            "start_period" => {
                let period = report.parsed(&field, duration_ms);
                set(&mut check.start_period_ms, period);
            }
            "retries" => set(&mut check.retries, report.number(&field, 1, MAX_RETRIES)),
            "disable" => disabled = report.flag(&field).unwrap_or(false),
            _ => report.unhandled(&field),
        }
    }
    if disabled {
        if let Some(test) = tested.filter(|_| check.test != HealthTest::None) {
            report.warn_key(
                &test,
                "the health check is disabled, so its test is not run",
            );
        }
        check.test = HealthTest::None;
        return Some(check);
    }
    if tested.is_none() {
        let text = "without a test the health check was ignored: that of the image is not changed";
        report.warn_key(view, text);
        return None;
    }
    Some(check)
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

fn positive(report: &mut Report, view: &View<'_>) -> Option<u64> {
    report.parsed(view, |text| match duration_ms(text)? {
        0 => Err(format!("'{text}' must be longer than nothing")),
        ms => Ok(ms),
    })
}

fn test(report: &mut Report, view: &View<'_>) -> Option<HealthTest> {
    if !view.is_list() {
        return report
            .filled(view)
            .map(|line| HealthTest::Shell(line.to_owned()));
    }
    let items = report.list(view);
    let words: Option<Vec<&str>> = items.iter().map(|item| report.text(item)).collect();
    let words = words?;
    let rest = |words: &[&str]| words[1..].iter().map(|w| (*w).to_owned()).collect();
    match words.first().copied() {
        Some("NONE") if words.len() == 1 => Some(HealthTest::None),
        Some("CMD") if words.len() > 1 => Some(HealthTest::Exec(rest(&words))),
        Some("CMD-SHELL") if words.len() == 2 => Some(HealthTest::Shell(words[1].to_owned())),
        Some("NONE" | "CMD" | "CMD-SHELL") => {
            let hint = "write [\"CMD\", \"program\", \"argument\"], [\"CMD-SHELL\", \"command line\"] \
                        or [\"NONE\"]";
            report.fault_hint(view, "the test has the wrong number of words", hint);
            None
        }
        Some(_) | None => {
            let at = items.first().unwrap_or(view);
            let text = "a test that is a list starts with NONE, CMD or CMD-SHELL";
            report.fault_hint(at, text, "put \"CMD\" before the program");
            None
        }
    }
}
