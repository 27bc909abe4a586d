//! The listener for people and programs on other hosts: TLS 1.3 with keys on both sides.
//!
//! Everybody may connect, and who presents no certificate of the cluster gets the health probe and
//! nothing else, for a few seconds: their requests are answered before any of a body is read.
//! What one address can hold open is limited, so that it does not crowd out the others. A client
//! whose certificate ends, or whose key is removed, is cut off while it is connected.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_api::tls::{ClientCheck, Presented, Proof, certified, provider};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Caller;
use super::authority::{Authority, judge};
use super::server::{BindError, DRAIN, converse};
use crate::daemon::clock::wall_millis;

/// Clients at a time: dashboards and scripts of a few hundred people.
const MAX_CONNECTIONS: usize = 512;
/// Clients of one address at a time: an office behind one router.
const MAX_PER_ADDRESS: usize = 64;
/// Time for the handshake: two round trips, also on a bad path and on a slow host.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long somebody without a certificate may stay: a probe, or a ticket to redeem.
const STRANGER: Duration = Duration::from_secs(10);
/// How often it is checked that a connected client may still be there.
const RECHECK: Duration = Duration::from_secs(1);
/// After a failure to accept, which lasts as long as all descriptors are in use.
const PAUSE: Duration = Duration::from_millis(50);

/// A bound port, not served yet.
#[derive(Debug)]
pub(crate) struct RemoteApi {
    listener: TcpListener,
}

/// The cryptography cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("the API cannot be served over TLS: {0}")]
pub struct TlsError(#[from] rustls::Error);

/// What every connection needs.
#[derive(Clone)]
struct Desk {
    acceptor: TlsAcceptor,
    router: axum::Router,
    authority: Arc<dyn Authority>,
    stop: CancellationToken,
}

impl RemoteApi {
    /// Binds the port.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|source| BindError::Remote { address, source })?;
        Ok(Self { listener })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled, then lets answers in flight finish.
    pub(crate) async fn serve(
        self,
        router: axum::Router,
        authority: Arc<dyn Authority>,
        stop: CancellationToken,
    ) -> Result<(), TlsError> {
        let desk = Desk {
            acceptor: TlsAcceptor::from(Arc::new(config(Arc::clone(&authority))?)),
            router,
            authority,
            stop: stop.clone(),
        };
        let mut connections: JoinSet<IpAddr> = JoinSet::new();
        let mut open = BTreeMap::<IpAddr, usize>::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => match ended {
                    Ok(address) => release(&mut open, address),
                    Err(error) => tracing::warn!(%error, "an API connection failed"),
                },
                accepted = self.listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    match accepted {
                        Ok((stream, from)) if reserve(&mut open, from.ip()) => {
                            let desk = desk.clone();
                            connections.spawn(async move {
                                desk.attend(stream, from).await;
                                from.ip()
                            });
                        }
                        Ok((_too_many, from)) => {
                            tracing::debug!(%from, "has too many API connections already");
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot accept an API connection");
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
            }
        }
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            connections.shutdown().await;
        }
        Ok(())
    }
}

impl Desk {
    async fn attend(self, stream: TcpStream, from: SocketAddr) {
        // Answers are small and waited for; without it each may wait for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%from, %error, "no TCP_NODELAY");
        }
        let handshake = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%from, %error, "an API connection is not made");
                return;
            }
            Err(_elapsed) => {
                tracing::debug!(%from, "an API connection is not made in time");
                return;
            }
        };
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        // The handshake has failed already if it cannot be read.
        let client = certificate.and_then(|der| Presented::read(der).ok());
        let caller = self.judge(client.as_ref());
        if caller.is_stranger() {
            let served = converse(stream, self.router, caller, self.stop);
            if tokio::time::timeout(STRANGER, served).await.is_err() {
                tracing::debug!(%from, "an API connection without a certificate is closed");
            }
            return;
        }
        let converse = converse(stream, self.router.clone(), caller, self.stop.clone());
        tokio::select! {
            () = converse => {}
            () = self.until_unwelcome(client.as_ref()) => {
                tracing::info!(%from, "an API connection is closed: its certificate is no longer good");
            }
        }
    }

    fn judge(&self, client: Option<&Presented>) -> Caller {
        judge(&*self.authority, client, wall_millis() / 1_000)
    }

    async fn until_unwelcome(&self, client: Option<&Presented>) {
        loop {
            tokio::time::sleep(RECHECK).await;
            if self.judge(client).is_stranger() {
                return;
            }
        }
    }
}

/// Counts a connection of this address, unless it has too many.
fn reserve(open: &mut BTreeMap<IpAddr, usize>, address: IpAddr) -> bool {
    let count = open.entry(address.to_canonical()).or_default();
    if *count >= MAX_PER_ADDRESS {
        return false;
    }
    *count += 1;
    true
}

fn release(open: &mut BTreeMap<IpAddr, usize>, address: IpAddr) {
    let address = address.to_canonical();
    if let Some(count) = open.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            open.remove(&address);
        }
    }
}

fn config(authority: Arc<dyn Authority>) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider());
    let mut config = builder
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(ClientCheck::new()))
        .with_cert_resolver(Arc::new(OwnCertificate {
            authority,
            made: Mutex::default(),
        }));
    // Every connection proves its key anew: a resumed one would not.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// This node's certificate as it is now; it changes when it is renewed.
struct OwnCertificate {
    authority: Arc<dyn Authority>,
    made: Mutex<Option<(Proof, Arc<CertifiedKey>)>>,
}

impl std::fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnCertificate")
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let proof = self.authority.proof(wall_millis() / 1_000)?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = made.as_ref().filter(|(of, _)| *of == proof) {
            return Some(Arc::clone(key));
        }
        match certified(&self.authority.key(), Some(&proof)) {
            Ok(key) => {
                let key = Arc::new(key);
                *made = Some((proof, Arc::clone(&key)));
                Some(key)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot make the API's certificate");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
