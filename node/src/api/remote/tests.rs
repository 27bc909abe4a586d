//! Real connections on loopback: who is answered what.

use std::collections::BTreeSet;

use axum::routing::{get, post};
use dunlin_api::client::{Client, ClientError, Credentials, Host};
use dunlin_api::{ErrorCode, Exit, routes};
use dunlin_trust::{
    Chain, ClusterId, Credential, Founding, InviteKey, PublicKey, Role, Seconds, SecretKey,
    Signature, Ticket, issue_role,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;
use crate::api::access::authorize;

/// Longest wait for what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: [u8; 16] = [8; 16];

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn now() -> Seconds {
    wall_millis() / 1_000
}

/// A cluster of one node, with one ticket for the namespace `ab`.
struct Cluster {
    founding: Founding,
    key: SecretKey,
    revoked: Mutex<BTreeSet<PublicKey>>,
}

impl Cluster {
    fn founded_by(n: u8) -> Arc<Self> {
        Arc::new(Self {
            founding: Founding::new([n; 32], [n; 32], key(n).public(), now()),
            key: key(n),
            revoked: Mutex::default(),
        })
    }

    fn root(&self) -> PublicKey {
        self.founding.root.public()
    }

    fn id(&self) -> ClusterId {
        ClusterId::of(&self.root())
    }

    fn issue(&self, to: PublicKey, role: Role) -> Chain {
        let admin = Credential::new(self.key.clone(), self.founding.admin.clone(), &self.root());
        issue_role(self.id(), &admin.unwrap(), to, role, now())
    }

    /// What a person with this role shows.
    fn person(&self, n: u8, role: &str) -> Credentials {
        let chain = self.issue(key(n).public(), role.parse().unwrap());
        Credentials::certified(key(n), self.root(), chain).unwrap()
    }
}

impl Authority for Cluster {
    fn key(&self) -> SecretKey {
        self.key.clone()
    }

    fn proof(&self, _now: Seconds) -> Option<Proof> {
        let chain = self.founding.node.clone();
        Some(Proof {
            root: self.root(),
            chain,
        })
    }

    fn is_revoked(&self, key: &PublicKey) -> bool {
        self.revoked.lock().unwrap().contains(key)
    }

    fn redeem(
        &self,
        invite: &PublicKey,
        newcomer: &PublicKey,
        proof: &Signature,
        _now: Seconds,
    ) -> Result<Chain, String> {
        let known = InviteKey::of(&SECRET).id() == *invite;
        let own = self.key.public();
        match known && InviteKey::is_proven(invite, self.id(), newcomer, &own, proof) {
            true => Ok(self.issue(*newcomer, "operator:ab".parse().unwrap())),
            false => Err("the ticket is not known here".to_owned()),
        }
    }
}

/// A served port with the routes of the real one and answers that cost nothing.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), TlsError>>,
}

impl Served {
    async fn by(cluster: &Arc<Cluster>) -> Self {
        let api = RemoteApi::bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let address = api.address().unwrap();
        let empty = || async { axum::Json(serde_json::json!({"changed": true, "nodes": []})) };
        let follow = || async {
            let silence = futures::stream::pending::<Result<bytes::Bytes, io::Error>>();
            axum::body::Body::from_stream(silence)
        };
        let asked = Arc::clone(cluster);
        let redeem =
            move |axum::Extension(caller): axum::Extension<Caller>,
                  axum::Json(request): axum::Json<dunlin_api::RedeemRequest>| {
                let asked = Arc::clone(&asked);
                async move { crate::api::redeem::answer(&*asked, &caller, &request) }
            };
        let router = axum::Router::new()
            .route(routes::HEALTH, get(|| async { "ok\n" }))
            .route(routes::REDEEM, post(redeem))
            .route(routes::NODES, get(empty))
            .route(routes::EVENTS, get(follow))
            .route(routes::SERVICE_STOP, post(empty))
            .layer(axum::middleware::from_fn(authorize));
        let stop = CancellationToken::new();
        let authority = Arc::clone(cluster) as Arc<dyn Authority>;
        let task = tokio::spawn(api.serve(router, authority, stop.clone()));
        Self {
            address,
            stop,
            task,
        }
    }

