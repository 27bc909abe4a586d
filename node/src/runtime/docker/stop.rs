//! Stopping and removing containers.

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::{KillContainerOptions, RemoveContainerOptions};
use dunlin_core::io::WorkloadId;
use tracing::warn;

use super::Inner;
use super::start::status;

/// Pause between attempts to kill a container that does not die or an engine that does not
/// answer.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

impl Inner {
    /// Sends the signal, waits, kills; then kills again until the caller has seen the end.
    ///
    /// The engine's own stop operation is not used: its grace would count against the time limit
    /// of the request, and before API 1.42 it takes no signal.
    pub(super) async fn stop(
        self: Arc<Self>,
        id: &WorkloadId,
        signal: Option<String>,
        grace_ms: u64,
    ) {
        let name = self.owner.name(id);
        self.kill(&name, signal.as_deref().unwrap_or("SIGTERM"))
            .await;
        tokio::time::sleep(Duration::from_millis(grace_ms)).await;
        loop {
            self.kill(&name, "SIGKILL").await;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Sends a signal to a container that is not asked to end.
    pub(super) async fn notify(&self, id: &WorkloadId, signal: &str) {
        self.kill(&self.owner.name(id), signal).await;
    }

    async fn kill(&self, name: &str, signal: &str) {
        let Some(engine) = self.client() else {
            return;
        };
        let options = KillContainerOptions {
            signal: signal.to_owned(),
        };
        let Err(error) = engine.client.kill_container(name, Some(options)).await else {
            return;
        };
        match status(&error) {
            // Not there, or not running: its end is known, or this look makes it so.
            Some(404 | 409 | 500) => self.review_named(&engine, name).await,
            _ => warn!(name, %error, "cannot signal a container"),
        }
    }

    async fn review_named(&self, engine: &super::Engine, name: &str) {
        match engine.inspect(name).await {
            Ok(found) => {
                let container = found.id.unwrap_or_default();
                self.review(engine, &container, None).await;
            }
            Err(_) => {
                for container in self.waiters.all() {
                    self.review(engine, &container, None).await;
                }
            }
        }
    }

    /// Removes a dead container; a living one stays.
    pub(super) async fn remove(self: Arc<Self>, id: &WorkloadId) {
        let Some(engine) = self.client() else {
            return;
        };
        let name = self.owner.name(id);
        let options = RemoveContainerOptions {
            v: true,
            ..RemoveContainerOptions::default()
        };
        match engine.client.remove_container(&name, Some(options)).await {
            Ok(()) => {}
            Err(error) if status(&error) == Some(404) => {}
            Err(error) => warn!(name, %error, "cannot remove a container"),
        }
    }
}
