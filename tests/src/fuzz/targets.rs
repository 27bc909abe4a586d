//! The decoders.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dunlin_cli::compose;
use dunlin_core::wire;
use dunlin_dns::{Manner, Suffix, Transport, Zone};
use dunlin_gossip::membership::Input;
use dunlin_gossip::net::seal::{OpenError, Opener, SealKey};
use dunlin_state::Now;
use dunlin_state::desired::{Actor, Document, SyncSession, check_spec};
use dunlin_state::model::{NodeId, ServiceKey};
use dunlin_state::observed::{Envelope, Proof, Register, Seal};
use dunlin_state::route::RouteTable;
use dunlin_trust::{Chain, ContentKey, Keyring, SealedKey, Signed, Ticket};

use super::seeds;

/// A decoder that sees bytes of others.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Feeds it.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("datagram", datagram),
    target("membership", membership),
    target("frame", frame),
    target("wire", wire_message),
    target("register", register),
    target("change", change),
    target("step", step),
    target("document", document),
    target("gate", gate),
    target("certificate", certificate),
    target("ticket", ticket),
    target("tls", tls),
    target("api", api),
    target("dns", dns),
    target("upstream", upstream),
    target("hop", hop),
    target("secret", secret),
    target("compose", compose_file),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// A membership datagram as it comes from the socket, and what one holds whose writer has the
/// cluster's key.
fn datagram(bytes: &[u8]) {
    let key = SealKey::new(&seeds::DATAGRAM_KEY);
    let mut opener = Opener::default();
    for sealed in [bytes, &seeds::sealed(bytes)] {
        if let Ok((sender, text)) = opener.open(&key, sealed) {
            let known = (1..=3).any(|n| *seeds::member(n).node.as_bytes() == sender.0);
            assert!(known, "nobody else can have signed {text:?}");
            let again = opener.open(&key, sealed);
            assert_eq!(again, Err(OpenError::Replayed));
        }
    }
}

/// Frames on a stream of the control plane, under a bound that inputs can reach.
fn frame(bytes: &[u8]) {
    let again = dunlin_gossip::net::reread_frames(bytes, 4_096);
    assert!(bytes.starts_with(&again), "frames have a second form");
}

/// A datagram of a member, after its seal was opened, and the same over a connection.
fn membership(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let from = seeds::member(2).address;
    let node = seeds::member(2).node;
    let now = Now { mono: 10, wall: 10 };
    let _sender = dunlin_gossip::membership::sender(&bytes);
    for input in [
        Input::Datagram {
            from,
            bytes: bytes.clone(),
        },
        Input::Reliable { from: node, bytes },
    ] {
        let (mut machine, _started) = seeds::membership(1);
        let _effects = machine.handle(input, now);
        let _views = machine.members().count();
    }
}

/// A message over the control plane.
fn wire_message(bytes: &[u8]) {
    if let Ok(message) = wire::decode(bytes) {
        // What is understood can be said again.
        let again = wire::encode(&message).and_then(|bytes| wire::decode(&bytes));
        assert_eq!(again.as_ref(), Ok(&message));
    }
}

/// Believes every signature, so that what stands behind them is reached.
#[derive(Debug)]
struct Credulous;

impl Seal for Credulous {
    fn sign(&self, _digest: &[u8; 32]) -> Proof {
        Proof([0; 64])
    }

    fn verify(&self, _node: NodeId, _digest: &[u8; 32], _proof: &Proof) -> bool {
        true
    }
}

/// A node's register, alone and on top of a known one.
fn register(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes) else {
        return;
    };
    let known = seeds::register();
    for known in [None, Some(&known)] {
        if let Ok(register) = Register::open(envelope.clone(), known, &Credulous) {
            let again = Envelope::decode(&register.encode(None));
            assert!(again.is_ok(), "what was taken cannot be passed on");
        }
    }
}

/// The document that hostile bytes are applied to: copied, because making one costs more.
static DOCUMENT: LazyLock<Mutex<Document>> = LazyLock::new(|| Mutex::new(seeds::document()));

fn with_document(act: impl FnOnce(&mut Document)) {
    let base = DOCUMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut copy = base.clone();
    drop(base);
    act(&mut copy);
    // It is still usable, and can be saved and loaded.
    let actor = Actor::new(seeds::member(9).node, 1);
    let loaded = Document::load(&copy.save(), &[], actor);
    assert!(loaded.is_ok(), "the document was damaged");
}

/// A pushed change of desired state.
fn change(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    with_document(|document| {
        let _result = document.apply_changes(&[bytes]);
    });
}

/// A step of anti-entropy.
fn step(bytes: &[u8]) {
    with_document(|document| {
        let mut session = SyncSession::new();
        let _result = document.receive_step(&mut session, bytes);
        let _answer = document.generate_step(&mut session);
    });
}

/// A whole document, from a peer or a disk.
fn document(bytes: &[u8]) {
    let actor = Actor::new(seeds::member(8).node, 1);
    let loaded = Document::load_prefix(bytes, &[], actor, None);
    let Ok(loaded) = loaded else {
        return;
    };
    let id = loaded.document.id();
    with_document(|document| {
        let _result = document.adopt(bytes, id);
    });
}

