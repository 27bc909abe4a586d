//! `dunlin whoami`: a tiny HTTP workload that says who it is.
//!
//! Demos, tests and labs need a service that is small, needs no image and shows which replica
//! answered. Every path answers with the replica's identity and an echo of the request as JSON;
//! `/health` answers with 200 and little else.
//!
//! It stands on hyper with one thread, and everything a client can hold is bounded: connections,
//! header bytes, the time to send a header, the age of a connection. On SIGTERM it stops
//! listening, finishes the requests it has, and exits with 0.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What may be taken from the process. Others wait in the kernel's queue.
const LIMITS: Limits = Limits {
    connections: 256,
    header_bytes: 16 * 1024,
    header_time: Duration::from_secs(5),
    age: Duration::from_secs(600),
    drain: Duration::from_secs(5),
};

/// Bytes that a connection buffers; hyper needs at least 8 KiB.
const BUFFER_BYTES: usize = 32 * 1024;

/// Header lines of a request.
const MAX_HEADERS: usize = 64;

/// Pause after a failed accept: the usual cause is too many open files, and trying again at once
/// would burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The command line of `dunlin whoami`.
#[derive(Debug, Clone, Args)]
pub struct WhoamiArgs {
    /// Port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,
    /// Address to listen on; that of HOST if it is one, else all.
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<IpAddr>,
}

/// Serves until it is asked to stop.
pub fn run(args: WhoamiArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    runtime.block_on(async {
        let host = std::env::var("HOST").ok();
        let address = SocketAddr::new(bind_address(args.bind, host.as_deref()), args.port);
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) => return failed(&format!("cannot listen on {address}: {error}")),
        };
        let stop = match asked_to_stop() {
            Ok(stop) => stop,
            Err(error) => return failed(&format!("cannot wait for signals: {error}")),
        };
        let identity = Identity::of(|name| std::env::var(name).ok());
        println!("listening on {}", listener.local_addr().unwrap_or(address));
        serve(listener, identity, LIMITS, stop).await;
        ExitCode::SUCCESS
    })
}

fn failed(message: &str) -> ExitCode {
    eprintln!("error: whoami {message}");
    ExitCode::FAILURE
}

/// `HOST` is how the process runtime tells where peers reach the node; some shells set it to a
/// name, which is no address to listen on.
fn bind_address(given: Option<IpAddr>, host: Option<&str>) -> IpAddr {
    given
        .or_else(|| host?.parse().ok())
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

/// Resolves on SIGTERM or SIGINT.
fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Connections at a time.
    connections: usize,
    /// Bytes of a request's header.
    header_bytes: usize,
    /// Time in which a header must be complete; also how long a connection may be idle.
    header_time: Duration,
    /// Age at which a connection is closed after its current request.
    age: Duration,
    /// Time for current requests when stopping, and for the last request of an old connection.
    drain: Duration,
}

/// Who this replica is, from what every runtime puts into its environment.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Identity {
    service: Option<String>,
    namespace: Option<String>,
    slot: Option<serde_json::Value>,
    node: Option<String>,
    epoch: Option<u64>,
    pid: u32,
}

impl Identity {
    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        // A replica's slot is a number, a daemon service's the node.
        let slot = variable("DUNLIN_SLOT").map(|slot| match slot.parse::<u32>() {
            Ok(number) => number.into(),
            Err(_) => slot.into(),
        });
        Self {
            service: variable("DUNLIN_SERVICE"),
            namespace: variable("DUNLIN_NAMESPACE"),
            slot,
            node: variable("DUNLIN_NODE"),
            epoch: variable("DUNLIN_EPOCH").and_then(|epoch| epoch.parse().ok()),
            pid: std::process::id(),
        }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    identity: &'a Identity,
    request: Echo<'a>,
}

#[derive(Debug, Serialize)]
struct Echo<'a> {
    method: &'a str,
    path: &'a str,
    /// Who connected: a client, or the proxy of a node.
    peer: SocketAddr,
    headers: BTreeMap<&'a str, String>,
}

/// Accepts until `stop` resolves, then finishes what is under way.
async fn serve(
    listener: TcpListener,
    identity: Identity,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let identity = Arc::new(identity);
    let places = Arc::new(Semaphore::new(limits.connections));
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut stop => break,
        };
        let Some((stream, peer, place)) = accepted else {
            break;
        };
        let connection = connection(stream, peer, Arc::clone(&identity), limits, stopped.clone());
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    // Nobody listens when there is no connection.
    let _ = stopping.send(true);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(limits.drain, places.acquire_many(all)).await;
}

/// The next connection, once there is a place for it. `None` is never seen: places are not closed.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Some((stream, peer, place)),
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves one connection to its end.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    identity: Arc<Identity>,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are one small write; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = answer(&identity, peer, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_headers(MAX_HEADERS)
        .max_header_size(limits.header_bytes)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        // The client's faults are the client's: there is nothing to tell anyone.
        _ = serving.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => {}
        () = tokio::time::sleep(limits.age) => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(limits.drain, serving).await;
}

fn answer<B>(identity: &Identity, peer: SocketAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    let body = if request.uri().path() == "/health" {
        Ok(br#"{"status":"ok"}"#.to_vec())
    } else {
        let path = request.uri().path_and_query();
        serde_json::to_vec(&Answer {
            identity,
            request: Echo {
                method: request.method().as_str(),
                path: path.map_or("/", |path| path.as_str()),
                peer,
                headers: headers(request.headers()),
            },
        })
    };
    let (status, mut body) = match body {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => {
            let text = format!("{error}").into_bytes();
            (StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    };
    body.push(b'\n');
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Headers by name; several of one name are joined, as RFC 9110 (5.3) allows.
fn headers(map: &HeaderMap) -> BTreeMap<&str, String> {
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in map {
        let value = String::from_utf8_lossy(value.as_bytes());
        let all = headers.entry(name.as_str()).or_default();
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(&value);
    }
    headers
}
