//! What a client shows to nodes on other hosts, and what it expects of them.

use std::fmt;
use std::sync::Arc;

use dunlin_trust::{Chain, PublicKey, SecretKey};
use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use tokio_rustls::TlsConnector;

use super::ClientError;
use crate::tls::{Expected, Proof, ServerCheck, certified, provider};

/// A person's key with their certificate, and the cluster that they deal with. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    key: SecretKey,
    connector: TlsConnector,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials")
            .field(&self.key.public())
            .finish()
    }
}

impl Credentials {
    /// Of somebody whose key the cluster with this root key has certified.
    pub fn certified(key: SecretKey, root: PublicKey, chain: Chain) -> Result<Self, ClientError> {
        let proof = Proof { root, chain };
        Self::new(key, Some(&proof), Expected::Root(root))
    }

    /// Of somebody who holds a ticket of this cluster and no certificate yet.
    pub fn bare(key: SecretKey, cluster: dunlin_trust::ClusterId) -> Result<Self, ClientError> {
        Self::new(key, None, Expected::Cluster(cluster))
    }

    fn new(key: SecretKey, proof: Option<&Proof>, expected: Expected) -> Result<Self, ClientError> {
        let bad = |error: rustls::Error| ClientError::BadCredentials(error.to_string());
        let own = Arc::new(certified(&key, proof).map_err(bad)?);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(bad)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerCheck::new(expected)))
            .with_client_cert_resolver(Arc::new(Own(own)));
        // The server's certificate says who it is; names are for the way there only.
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Self {
            key,
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// The public half of the key.
    pub fn public(&self) -> PublicKey {
        self.key.public()
    }

    pub(super) fn connector(&self) -> &TlsConnector {
        &self.connector
    }
}

/// The one certificate that there is.
#[derive(Debug)]
struct Own(Arc<CertifiedKey>);

impl ResolvesClientCert for Own {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
