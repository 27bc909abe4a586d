//! Real encodings: where mutations start.

mod datagram;
mod dns;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_core::wire::{self, PeerMessage};
use dunlin_core::{bidding, lease, secrets};
use dunlin_gossip::membership::{Effect, Input, MemberId, Membership, Profile};
use dunlin_gossip::replication::{self, Replication};
use dunlin_state::Now;
use dunlin_state::desired::{Actor, Command, Document, SyncSession};
use dunlin_state::model::{
    Claim, ContentId, NodeId, NodeReport, Phase, Resources, ServiceSpec, Slot, SlotId, Trial,
    Version,
};
use dunlin_state::observed::{Register, SharedSecret};
use dunlin_trust::{
    ClusterId, ContentKey, Credential, Founding, Gatekeeper, InviteKey, PublicKey, SealedKey,
    SecretKey, Standing, Ticket, sign,
};

pub use datagram::{DATAGRAM_KEY, sealed};
pub use dns::queries;

/// The instant at which all of this happens, in seconds since the Unix epoch.
pub const SECONDS: u64 = 1_800_000_000;

const NOW: Now = Now {
    mono: 1_000,
    wall: SECONDS * 1_000,
};

/// A member of a small cluster.
pub fn member(number: u8) -> MemberId {
    MemberId {
        node: NodeId::from_bytes(key(number).public().0),
        boot: 1,
        address: SocketAddr::from(([10, 0, 0, number], 7_000)),
    }
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

/// The cluster that member 1 has founded.
pub fn founding() -> Founding {
    Founding::new([100; 32], [101; 32], key(1).public(), SECONDS)
}

/// The membership of one node.
pub fn membership(number: u8) -> (Membership, Now) {
    let machine = Membership::new(member(number), Profile::Local, u64::from(number), NOW);
    (machine, NOW)
}

/// The gate of member 1, and the key of who knocks.
pub fn gatekeeper() -> (Gatekeeper, PublicKey) {
    (gate_of(1), key(2).public())
}

fn gate_of(number: u8) -> Gatekeeper {
    let founding = founding();
    let cluster = ClusterId::of(&founding.root.public());
    let subject = key(number).public();
    let standing = Standing::Member {
        root: founding.root.public(),
        chain: dunlin_trust::issue_node(cluster, &founding.keyring, subject, SECONDS),
        keyring: founding.keyring,
    };
    Gatekeeper::new(key(number), cluster, standing)
}

fn deploy(name: &str) -> Command {
    let spec = ServiceSpec {
        command: vec!["serve".to_owned()],
        ..ServiceSpec::default()
    };
    Command::Deploy {
        service: service(name),
        spec: Box::new(spec),
        replicas: Some(3),
    }
}

/// A service's name, which is well-formed.
fn service(name: &str) -> dunlin_state::model::ServiceKey {
    match name.parse() {
        Ok(service) => service,
        Err(bad) => panic!("{bad}"),
    }
}

/// A document with a few services.
pub fn document() -> Document {
    document_of(1).0
}

fn document_of(number: u8) -> (Document, Vec<Bytes>) {
    let mut document = Document::new(Actor::new(member(number).node, 1));
    let mut changes = Vec::new();
    for name in ["web", "shop/db", "api"] {
        match document.propose(&[deploy(name)], "seed", NOW) {
            Ok(change) => changes.extend(change),
            Err(refused) => panic!("{refused}"),
        }
    }
    (document, changes)
}

fn report(claims: u32) -> NodeReport {
    let claim = |index: u32| Claim {
        slot: SlotId {
            service: service("web"),
            slot: Slot::Replica(index),
        },
        epoch: 4,
        revision: "abc".to_owned(),
        phase: Phase::Running,
        ready: true,
        leaving: false,
        since: SECONDS,
        resources: Resources::ZERO,
        host_ports: Vec::new(),
        endpoints: Vec::new(),
        restarts: 0,
        last_exit: None,
        message: Some("fine".to_owned()),
        workload: None,
        started_at: None,
        trial: Trial::Pending,
        moved_from: None,
        history: Vec::new(),
        outputs: dunlin_state::model::Outputs::default(),
    };
    NodeReport {
        name: "n1".to_owned(),
        claims: (0..claims).map(claim).collect(),
        ..NodeReport::default()
    }
}

fn registers() -> [Register; 2] {
    let node = member(1).node;
    let seal = SharedSecret::new(node, [7; 32]);
    let version = Version { boot: 1, seq: 1 };
    let first = Register::first(node, version, report(2), &seal);
    let next = first.as_ref().map(|first| first.next(2, report(3), &seal));
    match (&first, next) {
        (Ok(first), Ok(Ok(next))) => [first.clone(), next],
        other => panic!("{other:?}"),
    }
}

/// A register of member 1.
pub fn register() -> Register {
    let [first, _next] = registers();
    first
}

/// The corpus of a target as it is made from real encodings.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "datagram" => datagram::encodings(),
        "membership" => of_membership(),
        "frame" => of_frame(),
        "wire" => of_wire(),
        "register" => {
            let [first, next] = registers();
            vec![
                first.encode(None).to_vec(),
                next.encode(None).to_vec(),
                next.encode(Some(1)).to_vec(),
            ]
        }
        "change" => document_of(2).1.iter().map(|c| c.to_vec()).collect(),
        "step" => of_step(),
        "document" => {
            let (mut document, _) = document_of(2);
            let grown = document.save().to_vec();
            match document.compact() {
                Ok(saved) => vec![grown, saved.to_vec()],
                Err(refused) => panic!("{refused}"),
            }
        }
        "gate" => of_gate(),
        "certificate" => of_certificate(),
        "ticket" => of_ticket(),
        "tls" => of_tls(),
        "api" => of_api(),
        "dns" => dns::encodings(),
        "upstream" => dns::replies(),
        "hop" => of_hop(),
        "secret" => of_secret(),
        "compose" => of_compose(),
        other => panic!("no seeds for {other}"),
    }
}

