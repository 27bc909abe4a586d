//! The health check that an image defines.
//!
//! The engine is told to run none: all checks, also those of images, are run by this node's own
//! monitor, so that one machine decides about readiness and restarts whatever the runtime is, and
//! nothing is checked twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bollard::models::{ContainerInspectResponse, HealthConfig};
use dunlin_state::model::{HealthCheck, HealthTest};

use super::{Engine, Inner};

/// Nanoseconds of a millisecond.
const NANOS: i64 = 1_000_000;

/// Images whose checks are remembered: more than a host sensibly runs.
const MAX_KNOWN: usize = 256;

/// The checks of images, by the images' ids. An id is a hash of all that the image says, so what is
/// known of one stays true; and asking once an image instead of once a container is a quarter less
/// for the engine to answer while it starts many.
#[derive(Debug, Default)]
pub(super) struct ImageChecks {
    known: Mutex<BTreeMap<String, Option<HealthCheck>>>,
}

impl ImageChecks {
    fn known(&self, image: &str) -> Option<Option<HealthCheck>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(image).cloned()
    }

    fn remember(&self, image: &str, check: Option<HealthCheck>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(image.to_owned(), check);
    }
}

/// What every container is created with.
pub(super) fn none() -> HealthConfig {
    HealthConfig {
        test: Some(vec!["NONE".to_owned()]),
        ..HealthConfig::default()
    }
}

impl Inner {
    /// The check of a container's image; `None` as well when the engine does not say.
    pub(super) async fn image_health(
        &self,
        engine: &Engine,
        found: &ContainerInspectResponse,
    ) -> Option<HealthCheck> {
        let id = found.image.as_ref()?;
        if let Some(known) = self.image_checks.known(id) {
            return known;
        }
        let image = engine.client.inspect_image(id).await.ok()?;
        let check = image.config.and_then(|config| read(&config.healthcheck?));
        self.image_checks.remember(id, check.clone());
        check
    }
}

fn read(config: &HealthConfig) -> Option<HealthCheck> {
    let words = config.test.as_deref()?;
    let test = match words.first().map(String::as_str) {
        Some("CMD") if words.len() > 1 => HealthTest::Exec(words[1..].to_vec()),
        Some("CMD-SHELL") if words.len() > 1 => HealthTest::Shell(words[1..].join(" ")),
        Some(_) | None => return None,
    };
    let millis = |nanos: Option<i64>| u64::try_from(nanos.unwrap_or(0) / NANOS).unwrap_or(0);
    Some(HealthCheck {
        test,
        interval_ms: millis(config.interval),
        timeout_ms: millis(config.timeout),
        retries: config.retries.and_then(|n| n.try_into().ok()).unwrap_or(0),
        successes: 1,
        start_period_ms: millis(config.start_period),
        start_interval_ms: millis(config.start_interval),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(words: &[&str]) -> HealthConfig {
        HealthConfig {
            test: Some(words.iter().map(|w| (*w).to_owned()).collect()),
            interval: Some(5_000 * NANOS),
            retries: Some(4),
            ..HealthConfig::default()
        }
    }

    #[test]
    fn the_checks_of_a_bounded_number_of_images_are_remembered() {
        let checks = ImageChecks::default();
        let some = read(&config(&["CMD", "true"]));
        checks.remember("with", some.clone());
        checks.remember("without", None);
        assert_eq!(checks.known("with"), Some(some));
        assert_eq!(checks.known("without"), Some(None));
        assert_eq!(checks.known("other"), None);
        for number in 0..2 * MAX_KNOWN {
            checks.remember(&number.to_string(), None);
            assert!(checks.known.lock().unwrap().len() <= MAX_KNOWN);
        }
    }

    #[test]
    fn what_images_define_is_read() {
        let exec = read(&config(&["CMD", "curl", "-f", "http://localhost"])).unwrap();
        assert!(matches!(exec.test, HealthTest::Exec(words) if words.len() == 3));
        assert_eq!(
            (exec.interval_ms, exec.timeout_ms, exec.retries),
            (5_000, 0, 4)
        );
        let shell = read(&config(&["CMD-SHELL", "exit 0"])).unwrap();
        assert_eq!(shell.test, HealthTest::Shell("exit 0".to_owned()));
        for none in [&["NONE"][..], &[], &["CMD"]] {
            assert_eq!(read(&config(none)), None, "{none:?}");
        }
    }
}
