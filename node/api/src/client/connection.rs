//! One request on one connection.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::{ClientError, Host, Lines};
use crate::{ErrorBody, ErrorCode};

/// Largest answer that is read, in bytes: 100,000 replicas in a list come to about 60 MB. It
/// protects this process from a server that is no daemon of ours.
const MAX_ANSWER: usize = 128 << 20;

/// The task that moves a connection's bytes; ends with its owner.
#[derive(Debug)]
pub(super) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a request and collects its whole answer.
pub(super) async fn call(
    host: &Host,
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<Bytes, ClientError> {
    let (response, _driver) = send(host, method, path, body).await?;
    let success = response.status().is_success();
    let status = response.status();
    let bytes = collect(host, response.into_body()).await?;
    if success {
        Ok(bytes)
    } else {
        Err(refusal(host, status, &bytes))
    }
}

/// Sends a GET request whose answer is a stream of JSON lines.
pub(super) async fn open<T>(host: &Host, path: &str) -> Result<Lines<T>, ClientError> {
    let (response, driver) = send(host, "GET", path, None).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(Lines::new(host.clone(), response.into_body(), driver));
    }
    let bytes = collect(host, response.into_body()).await?;
    Err(refusal(host, status, &bytes))
}

async fn send(
    host: &Host,
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<(Response<Incoming>, Driver), ClientError> {
    let broken = |source: hyper::Error| ClientError::Broken {
        host: host.clone(),
        source: source.into(),
    };
    let stream = UnixStream::connect(host.socket())
        .await
        .map_err(|source| ClientError::from_connect(host, source))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let driver = Driver(tokio::spawn(async move {
        // Its failure shows in the request or body that it carries.
        let _ = connection.await;
    }));
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "dunlin")
        .header("user-agent", concat!("dunlin/", env!("CARGO_PKG_VERSION")));
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let request = request
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| ClientError::Garbled {
            host: host.clone(),
            detail: format!("the path {path} cannot be asked for: {error}"),
        })?;
    let response = sender.send_request(request).await.map_err(broken)?;
    Ok((response, driver))
}

async fn collect(host: &Host, body: Incoming) -> Result<Bytes, ClientError> {
    match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(source) if source.is::<LengthLimitError>() => Err(ClientError::Garbled {
            host: host.clone(),
            detail: format!("it is larger than {MAX_ANSWER} bytes"),
        }),
        Err(source) => Err(ClientError::Broken {
            host: host.clone(),
            source,
        }),
    }
}

/// Reads an error body; what is none, such as a proxy's page, becomes an internal error with its
/// status.
fn refusal(host: &Host, status: hyper::StatusCode, bytes: &[u8]) -> ClientError {
    let body = serde_json::from_slice(bytes).unwrap_or_else(|_not_ours| {
        let text: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
        let message = format!("{host} answered {status}: {}", text.trim());
        ErrorBody::new(ErrorCode::Internal, message)
    });
    ClientError::Answered(body)
}
