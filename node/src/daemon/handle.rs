//! How the rest of the daemon speaks with the engine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use dunlin_core::engine::Engine;
use dunlin_core::io::VolumeNews;
use dunlin_state::desired::{Command, Rejection};
use dunlin_state::model::{Load, ServiceKey};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for the engine. It answers within milliseconds; a longer queue would
/// only hide that it does not.
const QUEUE: usize = 256;

/// How long a write may take. It waits for the disk, and a disk may be slow; then the caller is
/// told that the outcome is unknown.
const PROPOSE_DEADLINE: Duration = Duration::from_secs(15);

/// A question to the engine, answered from its own memory with no copy of the whole state.
pub(crate) type Question = Box<dyn FnOnce(&Engine) + Send>;

/// A request from inside the daemon.
pub(crate) enum Request {
    Propose {
        commands: Vec<Command>,
        author: String,
        reply: oneshot::Sender<Result<bool, Rejection>>,
    },
    Ask(Question),
    /// What became of a volume's data on this node.
    Volume(VolumeNews),
    /// What was measured of services that follow their load.
    Measured(BTreeMap<ServiceKey, Load>),
    Join(SocketAddr),
    Leave,
}

/// Why the engine gave no answer.
#[derive(Debug, Error)]
pub(crate) enum Unanswered {
    /// The daemon is shutting down.
    #[error("the daemon is shutting down")]
    Closing,
    /// Too many requests are waiting.
    #[error("the daemon is busy: {QUEUE} requests are waiting; try again")]
    Busy,
    /// The disk took too long.
    #[error("the disk has not confirmed the change within {} s; it may still take effect: check with `dunlin ls`", PROPOSE_DEADLINE.as_secs())]
    Slow,
    /// The change was refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// A cheap handle on the engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineHandle {
    requests: mpsc::Sender<Request>,
}

impl EngineHandle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, queue) = mpsc::channel(QUEUE);
        (Self { requests }, queue)
    }

    /// Makes a change of desired state. Answers when it is durable here: whether anything changed.
    pub(crate) async fn propose(
        &self,
        commands: Vec<Command>,
        author: String,
    ) -> Result<bool, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Propose {
            commands,
            author,
            reply,
        })?;
        match tokio::time::timeout(PROPOSE_DEADLINE, answer).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(_dropped)) => Err(Unanswered::Closing),
            Err(_elapsed) => Err(Unanswered::Slow),
        }
    }

    /// Asks the engine something.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Ask(Box::new(move |engine| {
            // The asker may have gone; then nobody misses the answer.
            let _gone = reply.send(question(engine));
        })))?;
        answer.await.map_err(|_dropped| Unanswered::Closing)
    }

    /// Tells of a volume's data.
    pub(crate) fn volume(&self, news: VolumeNews) -> Result<(), Unanswered> {
        self.send(Request::Volume(news))
    }

    /// Tells what was measured of services that follow their load.
    pub(crate) fn measured(&self, samples: BTreeMap<ServiceKey, Load>) -> Result<(), Unanswered> {
        self.send(Request::Measured(samples))
    }

    /// Tries to join through an address.
    pub(crate) fn join(&self, address: SocketAddr) -> Result<(), Unanswered> {
        self.send(Request::Join(address))
    }

    /// Says goodbye to the cluster.
    pub(crate) fn leave(&self) -> Result<(), Unanswered> {
        self.send(Request::Leave)
    }

    fn send(&self, request: Request) -> Result<(), Unanswered> {
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Unanswered::Busy,
                mpsc::error::TrySendError::Closed(_) => Unanswered::Closing,
            })
    }
}
