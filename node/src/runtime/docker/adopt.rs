//! Finding the containers of an earlier life of the daemon.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerSummary;
use dunlin_core::io::Adopted;
use dunlin_state::model::Outputs;
use tracing::warn;

use super::super::{Ending, Found};
use super::follow::ending;
use super::{Engine, Inner, connect};

/// How long adoption waits for an engine whose socket exists. After that, containers count as
/// gone, and those that come back with the engine are removed.
const ENGINE_PATIENCE: Duration = Duration::from_secs(3);
/// Tries to list what there is.
const TRIES: u32 = 3;

impl Inner {
    /// Finds all containers of this node, living and dead.
    pub(super) async fn adopt(self: Arc<Self>) -> Vec<Found> {
        let mut found = Vec::new();
        if let Some(engine) = self.wait_for_engine().await {
            for container in self.list_all(&engine).await {
                found.extend(self.take_over(&engine, container).await);
            }
        }
        self.waiters.set_adopted();
        found
    }

    async fn wait_for_engine(&self) -> Option<Engine> {
        if let Some(engine) = self.client() {
            return Some(engine);
        }
        if !connect::may_come(self.socket.as_deref()) {
            return None;
        }
        let mut changes = self.engine.subscribe();
        let there = changes.wait_for(Option::is_some);
        match tokio::time::timeout(ENGINE_PATIENCE, there).await {
            Ok(Ok(engine)) => engine.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn list_all(&self, engine: &Engine) -> Vec<ContainerSummary> {
        for _ in 0..TRIES {
            let filters = self.owner.filter();
            match engine.list(&filters).await {
                Ok(list) => return list,
                Err(error) => warn!(%error, "cannot list the containers of an earlier life"),
            }
        }
        Vec::new()
    }

    async fn take_over(&self, engine: &Engine, container: ContainerSummary) -> Option<Found> {
        let labelled = self.owner.read(&container.labels.unwrap_or_default())?;
        let container = container.id?;
        // Waited for first, then looked at: nothing that happens in between is missed.
        let ended = self.waiters.wait(&container);
        let found = engine.inspect(&container).await.ok()?;
        let state = found.state.clone().unwrap_or_default();
        let running = self.running_labelled(engine, &labelled, &found).await;
        let adopted = |exited| Adopted {
            running,
            revision: labelled.revision,
            exited,
            outputs: Ok(Outputs::default()),
        };
        match ending(&state) {
            Some(end) => {
                self.waiters.settle(&container, end);
                let exited = match end {
                    Ending::Exited { code, oom } => (code, oom),
                    Ending::Lost => (255, false),
                };
                Some(Found {
                    adopted: adopted(Some(exited)),
                    ended: None,
                })
            }
            None if state.running == Some(true) => Some(Found {
                adopted: adopted(None),
                ended: Some(ended),
            }),
            None => {
                // Created and never started: the daemon ended in between.
                self.waiters.settle(&container, Ending::Lost);
                self.discard(engine, &container).await;
                None
            }
        }
    }
}
