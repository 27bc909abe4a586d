//! Who is at the other end: TLS 1.3 in which each side proves its node key and nothing else.
//!
//! The keys are sent as they are (RFC 7250, raw public keys): a certificate would only wrap the
//! same 32 bytes in a format that has to be parsed. Whether a key is a member's is asked of the
//! newest route table at each handshake; connections that stand are closed by their owner when
//! their peer ceases to be one.

use std::fmt;
use std::sync::Arc;

use dunlin_state::model::NodeId;
use dunlin_state::route::RouteTable;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls;
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer,
    UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tokio::sync::watch;

/// The protocol's name in the handshake; another version of the streams' content has another one.
const ALPN: &[u8] = b"dunlin-hop/1";

/// DER of an ed25519 `SubjectPublicKeyInfo` (RFC 8410) before the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// DER of an ed25519 private key (RFC 8410) before the 32 bytes of the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// This node's part in handshakes.
pub(super) struct Credentials {
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    members: watch::Receiver<Arc<RouteTable>>,
}

impl Credentials {
    /// Of the node with this ed25519 seed, for peers that the table names.
    pub(super) fn new(
        node: NodeId,
        seed: &[u8; 32],
        members: watch::Receiver<Arc<RouteTable>>,
    ) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let private = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], seed].concat());
        let private = PrivateKeyDer::Pkcs8(private);
        let key = provider.key_provider.load_private_key(private)?;
        let public = [&SPKI_PREFIX[..], node.as_bytes()].concat();
        let key = CertifiedKey::new(vec![CertificateDer::from(public)], key);
        Ok(Self {
            provider,
            key: Arc::new(key),
            members,
        })
    }

    /// For connections that members open.
    pub(super) fn server(&self) -> Result<QuicServerConfig, String> {
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(Arc::new(self.verifier(None)))
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        QuicServerConfig::try_from(config).map_err(|error| error.to_string())
    }

    /// For a connection to one member.
    pub(super) fn client(&self, peer: NodeId) -> Result<QuicClientConfig, String> {
        let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key));
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(Some(peer))))
            .with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        QuicClientConfig::try_from(config).map_err(|error| error.to_string())
    }

    fn verifier(&self, expected: Option<NodeId>) -> Verifier {
        Verifier {
            expected,
            members: self.members.clone(),
            algorithms: self.provider.signature_verification_algorithms,
        }
    }
}

/// The node whose key a peer has proven.
pub(super) fn peer(connection: &quinn::Connection) -> Option<NodeId> {
    let identity = connection.peer_identity()?;
    let keys = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    node_of(keys.first()?)
}

fn node_of(key: &[u8]) -> Option<NodeId> {
    let bytes = key.strip_prefix(&SPKI_PREFIX)?;
    Some(NodeId::from_bytes(bytes.try_into().ok()?))
}

/// Accepts exactly the keys of members; on connections that this node opens, of the one it means.
struct Verifier {
    expected: Option<NodeId>,
    members: watch::Receiver<Arc<RouteTable>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verifier({:?})", self.expected)
    }
}

impl Verifier {
    fn check(&self, key: &[u8], intermediates: usize) -> Result<(), Error> {
        let refused = Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure);
        let node = node_of(key).filter(|_| intermediates == 0);
        let node = node.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let is_member = self.members.borrow().nodes.contains_key(&node);
        match is_member && self.expected.is_none_or(|expected| expected == node) {
            true => Ok(()),
            false => Err(refused),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        rustls::crypto::verify_tls13_signature_with_raw_key(
            message,
            &key,
            signature,
            &self.algorithms,
        )
    }
}

/// TLS 1.2 is not spoken, so nothing is signed its way.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates.len())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates.len())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
