//! Waiting for conditions, with an end.

use std::time::{Duration, Instant};

use super::net::LabError;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `holds`, at most so many seconds. How long it took.
pub async fn eventually(
    what: &str,
    seconds: u64,
    holds: impl AsyncFnMut() -> Result<bool, LabError>,
) -> Result<Duration, LabError> {
    within(what, Duration::from_secs(seconds), holds).await
}

/// As [`eventually`], for any bound.
pub async fn within(
    what: &str,
    bound: Duration,
    mut holds: impl AsyncFnMut() -> Result<bool, LabError>,
) -> Result<Duration, LabError> {
    let start = Instant::now();
    loop {
        if holds().await? {
            return Ok(start.elapsed());
        }
        if start.elapsed() > bound {
            return Err(LabError::broken(format!("not within {bound:?}: {what}")));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