    fn client(&self, credentials: Credentials) -> Client {
        let host = Host::Tcp(self.address.to_string());
        Client::new(host)
            .with_timeout(PATIENCE)
            .with_credentials(credentials)
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn forbidden(error: &ClientError) -> String {
    assert_eq!(error.code(), ErrorCode::Forbidden, "{error}");
    assert_eq!(error.exit(), Exit::Forbidden, "{error}");
    error.to_string()
}

#[tokio::test]
async fn roles_and_exact_namespaces_decide() {
    let cluster = Cluster::founded_by(1);
    let served = Served::by(&cluster).await;
    let within = "ab/web".parse().unwrap();
    let beside = "a/web".parse().unwrap();
    let operator = served.client(cluster.person(5, "operator:ab"));
    assert!(operator.stop(&within).await.unwrap().changed);
    let refused = forbidden(&operator.stop(&beside).await.unwrap_err());
    assert!(
        refused.contains("'operator:ab'") && refused.contains("'a'"),
        "{refused}"
    );
    let viewer = served.client(cluster.person(6, "viewer"));
    assert!(viewer.nodes().await.unwrap().is_empty());
    forbidden(&viewer.stop(&within).await.unwrap_err());
    let admin = served.client(cluster.person(7, "admin"));
    assert!(admin.stop(&beside).await.unwrap().changed);
    let node = served.client(cluster.person(8, "node"));
    forbidden(&node.nodes().await.unwrap_err());
    served.end().await;
}

#[tokio::test]
async fn a_ticket_becomes_a_role_once_it_is_proven() {
    let cluster = Cluster::founded_by(1);
    let served = Served::by(&cluster).await;
    let bare = || Credentials::bare(key(9), cluster.id()).unwrap();
    let ticket = |secret| Ticket {
        cluster: cluster.id(),
        secret,
        addresses: Vec::new(),
    };
    let stranger = served.client(bare());
    let told = forbidden(&stranger.nodes().await.unwrap_err());
    assert!(told.contains("no certificate yet"), "{told}");
    let wrong = stranger.redeem(&ticket([7; 16])).await.unwrap_err();
    assert!(forbidden(&wrong).contains("not known"), "{wrong}");
    let redeemed = stranger.redeem(&ticket(SECRET)).await.unwrap();
    assert_eq!(redeemed.role.to_string(), "operator:ab");
    assert_eq!(redeemed.root, cluster.root());
    let person = Credentials::certified(key(9), redeemed.root, redeemed.chain).unwrap();
    let stopped = served.client(person).stop(&"ab/web".parse().unwrap()).await;
    assert!(stopped.unwrap().changed);
    served.end().await;
}

#[tokio::test]
async fn other_clusters_are_refused_on_both_sides() {
    let (ours, theirs) = (Cluster::founded_by(1), Cluster::founded_by(2));
    let served = Served::by(&theirs).await;
    // The client's side: nothing is said to a server of another cluster.
    let refused = served
        .client(ours.person(5, "admin"))
        .nodes()
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ClientError::Distrusted { .. }),
        "{refused}"
    );
    assert!(
        forbidden(&refused).contains(&ours.id().to_string()),
        "{refused}"
    );
    // The server's side: a client that takes the server for one of its own.
    let chain = ours.issue(key(5).public(), "admin".parse().unwrap());
    let liar = Credentials::certified(key(5), theirs.root(), chain).unwrap();
    let refused = served.client(liar).nodes().await.unwrap_err();
    assert!(forbidden(&refused).contains("not valid"), "{refused}");
    let presented = Presented {
        key: key(5).public(),
        proof: Some(Proof {
            root: ours.root(),
            chain: ours.issue(key(5).public(), "admin".parse().unwrap()),
        }),
    };
    let judged = judge(&*theirs, Some(&presented), now());
    assert!(judged.is_stranger(), "{judged:?}");
    assert!(!judge(&*ours, Some(&presented), now()).is_stranger());
    // Somebody else's certificate is worth nothing with another key.
    let stolen = theirs.issue(key(6).public(), "admin".parse().unwrap());
    let thief = Credentials::certified(key(5), theirs.root(), stolen).unwrap();
    let told = forbidden(&served.client(thief).nodes().await.unwrap_err());
    assert!(told.contains("another key"), "{told}");
    served.end().await;
}