/// What is said at the gate, by who dials and by who is dialed.
fn gate(bytes: &[u8]) {
    let (mut keeper, from) = seeds::gatekeeper();
    let _heard = keeper.hear(bytes, &from, seeds::SECONDS);
    let _judged = keeper.judge(bytes, &from, seeds::SECONDS);
}

/// Certificates, statements and keyrings.
fn certificate(bytes: &[u8]) {
    let root = seeds::founding().root.public();
    if let Ok(chain) = Chain::decode(bytes) {
        assert_eq!(chain.encode(), bytes, "it has a second form");
        let _verified = chain.verify_at(&root, seeds::SECONDS);
    }
    if let Ok(signed) = Signed::decode(bytes) {
        let _verified = signed.verify(&root, "svc/default/web/spec");
    }
    if let Ok(keyring) = Keyring::decode(bytes) {
        let _verified = keyring.verify_at(&root, seeds::SECONDS);
    }
}

/// A ticket as a person pastes it.
fn ticket(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(ticket) = text.parse::<Ticket>() {
        let again = ticket.to_string().parse::<Ticket>();
        assert!(again.is_ok(), "what was read cannot be written");
    }
}

/// The X.509 certificate that a client or server presents.
fn tls(bytes: &[u8]) {
    let certificate = rustls_pki_types::CertificateDer::from(bytes.to_vec());
    let _presented = dunlin_api::tls::Presented::read(&certificate);
}

/// Bodies of requests, as far as to the check of what they ask for.
fn api(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<dunlin_api::DeployRequest>(bytes) {
        for service in &request.services {
            let _fault = check_spec(&service.spec);
            let _revision = dunlin_state::desired::revision_of(&service.spec);
        }
    }
    let _item = serde_json::from_slice::<dunlin_api::ItemRequest>(bytes);
    let _ticket = serde_json::from_slice::<dunlin_api::TicketRequest>(bytes);
    let _redeem = serde_json::from_slice::<dunlin_api::RedeemRequest>(bytes);
    let _labels = serde_json::from_slice::<dunlin_api::LabelsRequest>(bytes);
    let _rollout = serde_json::from_slice::<dunlin_api::RolloutRequest>(bytes);
    // Parts of paths.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let service = text.parse::<ServiceKey>();
        assert!(service.is_err() || !text.contains(".."), "a name is a path");
        let _node = text.parse::<NodeId>();
    }
}

/// A DNS query.
fn dns(bytes: &[u8]) {
    static ZONE: LazyLock<Zone> =
        LazyLock::new(|| Zone::new(&Suffix::default(), &RouteTable::default()));
    for (transport, most) in [(Transport::Udp, 4_096), (Transport::Tcp, 65_535)] {
        let mut reply = Vec::new();
        let manner = Manner { recursion: false };
        let _outcome = dunlin_dns::respond(&ZONE, bytes, transport, manner, 0, &mut reply);
        assert!(reply.len() <= most, "an answer of {} bytes", reply.len());
    }
}

/// What a resolver answers to a question that was passed on to it.
fn upstream(bytes: &[u8]) {
    for query in seeds::queries() {
        for (transport, most) in [(Transport::Udp, 4_096), (Transport::Tcp, 65_535)] {
            let age = Duration::from_secs(bytes.len() as u64);
            let told = dunlin_dns::relay(&query, bytes, transport, age).unwrap_or_default();
            assert!(told.len() <= most, "an answer of {} bytes", told.len());
            // It has the client's id and question, whatever the resolver made of them.
            let same = told.is_empty() || (told[..2] == query[..2] && told.len() >= 12);
            assert!(same, "{told:02x?} answers {query:02x?}");
        }
    }
}

/// The head of a stream between two nodes.
fn hop(bytes: &[u8]) {
    if let Some(again) = dunlin_lb::proxy::hop::reread_request(bytes) {
        assert_eq!(again, bytes, "it has a second form");
    }
}

/// A sealed secret, and a sealed key.
fn secret(bytes: &[u8]) {
    let key = ContentKey::new([1; 32]);
    let _opened = key.open("default/pw", bytes);
    let (sealed, boxed) = bytes.split_at(bytes.len() / 2);
    let own = dunlin_trust::SecretKey::from_seed([2; 32]);
    assert!(SealedKey::open(&own, "default/pw", sealed, boxed).is_err());
}

/// Files that are not there.
struct NoFiles;

impl compose::Files for NoFiles {
    fn read(&self, _path: &Path) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// A Compose file that somebody else wrote.
fn compose_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let context = compose::Context {
        file: "compose.yaml",
        directory: None,
        project: None,
        namespace: None,
        variables: &BTreeMap::new(),
        files: &NoFiles,
    };
    if let Ok(project) = compose::parse(&text, &context) {
        for service in &project.services {
            let fault = check_spec(&service.spec);
            assert!(fault.is_ok(), "{fault:?} is found by the cluster only");
        }
    }
}
