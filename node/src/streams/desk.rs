//! Serves the streams that are opened to this node.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use dunlin_api::tls::{Presented, Proof};
use dunlin_api::{ErrorBody, ErrorCode};
use dunlin_state::model::NodeId;
use dunlin_trust::{Chain, PublicKey};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Opening, Visitor, Wish, exec, take_opening, volume};
use crate::api::{Authority, EventLog, GateAuthority, judge};
use crate::daemon::clock::wall_millis;
use crate::daemon::handle::EngineHandle;
use crate::runtime::{RuntimesHandle, VolumeRoot};

/// Streams served at a time: tens of people with a shell each. Each may hold some 200 KB.
const AT_ONCE: usize = 64;
/// Streams that may wait for that.
pub(crate) const QUEUE: usize = 16;
/// Time for an opening to arrive.
const OPENING: Duration = Duration::from_secs(10);
/// Time for what is under way to be ended when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// The task that serves streams.
pub(crate) struct StreamDesk {
    pub(crate) visitors: mpsc::Receiver<Visitor>,
    pub(crate) desk: Desk,
}

/// What serving one takes.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) runtimes: RuntimesHandle,
    pub(crate) engine: EngineHandle,
    pub(crate) authority: Arc<GateAuthority>,
    pub(crate) events: EventLog,
    pub(crate) volumes: VolumeRoot,
}

impl StreamDesk {
    /// Serves until `stop` is cancelled. What is under way then is ended.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut served = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_done) = served.join_next() => {}
                visitor = self.visitors.recv(), if served.len() < AT_ONCE => {
                    let Some(visitor) = visitor else { break };
                    served.spawn(self.desk.clone().serve(visitor, stop.clone()));
                }
            }
        }
        let ended = async { while served.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            served.shutdown().await;
        }
    }
}

impl Desk {
    async fn serve(self, visitor: Visitor, stop: CancellationToken) {
        let Visitor { from, mut stream } = visitor;
        let opening = match tokio::time::timeout(OPENING, take_opening(&mut stream)).await {
            Ok(Ok(opening)) => opening,
            Ok(Err(error)) => {
                tracing::debug!(?from, %error, "a stream to this node has no good beginning");
                return;
            }
            Err(_elapsed) => {
                tracing::debug!(?from, "a stream to this node says nothing");
                return;
            }
        };
        let refused = from.and_then(|node| self.refuses(node, &opening));
        match opening.wish {
            Wish::Exec { slot, start } => {
                let order = exec::Order {
                    slot,
                    start: *start,
                    author: opening.author,
                };
                exec::serve(&self, stream, order, refused, stop).await;
            }
            Wish::Volume { volume, act } => {
                let order = volume::Order {
                    volume,
                    act,
                    author: opening.author,
                };
                volume::serve(&self, stream, order, refused, stop).await;
            }
        }
    }

    /// Why another node must not have what it wants; nothing when it may.
    fn refuses(&self, node: NodeId, opening: &Opening) -> Option<ErrorBody> {
        let refuse = |message: String| Some(ErrorBody::new(ErrorCode::Forbidden, message));
        let now = wall_millis() / 1_000;
        let Some(own) = self.authority.proof(now) else {
            return refuse("that node has not been let into its cluster yet".to_owned());
        };
        let chain = opening.chain.as_ref();
        let chain = chain.and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let Some(chain) = chain.and_then(|bytes| Chain::decode(&bytes).ok()) else {
            return refuse(
                "the node that was asked may not change services: ask one whose ticket was for an operator, or one that runs the replica"
                    .to_owned(),
            );
        };
        let presented = Presented {
            key: PublicKey(*node.as_bytes()),
            proof: Some(Proof {
                root: own.root,
                chain,
            }),
        };
        let caller = judge(&*self.authority, Some(&presented), now);
        caller
            .may_write(opening.wish.namespace())
            .err()
            .map(|f| f.0)
    }
}
