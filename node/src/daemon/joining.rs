//! Tells people when a node that wants to join hears nobody.

use std::net::SocketAddr;
use std::time::Duration;

use dunlin_core::io::Event;
use tokio_util::sync::CancellationToken;

use super::driver::tell;
use crate::api::{EventLog, alone};
use crate::daemon::handle::EngineHandle;

/// How long members may take to answer before that is told: several calls are made in that time.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it is told again.
const REMINDER: Duration = Duration::from_secs(60);

/// Watches until somebody answers. The calling itself is done by membership, for ever.
pub(super) struct Joining {
    engine: EngineHandle,
    events: EventLog,
    /// Where members should be; nobody is missed when empty.
    asked: Vec<SocketAddr>,
}

impl Joining {
    pub(super) fn new(engine: &EngineHandle, events: &EventLog, asked: &[SocketAddr]) -> Self {
        Self {
            engine: engine.clone(),
            events: events.clone(),
            asked: asked.to_vec(),
        }
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        let mut wait = PATIENCE;
        while !self.asked.is_empty() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            match self.engine.ask(alone).await {
                Ok(true) => self.warn(),
                Ok(false) => break,
                Err(error) => tracing::debug!(%error, "cannot look for members"),
            }
            wait = REMINDER;
        }
        stop.cancelled().await;
    }

    fn warn(&self) {
        let event = Event {
            warning: true,
            text: nobody_answers(&self.asked),
            slot: None,
            node: None,
        };
        tell(&self.events, event);
    }
}

/// What is wrong, and what to do.
fn nobody_answers(asked: &[SocketAddr]) -> String {
    let list: Vec<String> = asked.iter().map(ToString::to_string).collect();
    format!(
        "nobody answers at {}; still trying: is a member running there, and does UDP pass both ways?",
        list.join(", ")
    )
}
