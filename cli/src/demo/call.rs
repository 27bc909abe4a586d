//! One HTTP request to a replica.

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

/// An answer and how long it took.
#[derive(Debug, Clone)]
pub(super) struct Called {
    pub(super) answer: Answer,
    pub(super) took: Duration,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Asks a replica who it is. `None` when it does not answer.
pub(super) async fn call(address: SocketAddr) -> Option<Called> {
    let start = Instant::now();
    let answer = tokio::time::timeout(TIMEOUT, ask(address)).await;
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