fn of_frame() -> Vec<Vec<u8>> {
    let frame = |text: &[u8]| {
        let length = u32::try_from(text.len()).unwrap_or(0);
        [&length.to_be_bytes(), text].concat()
    };
    vec![
        [frame(b"hello"), frame(b""), frame(&[7; 300])].concat(),
        4_097_u32.to_be_bytes().to_vec(),
    ]
}

fn of_membership() -> Vec<Vec<u8>> {
    let (mut a, _) = membership(1);
    let (mut b, _) = membership(2);
    let mut found = Vec::new();
    let mut effects = b.handle(
        Input::Join {
            address: member(1).address,
        },
        NOW,
    );
    for round in 0..6 {
        let (to, from) = if round % 2 == 0 {
            (&mut a, 2)
        } else {
            (&mut b, 1)
        };
        let mut next = Vec::new();
        for effect in effects {
            let (Effect::Send { bytes, .. } | Effect::SendReliable { bytes, .. }) = effect else {
                continue;
            };
            found.push(bytes.to_vec());
            let from = member(from).address;
            next.extend(to.handle(Input::Datagram { from, bytes }, NOW));
        }
        effects = next;
    }
    found.sort();
    found.dedup();
    found.truncate(8);
    found
}

fn of_wire() -> Vec<Vec<u8>> {
    let round = bidding::RoundId { boot: 3, seq: 9 };
    let secret = match "default/pw".parse() {
        Ok(secret) => secret,
        Err(bad) => panic!("{bad}"),
    };
    let mut messages = vec![
        PeerMessage::Swim(Bytes::from_static(b"ping")),
        PeerMessage::Bidding(bidding::Message::Call {
            round,
            service: service("web"),
            revision: "abc".to_owned(),
            slots: 3,
            by_force: true,
            first: 0,
            moved_from: None,
        }),
        PeerMessage::Bidding(bidding::Message::Bid {
            round,
            scores: vec![1, -2, i64::MIN],
        }),
        PeerMessage::Bidding(bidding::Message::Award {
            round,
            slots: vec![(Slot::Replica(1), 5), (Slot::Node(member(1).node), 7)],
        }),
        PeerMessage::Lease(lease::Message::Ask {
            slot: SlotId {
                service: service("web"),
                slot: Slot::Replica(1),
            },
            sent: 7,
        }),
        PeerMessage::Secrets(secrets::Message::Want {
            secret,
            content: ContentId([3; 16]),
            proof: Some(founding().admin.encode().into()),
        }),
    ];
    messages.extend(of_replication().into_iter().map(PeerMessage::Replication));
    let encoded = messages.iter().map(wire::encode);
    encoded
        .map(|bytes| bytes.unwrap_or_default().to_vec())
        .collect()
}

