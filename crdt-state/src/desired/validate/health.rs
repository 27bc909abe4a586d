//! Health checks.

use super::{MAX_HEALTH_MS, SpecFault, check_list, check_no_nul, check_text};
use crate::model::{HealthTest, HttpTest, ServiceSpec};

pub(super) fn check_health(spec: &ServiceSpec) -> Result<(), SpecFault> {
    let checks = [&spec.health, &spec.readiness, &spec.liveness];
    for check in checks.into_iter().flatten() {
        check_health_test(&check.test)?;
        let longest = [
            check.interval_ms,
            check.timeout_ms,
            check.start_period_ms,
            check.start_interval_ms,
        ];
        if longest.into_iter().any(|ms| ms > MAX_HEALTH_MS) {
            return Err(SpecFault::HealthTooLong);
        }
    }
    Ok(())
}

fn check_health_test(test: &HealthTest) -> Result<(), SpecFault> {
    match test {
        HealthTest::None | HealthTest::Tcp(None | Some(1..)) => Ok(()),
        HealthTest::Tcp(Some(0)) => Err(SpecFault::PortZero),
        HealthTest::Exec(command) if command.is_empty() => Err(SpecFault::EmptyHealthCheck),
        HealthTest::Shell(line) if line.trim().is_empty() => Err(SpecFault::EmptyHealthCheck),
        HealthTest::Exec(command) => {
            check_list("words of the health check", command.len())?;
            let mut words = command.iter();
            words.try_for_each(|word| check_no_nul("the health check", word))
        }
        HealthTest::Shell(line) => check_no_nul("the health check", line),
        HealthTest::Http(http) => check_http_test(http),
    }
}

fn check_http_test(test: &HttpTest) -> Result<(), SpecFault> {
    if test.port == Some(0) {
        return Err(SpecFault::PortZero);
    }
    check_list("headers of the health check", test.headers.len())?;
    check_text("the path of the health check", &test.path)?;
    let host = test.host.as_deref().unwrap_or_default();
    check_text("the host of the health check", host)?;
    for (name, value) in &test.headers {
        check_text("a header of the health check", name)?;
        check_text("a header of the health check", value)?;
    }
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let names = test.headers.keys();
    let named = names.clone().all(|n| !n.is_empty() && n.chars().all(token));
    let printable = |text: &str| text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    let values = test.headers.values().all(|v| printable(v));
    let path = test.path.starts_with('/') && test.path.chars().all(|c| c.is_ascii_graphic());
    let host = host.chars().all(|c| c.is_ascii_graphic());
    if named && values && path && host {
        Ok(())
    } else {
        Err(SpecFault::BadHttpTest)
    }
}
