//! How the two sides of a remote connection know each other.
//!
//! Both present an X.509 certificate that their own ed25519 key signed, made on the spot and of no
//! meaning by itself: TLS 1.3 proves with it that they hold the key. What the key is worth stands
//! in an extension: the cluster's root key and the [`Chain`] of `dunlin-trust` that leads from it
//! to this key. No certificate authority, host name or date of X.509 plays a part.
//!
//! ```text
//! extension  2.25.<a UUID>:  version (1) | root key (32) | chain      or   version (1)
//! ```
//!
//! The short form is that of a client that holds no certificate yet and only a ticket.

use std::fmt;
use std::sync::Arc;

use dunlin_trust::{Chain, ChainError, ClusterId, MAX_CHAIN, Power, PublicKey, Role, SecretKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};

mod der;
#[cfg(test)]
mod tests;

/// The only version of the extension so far.
const VERSION: u8 = 1;
/// Bytes of the longest certificate that is looked at.
const MAX_PRESENTED: usize = MAX_CHAIN + 1024;

/// The cryptography of both sides: that which the node's QUIC has brought along.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A chain with the root key that it starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The cluster's root key.
    pub root: PublicKey,
    /// The certificates from there to the presenter's key.
    pub chain: Chain,
}

/// What the other side presents. TLS has proven that it holds the key; nothing else is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// Its key.
    pub key: PublicKey,
    /// Its chain, if it has one.
    pub proof: Option<Proof>,
}

/// Why a certificate is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no dunlin daemon or client: {0}")]
pub struct NotOurs(pub &'static str);

/// Why a client does not speak with a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It is something else.
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    /// It is of another cluster.
    #[error("it belongs to the cluster {theirs}, and {ours} was expected")]
    Foreign {
        /// Whom the client expected.
        ours: ClusterId,
        /// Who it is.
        theirs: ClusterId,
    },
    /// It does not belong to the cluster that it names.
    #[error("its certificate is not valid: {0}")]
    Chain(#[from] ChainError),
    /// It holds a certificate, but for something else than to be a node.
    #[error("its certificate is for the role '{0}', and only nodes serve the API")]
    NoNode(String),
    /// Its certificate is about another key.
    #[error("its certificate is about another key")]
    NotItsOwn,
}

/// The key and certificate to present.
///
/// # Errors
/// When the cryptography refuses the key, which it never does with one of 32 bytes.
pub fn certified(key: &SecretKey, proof: Option<&Proof>) -> Result<CertifiedKey, rustls::Error> {
    let mut extension = vec![VERSION];
    if let Some(proof) = proof {
        extension.extend_from_slice(&proof.root.0);
        extension.extend_from_slice(&proof.chain.encode());
    }
    let certificate = der::certificate(key, &extension);
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der::private_key(key)));
    let signer = provider().key_provider.load_private_key(private)?;
    Ok(CertifiedKey::new(
        vec![CertificateDer::from(certificate)],
        signer,
    ))
}

impl Presented {
    /// Reads what the other side presented.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, NotOurs> {
        if certificate.len() > MAX_PRESENTED {
            return Err(NotOurs("its certificate is too long"));
        }
        let (key, extension) = der::read(certificate)?;
        let (version, rest) = extension
            .split_first()
            .ok_or(NotOurs("its certificate is empty"))?;
        if *version != VERSION {
            return Err(NotOurs("its certificate is of a later version"));
        }
        let proof = match rest.split_first_chunk::<32>() {
            None if rest.is_empty() => None,
            None => return Err(NotOurs("its certificate is cut off")),
            Some((root, chain)) => Some(Proof {
                root: PublicKey(*root),
                chain: Chain::decode(chain).map_err(|bad| NotOurs(bad.0))?,
            }),
        };
        Ok(Self { key, proof })
    }
}

/// What a client knows of the server before it has met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The root key, from its context.
    Root(PublicKey),
    /// The cluster, from a ticket.
    Cluster(ClusterId),
}

impl Expected {
    fn cluster(self) -> ClusterId {
        match self {
            Self::Root(root) => ClusterId::of(&root),
            Self::Cluster(cluster) => cluster,
        }
    }

    /// Whether this is a node of the expected cluster.
    pub fn check(self, server: &Presented, now: u64) -> Result<Proof, Distrust> {
        let proof = server.proof.clone();
        let proof = proof.ok_or(NotOurs("it presents no chain of certificates"))?;
        let (ours, theirs) = (self.cluster(), ClusterId::of(&proof.root));
        if ours != theirs {
            return Err(Distrust::Foreign { ours, theirs });
        }
        let verified = proof.chain.verify_at(&proof.root, now)?;
        if verified.subject != server.key {
            return Err(Distrust::NotItsOwn);
        }
        match verified.power {
            Power::Role(Role::Node) => Ok(proof),
            other => Err(Distrust::NoNode(other.to_string())),
        }
    }
}

/// The client's check of the server. It fails the handshake, so that nothing is said to a stranger.
pub struct ServerCheck {
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl ServerCheck {
    /// Expects this.
    pub fn new(expected: Expected) -> Self {
        Self {
            expected,
            provider: provider(),
        }
    }
}

impl fmt::Debug for ServerCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerCheck").field(&self.expected).finish()
    }
}

impl ServerCertVerifier for ServerCheck {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = Presented::read(end_entity).map_err(Distrust::from);
        let checked = presented.and_then(|p| self.expected.check(&p, now.as_secs()));
        checked.map_err(refusal)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        older_tls()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signed(message, cert, dss, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Nothing older than TLS 1.3 is spoken, so nothing is signed its way.
fn older_tls() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
}

/// Whether the other side holds the key that its certificate names.
fn signed(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider.signature_verification_algorithms;
    verify_tls13_signature(message, cert, dss, algorithms)
}

fn refusal(distrust: Distrust) -> rustls::Error {
    let other = OtherError(Arc::new(distrust));
    rustls::Error::InvalidCertificate(CertificateError::Other(other))
}

/// The server's check of the client: that it holds the key that it presents. What that is worth is
/// decided per request, so that a client is told why it is refused. A health probe presents none.
pub struct ClientCheck {
    provider: Arc<CryptoProvider>,
}

impl ClientCheck {
    /// Takes every ed25519 key.
    #[expect(clippy::new_without_default, reason = "the provider is chosen here")]
    pub fn new() -> Self {
        Self {
            provider: provider(),
        }
    }
}

impl fmt::Debug for ClientCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCheck")
    }
}

impl ClientCertVerifier for ClientCheck {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Presented::read(end_entity).map_err(|e| refusal(e.into()))?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        older_tls()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signed(message, cert, dss, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