fn of_replication() -> Vec<replication::Message> {
    let (document, _) = document_of(1);
    let node = member(1).node;
    let seal = Arc::new(SharedSecret::new(node, [7; 32]));
    let mut machine = Replication::new(node, 1, document, seal, 1, NOW);
    let mut effects = machine.handle(replication::Input::Report(Box::new(report(2))), NOW);
    effects.extend(machine.handle(replication::Input::Connected(member(2).node), NOW));
    let later = Now {
        mono: NOW.mono + 60_000,
        wall: NOW.wall + 60_000,
    };
    effects.extend(machine.handle_timeout(later));
    let sent = effects.into_iter().filter_map(|effect| match effect {
        replication::Effect::Send { message, .. } => Some(message),
        _ => None,
    });
    sent.take(6).collect()
}

fn of_step() -> Vec<Vec<u8>> {
    let mut empty = Document::new(Actor::new(member(3).node, 1));
    let (mut full, _) = document_of(2);
    let (mut there, mut back) = (SyncSession::new(), SyncSession::new());
    let mut steps = Vec::new();
    for _ in 0..4 {
        if let Some(step) = empty.generate_step(&mut there) {
            let _taken = full.receive_step(&mut back, &step);
            steps.push(step.to_vec());
        }
        if let Some(step) = full.generate_step(&mut back) {
            let _taken = empty.receive_step(&mut there, &step);
            steps.push(step.to_vec());
        }
    }
    steps
}

fn of_gate() -> Vec<Vec<u8>> {
    let (mut listener, from) = gatekeeper();
    let dialer = gate_of(2);
    let hello = dialer.hello(&key(1).public());
    let accepted = listener.hear(&hello, &from, SECONDS).answer;
    let cluster = ClusterId::of(&founding().root.public());
    let invited = Standing::Invited(InviteKey::of(&[5; 16]));
    let stranger = Gatekeeper::new(key(2), cluster, invited);
    let knock = stranger.hello(&key(1).public());
    let refused = listener.hear(&knock, &from, SECONDS).answer;
    vec![hello, accepted, knock, refused]
}

fn of_certificate() -> Vec<Vec<u8>> {
    let founding = founding();
    let root = founding.root.public();
    let credential = match Credential::new(key(1), founding.admin.clone(), &root) {
        Ok(credential) => credential,
        Err(error) => panic!("{error}"),
    };
    let context = "svc/default/web/spec";
    vec![
        founding.admin.encode(),
        founding.node.encode(),
        founding.keyring.encode(),
        sign(&credential, ClusterId::of(&root), context, b"{}"),
    ]
}

fn of_ticket() -> Vec<Vec<u8>> {
    let cluster = ClusterId::of(&founding().root.public());
    let tickets = [1, 2].map(|count| Ticket {
        cluster,
        secret: [9; 16],
        addresses: (1..=count).map(|n| member(n).address).collect(),
    });
    let text = tickets.iter().map(|ticket| ticket.to_string().into_bytes());
    text.collect()
}

fn of_tls() -> Vec<Vec<u8>> {
    let founding = founding();
    let proof = dunlin_api::tls::Proof {
        root: founding.root.public(),
        chain: founding.admin,
    };
    let made = [None, Some(&proof)].map(|proof| dunlin_api::tls::certified(&key(1), proof));
    let certificates = made
        .into_iter()
        .filter_map(|made| Some(made.ok()?.cert.first()?.to_vec()));
    certificates.collect()
}

