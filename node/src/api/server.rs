//! The listener: a Unix socket whose file mode says who may talk to the daemon.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Caller, Context, router};

/// Clients at a time. A person has a few; scripts have tens; more is a leak.
const MAX_CONNECTIONS: usize = 256;
/// A client that has connected sends its request within this.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// How long answers in flight may take once the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the API cannot be served.
#[derive(Debug, Error)]
pub enum BindError {
    /// Someone answers there.
    #[error("another daemon answers on {0}: choose another --api, or stop that one")]
    InUse(PathBuf),
    /// Something else stands there.
    #[error("{0} exists and is no socket: choose another --api")]
    NotASocket(PathBuf),
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
#[derive(Debug)]
pub(crate) struct ApiServer {
    listener: UnixListener,
    path: PathBuf,
}

impl ApiServer {
    /// Binds the socket. One left over from a daemon that crashed is replaced; one that answers is
    /// not.
    pub(crate) fn bind(path: &Path) -> Result<Self, BindError> {
        let io_error = |source| BindError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(io_error)?;
        }
        clear_stale(path)?;
        let listener = UnixListener::bind(path).map_err(io_error)?;
        // Its owner and group: an administrator may widen it with chgrp, as with Docker's.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(io_error)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves until `stop` is cancelled, then lets answers in flight finish and removes the socket.
    pub(crate) async fn serve(self, context: Context, stop: CancellationToken) {
        let router = router(context);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_ended) = connections.join_next() => {}
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => {
                            connections.spawn(converse(stream, router.clone(), stop.clone()));
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

async fn converse(stream: UnixStream, router: axum::Router, stop: CancellationToken) {
    let caller = caller(&stream);
    let service = TowerToHyperService::new(router.layer(axum::Extension(caller)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
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

fn caller(stream: &UnixStream) -> Caller {
    let uid = stream.peer_cred().ok().map(|c| c.uid());
    Caller(match uid {
        Some(0) => "root".to_owned(),
        Some(uid) => user_name(uid).unwrap_or_else(|| format!("uid {uid}")),
        None => "unknown".to_owned(),
    })
}

/// The name of a local user; directories over the network are not asked.
fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
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
