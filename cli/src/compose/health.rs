//! `healthcheck`, `x-dunlin.readiness` and `x-dunlin.liveness`.

use dunlin_state::model::{HealthCheck, HealthTest, HttpTest};

use super::deploy::labels;
use super::read::View;
use super::report::Report;
use super::support::{HEALTHCHECK, HTTP_CHECK, Section};
use super::units::duration_ms;

/// More failures in a row than this are a slip.
const MAX_RETRIES: u32 = 1_000;

/// The health check of a service: `healthcheck`.
pub(super) fn health(report: &mut Report, view: &View<'_>) -> Option<HealthCheck> {
    let read = read(report, view, &HEALTHCHECK)?;
    if !read.tested && !read.disabled {
        let text = "without a test the health check was ignored: that of the image is not changed";
        report.warn_key(view, text);
        return None;
    }
    Some(read.check)
}

/// One that decides about one thing only: `x-dunlin.readiness`, `x-dunlin.liveness`.
pub(super) fn own_health(
    report: &mut Report,
    view: &View<'_>,
    section: &Section,
) -> Option<HealthCheck> {
    let read = read(report, view, section)?;
    if !read.tested && !read.disabled {
        let text = "it says neither test, http, tcp nor disable, so there is nothing to check";
        report.fault(view, text);
        return None;
    }
    Some(read.check)
}

struct Read {
    check: HealthCheck,
    tested: bool,
    disabled: bool,
}

fn read(report: &mut Report, view: &View<'_>, section: &Section) -> Option<Read> {
    let mut check = HealthCheck {
        interval_ms: HealthCheck::DEFAULT_INTERVAL_MS,
        timeout_ms: HealthCheck::DEFAULT_TIMEOUT_MS,
        retries: HealthCheck::DEFAULT_RETRIES,
        successes: 1,
        ..HealthCheck::default()
    };
    let mut tested: Option<View<'_>> = None;
    let mut disabled = false;
    for (key, field) in report.section(view, section) {
        match key {
            "test" | "http" | "tcp" => {
                if let Some(first) = &tested {
                    let text = format!("{} and {} are given; choose one", first.path, field.path);
                    report.fault(&field, text);
                }
                tested = Some(field.clone());
                check.test = match key {
                    "http" => HealthTest::Http(http(report, &field)?),
                    "tcp" => HealthTest::Tcp(Some(port(report, &field)?)),
                    _ => test(report, &field)?,
                };
            }
            "interval" => set(&mut check.interval_ms, positive(report, &field)),
            "timeout" => set(&mut check.timeout_ms, positive(report, &field)),
            "start_interval" => set(&mut check.start_interval_ms, positive(report, &field)),
            "start_period" => {
                let period = report.parsed(&field, duration_ms);
                set(&mut check.start_period_ms, period);
            }
            "retries" => set(&mut check.retries, report.number(&field, 1, MAX_RETRIES)),
            "successes" => set(&mut check.successes, report.number(&field, 1, MAX_RETRIES)),
            "disable" => disabled = report.flag(&field).unwrap_or(false),
            _ => report.unhandled(&field),
        }
    }
    if disabled {
        if let Some(test) = tested.as_ref().filter(|_| check.test != HealthTest::None) {
            report.warn_key(test, "the health check is disabled, so its test is not run");
        }
        check.test = HealthTest::None;
    }
    Some(Read {
        check,
        tested: tested.is_some(),
        disabled,
    })
}

fn port(report: &mut Report, view: &View<'_>) -> Option<u16> {
    report.number(view, 1, u16::MAX)
}

/// A path, or a mapping with more.
fn http(report: &mut Report, view: &View<'_>) -> Option<HttpTest> {
    let mut test = HttpTest::default();
    if !view.is_map() {
        test.path = report.parsed(view, path)?;
        return Some(test);
    }
    for (key, field) in report.section(view, &HTTP_CHECK) {
        match key {
            "path" => set(&mut test.path, report.parsed(&field, path)),
            "port" => test.port = port(report, &field),
            "host" => test.host = report.line(&field).map(str::to_owned),
            "headers" => test.headers = labels(report, &field),
            _ => report.unhandled(&field),
        }
    }
    Some(test)
}

fn path(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err(format!("the path '{text}' must start with '/'")),
    }
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
