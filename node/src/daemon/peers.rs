//! Answers what other nodes ask outside of the engine: pieces of logs, what replicas use.

use dunlin_state::model::NodeId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::driver::PeerRequest;
use super::handle::EngineHandle;
use crate::api::answer_peer;
use crate::runtime::RuntimesHandle;

/// Questions answered at a time. Each reads a file or asks the container engine.
const AT_ONCE: usize = 32;
/// Questions that may wait for that.
pub(super) const QUEUE: usize = 64;

/// The task that answers.
pub(crate) struct PeerDesk {
    pub(super) requests: mpsc::Receiver<PeerRequest>,
    pub(super) runtimes: RuntimesHandle,
    pub(super) engine: EngineHandle,
    pub(super) node: NodeId,
}

impl PeerDesk {
    /// Answers until `stop` is cancelled. What is being answered then is refused.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut answers = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_done) = answers.join_next() => {}
                request = self.requests.recv(), if answers.len() < AT_ONCE => {
                    let Some(PeerRequest { bytes, reply }) = request else { break };
                    let (runtimes, engine) = (self.runtimes.clone(), self.engine.clone());
                    answers.spawn(async move {
                        // The asker may have given up; then nobody misses the answer.
                        let _gone = reply.send(answer_peer(&runtimes, &engine, &bytes).await);
                    });
                }
            }
        }
        tracing::debug!(node = %self.node, "no more answers to peers");
        answers.shutdown().await;
    }
}
