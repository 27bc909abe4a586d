//! One HTTP request to a replica, or to whichever is behind a published port.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// A replica on this host that has not answered by then does not answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A published port may take longer: its proxy tries replica after replica for 6 s.
const PUBLISHED_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are read.
const MAX_BYTES: usize = 64 * 1024;

/// What `dunlin whoami` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Answer {
    pub(super) service: Option<String>,
    pub(super) slot: Option<serde_json::Value>,
    pub(super) node: Option<String>,
    pub(super) epoch: Option<u64>,
    pub(super) pid: u32,
}

impl Answer {
    /// The slot, in the words that the cluster uses.
    pub(super) fn slot_name(&self) -> Option<String> {
        self.slot.as_ref().map(|slot| match slot {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}

/// An answer and how long it took.
#[derive(Debug, Clone)]
pub(super) struct Called {
    pub(super) answer: Answer,
    pub(super) took: Duration,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Asks a replica who it is. `None` when it does not answer.
pub(super) async fn call(address: SocketAddr) -> Option<Called> {
    call_within(TIMEOUT, address).await
}

/// Asks whichever replica a published port gives. `None` when none answers.
pub(super) async fn call_published(address: SocketAddr) -> Option<Called> {
    call_within(PUBLISHED_TIMEOUT, address).await
}

async fn call_within(limit: Duration, address: SocketAddr) -> Option<Called> {
    let start = Instant::now();
    let answer = tokio::time::timeout(limit, ask(address)).await;
    let answer = answer.ok()?.ok()?;
    Some(Called {
        answer,
        took: start.elapsed(),
    })
}

async fn ask(address: SocketAddr) -> Result<Answer, AnyError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/")
        .header(HOST, "hello")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), MAX_BYTES);
        let bytes = body.collect().await?.to_bytes();
        Ok::<_, AnyError>(serde_json::from_slice(&bytes)?)
    };
    // The connection is driven here and not by a task, so that nothing is left when this returns.
    tokio::select! {
        answer = exchange => answer,
        ended = connection => {
            ended?;
            Err("the connection ended".into())
        }
    }
}
