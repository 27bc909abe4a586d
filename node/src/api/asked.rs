//! What nodes ask each other for people: pieces of logs, and what replicas use.

use axum::body::Bytes;
use serde::{Deserialize, Serialize};

use super::events::line;
use super::{logs, stats};
use crate::daemon::handle::EngineHandle;
use crate::runtime::RuntimesHandle;

/// A question to another node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PeerQuestion {
    /// A piece of a log.
    Log(logs::PeerQuery),
    /// What replicas use.
    Usage(stats::UsageQuery),
}

/// Answers another node's question.
pub(crate) async fn answer_peer(
    runtimes: &RuntimesHandle,
    engine: &EngineHandle,
    request: &[u8],
) -> Bytes {
    match serde_json::from_slice(request) {
        Ok(PeerQuestion::Log(query)) => line(&logs::read_here(runtimes, query).await),
        Ok(PeerQuestion::Usage(query)) => {
            let used = stats::read_here(runtimes, engine, query).await;
            line(&Ok::<_, String>(used))
        }
        Err(error) => line(&Err::<(), _>(format!(
            "this node does not understand the request: {error}"
        ))),
    }
}
