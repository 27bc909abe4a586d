//! Following the engine: what ends, and the engine's own going and coming back.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::{ContainerState, ContainerSummary, EventMessage};
use bollard::query_parameters::EventsOptions;
use futures::StreamExt as _;
use tracing::{info, warn};

use super::super::Ending;
use super::start::status;
use super::{Engine, Inner, connect};

/// How often an engine is looked for where there is no trace of one.
const SEEK_INTERVAL: Duration = Duration::from_secs(5);
/// How often where its socket exists: it is being started.
const SEEK_INTERVAL_NEAR: Duration = Duration::from_millis(500);
/// How often a silent engine is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// An engine that answers no ping in this time is treated as gone. Long: a host that starts
/// dozens of containers at once is slow, and being gone has consequences for placement.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pings between two comparisons of all containers, should an event have been lost.
const PINGS_PER_REVIEW: u32 = 12;
/// Pause before an event stream is opened anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// Seconds by which a new event stream reaches back, so that the list taken after it opens leaves
/// no gap.
const OVERLAP_S: u64 = 2;

impl Inner {
    /// Follows the engine for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            let engine = match self.client() {
                Some(engine) => engine,
                None => self.seek().await,
            };
            let reason = self.follow_one(&engine).await;
            if ping(&engine).await {
                warn!(reason, "lost the engine's event stream; opening another");
            } else {
                warn!(reason, "the container engine has stopped answering");
                self.engine.send_replace(None);
            }
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    }

    async fn seek(&self) -> Engine {
        let socket = self.socket.as_deref();
        loop {
            if let Some(engine) = connect::connect(socket).await {
                info!(version = engine.version, "a container engine answers");
                self.engine.send_replace(Some(engine.clone()));
                return engine;
            }
            let near = connect::may_come(socket);
            let pause = if near {
                SEEK_INTERVAL_NEAR
            } else {
                SEEK_INTERVAL
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Follows one event stream until it is lost; tells why.
    async fn follow_one(&self, engine: &Engine) -> String {
        let mut events = pin!(engine.client.events(Some(self.subscription())));
        if let Err(error) = self.compare(engine).await {
            return error.to_string();
        }
        self.networks.list(engine).await;
        let mut pings = tokio::time::interval(PING_INTERVAL);
        let mut until_review = PINGS_PER_REVIEW;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.event(engine, event).await,
                    Some(Err(error)) => return error.to_string(),
                    None => return "it was closed".to_owned(),
                },
                () = self.networks.wanted() => self.networks.list(engine).await,
                _ = pings.tick() => {
                    if !ping(engine).await {
                        return "no answer to a ping".to_owned();
                    }
                    until_review -= 1;
                    if until_review == 0 {
                        until_review = PINGS_PER_REVIEW;
                        if let Err(error) = self.compare(engine).await {
                            return error.to_string();
                        }
                    }
                }
            }
        }
    }

    fn subscription(&self) -> EventsOptions {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs());
        let mut filters = self.owner.filter();
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        filters.insert("type".to_owned(), words(&["container"]));
        // Podman says `died` and `remove`.
        filters.insert(
            "event".to_owned(),
            words(&["die", "died", "destroy", "remove"]),
        );
        EventsOptions {
            since: Some(now.saturating_sub(OVERLAP_S).to_string()),
            until: None,
            filters: Some(filters),
        }
    }

    async fn event(&self, engine: &Engine, event: EventMessage) {
        let actor = event.actor.unwrap_or_default();
        let Some(container) = actor.id else {
            return;
        };
        if !self.waiters.has(&container) {
            return;
        }
        let attributes = actor.attributes.unwrap_or_default();
        let code = attributes
            .get("exitCode")
            .or_else(|| attributes.get("containerExitCode"))
            .and_then(|code| code.parse().ok());
        self.review(engine, &container, code).await;
    }

    /// Looks at a container that may have ended, and tells who waits for it. `code` is what an
    /// event said, should the container be gone already.
    pub(super) async fn review(&self, engine: &Engine, container: &str, code: Option<i32>) {
        let ending = match engine.inspect(container).await {
            Ok(found) => found.state.as_ref().and_then(ending),
            Err(error) if status(&error) == Some(404) => Some(match code {
                Some(code) => Ending::Exited { code, oom: false },
                None => Ending::Lost,
            }),
            // The next comparison will tell.
            Err(_) => None,
        };
        if let Some(ending) = ending {
            self.sources.forget(container);
            self.waiters.settle(container, ending);
        }
    }

    /// Compares all containers with what is waited for.
    async fn compare(&self, engine: &Engine) -> Result<(), bollard::errors::Error> {
        // Before the list: what is created after it must not seem to be missing.
        let waited = self.waiters.all();
        let filters = self.owner.filter();
        let list = engine.list(&filters).await?;
        let alive = |c: &&ContainerSummary| c.state.is_some_and(is_alive);
        let living: Vec<_> = list.iter().filter(alive).cloned().collect();
        self.tear_down(engine, &living).await;
        let mut running = HashMap::new();
        for container in list {
            let is_running = container.state.is_some_and(is_alive);
            let name = container.names.unwrap_or_default().into_iter().next();
            let name = name.unwrap_or_default().trim_start_matches('/').to_owned();
            if let Some(id) = container.id.filter(|_| is_running) {
                running.insert(id, name);
            }
        }
        for container in waited {
            if !running.contains_key(&container) {
                self.review(engine, &container, None).await;
            }
        }
        for (container, name) in running {
            if self.waiters.is_orphan(&container, &name) {
                warn!(
                    name,
                    "removing a container that came back after it was given up"
                );
                self.discard(engine, &container).await;
            }
        }
        Ok(())
    }
}

async fn ping(engine: &Engine) -> bool {
    let answer = tokio::time::timeout(PING_TIMEOUT, engine.client.ping()).await;
    matches!(answer, Ok(Ok(_)))
}

/// Whether a listed container runs, or is to be treated so.
pub(super) fn is_alive(state: bollard::models::ContainerSummaryStateEnum) -> bool {
    use bollard::models::ContainerSummaryStateEnum as State;
    matches!(
        state,
        State::RUNNING | State::PAUSED | State::RESTARTING | State::STOPPING
    )
}

/// How a container has ended; `None` while it runs or has not been started.
pub(super) fn ending(state: &ContainerState) -> Option<Ending> {
    use bollard::models::ContainerStateStatusEnum as Status;
    match state.status? {
        Status::EXITED | Status::DEAD | Status::REMOVING => Some(Ending::Exited {
            code: state
                .exit_code
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(255),
            oom: state.oom_killed == Some(true),
        }),
        Status::EMPTY
        | Status::CREATED
        | Status::RUNNING
        | Status::PAUSED
        | Status::RESTARTING
        | Status::STOPPING => None,
    }
}
