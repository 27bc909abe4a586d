//! The listener for local users: a Unix socket. Who may use it is said in [`super::local`].

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::local::{Doorman, Group, group};
use super::remote::{RemoteApi, TlsError};
use super::{Authority, Caller, Context, People, router};

/// Clients at a time. A person has a few; scripts have tens; more is a leak.
const MAX_CONNECTIONS: usize = 256;
/// A client that has connected sends its request within this.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a request's head, and of what is read ahead of a handler. The longest head is that of
/// a query with two names.
const MAX_HEAD: usize = 64 * 1024;
/// How long answers in flight may take once the daemon stops.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

/// Why the API cannot be served.
#[derive(Debug, Error)]
pub enum BindError {
    /// Someone answers there.
    #[error("another daemon answers on {0}: choose another --api, or stop that one")]
    InUse(PathBuf),
    /// Something else stands there.
    #[error("{0} exists and is no socket: choose another --api")]
    NotASocket(PathBuf),
    /// The TCP port.
    #[error("cannot listen on TCP {address} for the API: {source}; choose another --api-listen")]
    Remote {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such group.
    #[error("--api-group: /etc/group has no group '{0}'")]
    NoSuchGroup(String),
    /// The operating system refused.
    #[error("cannot listen on {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A bound socket, not served yet.
pub(crate) struct ApiServer {
    listener: UnixListener,
    path: PathBuf,
    doorman: Doorman,
    remote: Option<(RemoteApi, Arc<dyn Authority>)>,
}

impl ApiServer {
    /// Binds the socket. One left over from a daemon that crashed is replaced; one that answers is
    /// not. Besides root and the daemon's own user, the members of `group_name` may use it.
    pub(crate) fn bind(path: &Path, group_name: Option<&str>) -> Result<Self, BindError> {
        let io_error = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        let group = match group_name {
            Some(name) => Some(group(name).ok_or_else(|| BindError::NoSuchGroup(name.to_owned()))?),
            None => None,
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(io_error)?;
        }
        clear_stale(path)?;
        let listener = UnixListener::bind(path).map_err(io_error)?;
        restrict(path, group.as_ref()).map_err(io_error)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            doorman: Doorman::new(group),
            remote: None,
        })
    }

    /// Also listens there for other hosts, whose people `authority` judges.
    pub(crate) async fn and_remote(
        mut self,
        address: SocketAddr,
        authority: Arc<dyn Authority>,
    ) -> Result<Self, BindError> {
        let remote = RemoteApi::bind(address).await?;
        let bound = remote.address().unwrap_or(address);
        tracing::info!("the API is served to holders of certificates at tcp://{bound}");
        self.remote = Some((remote, authority));
        Ok(self)
    }

    /// Serves until `stop` is cancelled, then lets answers in flight finish and removes the socket.
    pub(crate) async fn serve(
        mut self,
        context: Context,
        stop: CancellationToken,
    ) -> Result<(), TlsError> {
        let remote = self.remote.take();
        let people = People(remote.as_ref().map(|(_, authority)| Arc::clone(authority)));
        let router = router(context, people);
        let local = self.serve_local(router.clone(), stop.clone());
        let Some((remote, authority)) = remote else {
            local.await;
            return Ok(());
        };
        let ((), ended) = tokio::join!(local, remote.serve(router, authority, stop));
        ended
    }

    async fn serve_local(self, router: axum::Router, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_ended) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => {
                            let caller = self.doorman.caller(&stream);
                            connections.spawn(converse(stream, router.clone(), caller, stop.clone()));
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept an API connection");
                            // Out of descriptors: yield instead of spinning.
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
            }
        }
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            connections.shutdown().await;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the API socket was gone already");
        }
    }
}

/// Answers the requests of one connection until it or the daemon ends.
pub(super) async fn converse<S>(
    stream: S,
    router: axum::Router,
    caller: Caller,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(axum::Extension(caller)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an API connection ended early");
    }
}

/// For the owner, or with a group for both.
fn restrict(path: &Path, group: Option<&Group>) -> io::Result<()> {
    let mode = match group {
        Some(group) => {
            std::os::unix::fs::chown(path, None, Some(group.id))?;
            0o660
        }
        None => 0o600,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn clear_stale(path: &Path) -> Result<(), BindError> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(BindError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    if !kind.is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    if StdUnixStream::connect(path).is_ok() {
        return Err(BindError::InUse(path.to_owned()));
    }
    fs::remove_file(path).map_err(|source| BindError::Io {
        path: path.to_owned(),
        source,
    })
}