#[tokio::test]
async fn a_removed_key_is_cut_off_also_in_the_middle_of_a_stream() {
    let cluster = Cluster::founded_by(1);
    let served = Served::by(&cluster).await;
    let client = served.client(cluster.person(5, "viewer"));
    let query = dunlin_api::EventQuery { follow: true };
    let mut events = client.events(&query).await.unwrap();
    cluster.revoked.lock().unwrap().insert(key(5).public());
    let ended = tokio::time::timeout(PATIENCE, events.next()).await;
    assert!(ended.expect("it is cut off").is_err());
    let told = forbidden(&client.nodes().await.unwrap_err());
    assert!(told.contains("removed"), "{told}");
    served.end().await;
}

#[tokio::test]
async fn who_has_no_key_gets_the_health_probe_and_nothing_else() {
    let cluster = Cluster::founded_by(1);
    let served = Served::by(&cluster).await;
    let mut expected = vec![("/healthz", "200")];
    expected
        .extend(["/v1/nodes", "/v1/version", "/v1/redeem", "/", "/v1/events"].map(|p| (p, "403")));
    for (path, status) in expected {
        let answer = ask_without_key(served.address, path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
        assert!(
            path != "/healthz" || answer.ends_with("\r\n\r\nok\n"),
            "{answer}"
        );
    }
    served.end().await;
}

/// What a probe of some other program would do.
async fn ask_without_key(address: SocketAddr, path: &str) -> String {
    #[derive(Debug)]
    struct Anybody;
    use dunlin_api::tls::{Expected, ServerCheck};
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.verify_tls13_signature(message, cert, dss)
        }
        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &rustls::DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let check = ServerCheck::new(Expected::Cluster(ClusterId([0; 16])));
            check.verify_tls13_signature(message, cert, dss)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ED25519]
        }
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("probe.example").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn junk_and_silence_do_not_keep_others_out() {
    let cluster = Cluster::founded_by(1);
    let served = Served::by(&cluster).await;
    let mut held = Vec::new();
    for n in 0..MAX_PER_ADDRESS {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        if n % 2 == 0 {
            // No TLS record starts so: it is hung up on.
            let _gone = stream.write_all(&[b'x'; 4096]).await;
        }
        held.push(stream);
    }
    // The silent ones are given up on after the time for a handshake, and the port answers again.
    let client = served.client(cluster.person(5, "viewer"));
    let start = tokio::time::Instant::now();
    while let Err(error) = client.nodes().await {
        assert!(start.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(held);
    served.end().await;
}

#[test]
fn one_address_has_a_bounded_share() {
    let mut open = BTreeMap::new();
    let one: IpAddr = [127, 0, 0, 1].into();
    let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
    for n in 0..MAX_PER_ADDRESS {
        assert!(reserve(&mut open, if n % 2 == 0 { one } else { mapped }));
    }
    assert!(!reserve(&mut open, one) && !reserve(&mut open, mapped));
    assert!(reserve(&mut open, [127, 0, 0, 2].into()));
    release(&mut open, one);
    assert!(reserve(&mut open, mapped));
    for _ in 0..MAX_PER_ADDRESS {
        release(&mut open, one);
    }
    release(&mut open, [127, 0, 0, 2].into());
    assert!(open.is_empty());
}
