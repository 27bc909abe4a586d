//! One request on one connection: over a Unix socket as it is, over TCP inside TLS.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::{Client, ClientError, Host, Lines};
use crate::tls::Presented;
use crate::{ErrorBody, ErrorCode};

/// Largest answer that is read, in bytes: 100,000 replicas in a list come to about 60 MB. It
/// protects this process from a server that is no daemon of ours.
const MAX_ANSWER: usize = 128 << 20;

/// The body of a request.
pub(super) type Content = UnsyncBoxBody<Bytes, std::convert::Infallible>;

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
    client: &Client,
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<Bytes, ClientError> {
    let link = Link::open(client).await?;
    link.call(method, path, body).await
}

/// A connection before its one request.
pub(super) struct Link {
    host: Host,
    sender: http1::SendRequest<Content>,
    driver: Driver,
    /// What the other side has proven to be; nothing on a Unix socket.
    pub(super) server: Option<Presented>,
}

impl Link {
    /// Connects, and over TCP checks that the node belongs to the expected cluster.
    pub(super) async fn open(client: &Client) -> Result<Self, ClientError> {
        let host = &client.host;
        match host {
            Host::Unix(socket) => {
                let stream = UnixStream::connect(socket).await;
                let stream = stream.map_err(|source| ClientError::from_connect(host, source))?;
                Self::begin(host, stream, None).await
            }
            Host::Tcp(authority) => {
                let credentials = client.credentials.as_ref();
                let credentials =
                    credentials.ok_or_else(|| ClientError::NoCredentials { host: host.clone() })?;
                let stream = TcpStream::connect(authority).await;
                let stream = stream.map_err(|source| ClientError::from_connect(host, source))?;
                // No name is sent or checked: the certificate says who it is.
                let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
                let stream = credentials.connector().connect(name, stream).await;
                let stream = stream.map_err(|error| ClientError::from_tls(host, error))?;
                let (_, session) = stream.get_ref();
                let shown = session.peer_certificates().and_then(<[_]>::first);
                let server = shown.and_then(|der| Presented::read(der).ok());
                Self::begin(host, stream, server).await
            }
        }
    }

    async fn begin<S>(
        host: &Host,
        stream: S,
        server: Option<Presented>,
    ) -> Result<Self, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ClientError::broken(host, error))?;
        let driver = Driver(tokio::spawn(async move {
            // Its failure shows in the request or body that it carries.
            let _ = connection.await;
        }));
        Ok(Self {
            host: host.clone(),
            sender,
            driver,
            server,
        })
    }

    /// Sends a request and collects its whole answer.
    pub(super) async fn call(
        self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, ClientError> {
        let host = self.host.clone();
        let (response, _driver) = self.send(method, path, body).await?;
        answer(&host, response).await
    }
}

async fn answer(host: &Host, response: Response<Incoming>) -> Result<Bytes, ClientError> {
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
pub(super) async fn open<T>(client: &Client, path: &str) -> Result<Lines<T>, ClientError> {
    let host = &client.host;
    let link = Link::open(client).await?;
    let (response, driver) = link.send("GET", path, None).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(Lines::new(host.clone(), response.into_body(), driver));
    }
    let bytes = collect(host, response.into_body()).await?;
    Err(refusal(host, status, &bytes))
}

/// Sends a POST request whose body goes on while the answer comes. The answer is a success.
pub(super) async fn converse(
    client: &Client,
    path: &str,
    kind: &str,
    body: Content,
) -> Result<(Response<Incoming>, Driver), ClientError> {
    let link = Link::open(client).await?;
    let (response, driver) = link.send_content("POST", path, Some(kind), body).await?;
    let status = response.status();
    if status.is_success() {
        return Ok((response, driver));
    }
    let bytes = collect(&client.host, response.into_body()).await?;
    Err(refusal(&client.host, status, &bytes))
}

impl Link {
    async fn send(
        self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(Response<Incoming>, Driver), ClientError> {
        let kind = body.is_some().then_some("application/json");
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        self.send_content(method, path, kind, body.boxed_unsync())
            .await
    }

    async fn send_content(
        mut self,
        method: &str,
        path: &str,
        kind: Option<&str>,
        body: Content,
    ) -> Result<(Response<Incoming>, Driver), ClientError> {
        let host = &self.host;
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "dunlin")
            .header("user-agent", concat!("dunlin/", env!("CARGO_PKG_VERSION")));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let request = request.body(body).map_err(|error| ClientError::Garbled {
            host: host.clone(),
            detail: format!("the path {path} cannot be asked for: {error}"),
        })?;
        let response = self.sender.send_request(request).await;
        let response = response.map_err(|error| ClientError::broken(host, error))?;
        Ok((response, self.driver))
    }
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
