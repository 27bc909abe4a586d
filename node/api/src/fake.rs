//! A daemon of canned answers on a temporary socket, for tests of the client and of whoever uses
//! it. It speaks real HTTP over a real socket, so that only the answers are false.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::ErrorBody;
use crate::client::{Client, Host};

/// What the fake was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Method and path with query, such as `GET /v1/nodes`.
    pub line: String,
    /// The body as text.
    pub body: String,
}

/// What it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    /// Success with this body.
    pub fn json<T: Serialize>(body: &T) -> Self {
        Self::raw(200, serde_json::to_string(body).unwrap_or_default())
    }

    /// A stream of these records.
    pub fn lines<T: Serialize>(records: &[T]) -> Self {
        let lines = records.iter().filter_map(|r| serde_json::to_string(r).ok());
        Self::raw(200, lines.map(|line| line + "\n").collect())
    }

    /// A failure.
    pub fn error(body: &ErrorBody) -> Self {
        let text = serde_json::to_string(body).unwrap_or_default();
        Self::raw(body.code.status(), text)
    }

    /// Anything.
    pub fn raw(status: u16, body: String) -> Self {
        Self { status, body }
    }
}

type Script = dyn Fn(&Asked) -> Answer + Send + Sync;

/// The fake daemon; ends when dropped.
pub struct FakeDaemon {
    directory: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl FakeDaemon {
    /// Starts one that answers every request by `script`. Needs a running tokio runtime.
    pub fn start(
        script: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(directory.path().join("api.sock"))?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, Arc::new(script), Arc::clone(&asked)));
        Ok(Self {
            directory,
            asked,
            task,
        })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(Host::unix(self.socket()))
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, script: Arc<Script>, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, asked) = (Arc::clone(&script), Arc::clone(&asked));
        connections.spawn(async move {
            let service = service_fn(|request| answer(request, &*script, &asked));
            // A client that hangs up early is its own affair.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    script: &Script,
    asked: &Mutex<Vec<Asked>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let body = match request.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => format!("broken: {error}"),
    };
    let request = Asked { line, body };
    let answer = script(&request);
    asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(request);
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).unwrap_or_default();
    Ok(response)
}