fn of_api() -> Vec<Vec<u8>> {
    let bodies = [
        r#"{"services":[{"service":"shop/web","spec":{"image":"a:1","command":["x","y"],"environment":{"A":"1"},"ports":[{"target":80,"published":8080,"host_ip":"10.0.0.1"}],"secrets":[{"source":"pw","target":"/etc/pw","mode":288}],"placement":{"constraints":[{"key":"node.labels.a","op":"equal","value":"b"}]},"health":{"test":{"http":{"path":"/","headers":{"a":"b"}}}}},"replicas":3,"canary":1}]}"#,
        r#"{"value":"cGxhaW4=","labels":{"a":"b"},"existing":true}"#,
        r#"{"role":"operator:shop","ttl_ms":3600000,"uses":1}"#,
        r#"{"invite":"aaaa","proof":"00"}"#,
        r#"{"set":{"a":"b"},"remove":["c"]}"#,
        r#"{"step":"pause"}"#,
    ];
    bodies.map(|body| body.as_bytes().to_vec()).to_vec()
}

fn of_hop() -> Vec<Vec<u8>> {
    let request = |protocol: u8, slot: &[u8], client: &[u8]| {
        let name = b"default/web";
        let mut rest = vec![1, protocol, 11];
        rest.extend_from_slice(name);
        rest.extend_from_slice(slot);
        rest.extend_from_slice(&7_u64.to_be_bytes());
        rest.extend_from_slice(&80_u16.to_be_bytes());
        rest.extend_from_slice(client);
        rest.extend_from_slice(&[4, 10, 0, 0, 2, 0, 80]);
        let length = u16::try_from(rest.len()).unwrap_or(0);
        [&length.to_be_bytes()[..], &rest].concat()
    };
    let node_slot = [&[1][..], member(1).node.as_bytes()].concat();
    let far = [&[6][..], &[0x20; 16], &[0x12, 0x34]].concat();
    vec![
        request(0, &[0, 0, 0, 0, 3], &[4, 10, 0, 0, 1, 0x30, 0x39]),
        request(1, &node_slot, &far),
    ]
}

fn of_secret() -> Vec<Vec<u8>> {
    let content = ContentKey::new([1; 32]);
    let sealed = content
        .seal("default/pw", [2; 24], b"value")
        .unwrap_or_default();
    let boxed = SealedKey::seal(&key(3).public(), [4; 32], "default/pw", &sealed, &content);
    vec![sealed.clone(), [sealed, boxed.unwrap_or_default()].concat()]
}

fn of_compose() -> Vec<Vec<u8>> {
    let files = [
        "name: shop\nservices:\n  web:\n    image: nginx:1\n    ports: ['8080:80/tcp', {target: 53, published: 53, protocol: udp, mode: host}]\n    environment: {A: '1', B: \"${C:-x}\"}\n    deploy: {replicas: 3, update_config: {parallelism: 1, delay: 2s}, resources: {limits: {cpus: '0.5', memory: 64m}}}\n    healthcheck: {test: [CMD, curl, localhost], interval: 5s}\n    volumes: ['data:/data:ro', {type: bind, source: /a, target: /b}]\n    secrets: [pw, {source: pw, target: other, mode: 0440}]\nvolumes: {data: {}}\nsecrets: {pw: {external: true}}\n",
        "x-a: &a {user: root}\nservices:\n  one: {<<: *a, command: \"sh -c 'echo hi'\", x-dunlin: {runtime: process, anti_affinity: [two]}}\n  two: {<<: [*a], image: b, entrypoint: [a, b], labels: [x=y]}\nconfigs: {c: {content: \"a\"}}\n",
        "services:\n  web: {image: a, profiles: [p]}\n  big: {image: b, mem_limit: 1g, cpus: 1.5, stop_grace_period: 1m30s, restart: 'on-failure:3'}\n",
    ];
    files.map(|text| text.as_bytes().to_vec()).to_vec()
}
