//! What peers may send and must not break anything.

use bytes::Bytes;
use dunlin_state::Now;
use dunlin_state::desired::{Actor, Document};
use dunlin_state::model::{Claim, NodeReport, ServiceSpec, Slot, SlotId, Version};
use proptest::prelude::*;

use super::super::*;
use super::world::{deploy, encoded, named, node, seal, sealed, service, whole};

fn at(mono: u64) -> Now {
    Now { mono, wall: mono }
}

fn machine() -> Replication {
    let me = node(0);
    let mut machine = Replication::new(me, 1, Document::new(Actor::new(me, 1)), seal(me), 7, at(0));
    for peer in 1..=3 {
        machine.handle(Input::Connected(node(peer)), at(0));
    }
    machine
}

fn said(message: Message) -> Input {
    Input::Message {
        from: node(1),
        message,
    }
}

/// A document of another epoch with a service in it, and a change after it.
fn foreign() -> (DocumentId, Bytes, Bytes) {
    let mut document = Document::new(Actor::new(node(1), 1));
    let change = document
        .propose(&[deploy("theirs")], "x", at(1))
        .unwrap()
        .unwrap();
    document.compact().unwrap();
    (document.id(), document.save(), change)
}

fn documents() -> impl Strategy<Value = DocumentId> + Clone {
    let ours = Document::new(Actor([1; 16])).id();
    prop_oneof![
        Just(ours),
        Just(foreign().0),
        (0..3u64, any::<[u8; 32]>()).prop_map(|(epoch, root)| DocumentId { epoch, root }),
    ]
}

/// Rubbish, and real documents and changes with or without a byte of damage.
fn payloads() -> impl Strategy<Value = Bytes> + Clone {
    let (_, saved, change) = foreign();
    let damaged = |real: Bytes| {
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(move |(at, byte)| {
            let mut bytes = real.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            Bytes::from(bytes)
        })
    };
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from),
        Just(saved.clone()),
        Just(change.clone()),
        damaged(saved),
        damaged(change),
    ]
}

fn versions() -> impl Strategy<Value = (NodeId, Version)> + Clone {
    let number = prop_oneof![0..3u64, Just(u64::MAX), any::<u64>()];
    ((0..6usize).prop_map(node), number.clone(), number)
        .prop_map(|(node, boot, seq)| (node, Version { boot, seq }))
}

fn messages() -> impl Strategy<Value = Message> {
    let changes = prop::collection::vec(payloads(), 0..4);
    let changes = (documents(), changes)
        .prop_map(|(document, changes)| Message::Changes { document, changes });
    let hashes = (any::<[u8; 32]>(), any::<Option<[u8; 16]>>());
    let summary =
        (documents(), hashes, any::<bool>()).prop_map(|(document, (heads, table), reply)| {
            Message::Summary {
                document,
                heads,
                table,
                reply,
            }
        });
    let sync =
        (documents(), 0..9u64, payloads()).prop_map(|(document, round, step)| Message::Sync {
            document,
            round,
            step,
        });
    let document = (documents(), payloads())
        .prop_map(|(document, saved)| Message::Document { document, saved });
    let register = versions().prop_map(|(node, version)| sealed(node, version, *named("x")));
    let genuine = register.clone().prop_map(|register| whole(&register));
    let damaged = (register, any::<prop::sample::Index>(), any::<u8>());
    let damaged = damaged.prop_map(|(register, at, byte)| {
        let mut bytes = register.encode(None).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        Pushed::from_bytes(bytes.into())
    });
    let rubbish = payloads().prop_map(Pushed::from_bytes);
    let pushed = prop_oneof![4 => genuine, 2 => damaged, 1 => rubbish];
    let wanted = (versions(), any::<bool>()).prop_map(|((n, v), known)| (n, known.then_some(v)));
    let digest = (
        prop::collection::vec(versions(), 0..5),
        any::<u64>(),
        any::<bool>(),
    );
    let digest = digest.prop_map(|(versions, buckets, reply)| Message::Digest {
        versions,
        buckets,
        reply,
    });
    prop_oneof![
        changes,
        summary,
        sync,
        document,
        prop::collection::vec(pushed, 0..5).prop_map(Message::Registers),
        prop::collection::vec(wanted, 0..5).prop_map(Message::Want),
        prop::collection::vec(any::<u64>(), 64).prop_map(Message::Buckets),
        prop::collection::vec(any::<u64>(), 0..100).prop_map(Message::Buckets),
        digest,
    ]
}

/// What a step of the test does.
#[derive(Debug, Clone)]
enum Step {
    Hear(usize, Message),
    Propose(u64),
    DiskDone(bool),
    Connect(usize, bool),
    Report(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4usize, messages()).prop_map(|(from, message)| Step::Hear(from, message)),
        1 => (0..5u64).prop_map(Step::Propose),
        1 => any::<bool>().prop_map(Step::DiskDone),
        1 => (0..5usize, any::<bool>()).prop_map(|(peer, up)| Step::Connect(peer, up)),
        1 => (0..5u64).prop_map(Step::Report),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No panic, one request at the disk at a time, messages to connected peers only, and every
    /// proposal answered at most once.
    #[test]
    fn any_sequence_is_survived(steps in prop::collection::vec((steps(), 0..1_500u64), 1..60)) {
        let mut machine = machine();
        let mut connected: BTreeSet<NodeId> = (1..=3).map(node).collect();
        let mut with_disk: Option<PersistId> = None;
        let mut answered = BTreeSet::new();
        let (mut now, mut proposals) = (0, 0);
        for (step, wait) in steps {
            now += wait;
            let input = match step {
                Step::Hear(from, message) => Input::Message { from: node(from), message },
                Step::Propose(name) => {
                    proposals += 1;
                    Input::Propose {
                        id: ProposalId(proposals),
                        commands: vec![deploy(&format!("s{name}"))],
                        author: "x".to_owned(),
                    }
                }
                Step::DiskDone(fine) => match (with_disk.take(), fine) {
                    (None, _) => continue,
                    (Some(id), true) => Input::Persisted(id),
                    (Some(id), false) => Input::PersistFailed { id, reason: "full".to_owned() },
                },
                Step::Connect(peer, true) => {
                    if peer != 0 {
                        connected.insert(node(peer));
                    }
                    Input::Connected(node(peer))
                }
                Step::Connect(peer, false) => {
                    connected.remove(&node(peer));
                    Input::Disconnected(node(peer))
                }
                Step::Report(name) => Input::Report(named(&format!("n{name}"))),
            };
            let mut effects = machine.handle(input, at(now));
            effects.extend(machine.handle_timeout(at(now)));
            for effect in effects {
                match effect {
                    Effect::Send { to, message } => {
                        prop_assert!(connected.contains(&to));
                        prop_assert!(encoded(&message) <= 9 * 1024 * 1024);
                    }
                    Effect::Persist { id, writes } => {
                        prop_assert!(!writes.is_empty() && with_disk.is_none());
                        with_disk = Some(id);
                    }
                    Effect::Proposed { id, .. } => prop_assert!(answered.insert(id)),
                    Effect::DesiredChanged | Effect::ObservedChanged(_) | Effect::Warning(_) => {}
                }
            }
            prop_assert!(machine.poll_timeout().is_none_or(|due| due > now));
        }
    }

    #[test]
    fn messages_survive_encoding(message in messages()) {
        let mut bytes = Vec::new();
        ciborium::into_writer(&message, &mut bytes).unwrap();
        let again: Message = ciborium::from_reader(&bytes[..]).unwrap();
        prop_assert_eq!(again, message);
    }
}

#[test]
fn a_lying_document_is_refused_and_its_sender_named() {
    let mut machine = machine();
    let (id, saved, _) = foreign();
    let claimed = DocumentId {
        root: [255; 32],
        ..id
    };
    let before = machine.document_id();
    let effects = machine.handle(
        said(Message::Document {
            document: claimed,
            saved,
        }),
        at(10),
    );
    let named = |e: &Effect| matches!(e, Effect::Warning(text) if text.contains(&node(1).short()));
    assert!(effects.iter().any(named));
    assert_eq!(machine.document_id(), before);
    assert_eq!(machine.metrics().offences, 1);
}

#[test]
fn a_greater_document_with_nothing_to_carry_over_is_used_before_the_disk_has_it() {
    let mut machine = machine();
    let (document, saved, _) = foreign();
    let effects = machine.handle(said(Message::Document { document, saved }), at(10));
    assert_eq!(machine.document_id(), document);
    assert_eq!(machine.desired().services.len(), 1);
    assert!(effects.iter().any(|e| matches!(e, Effect::DesiredChanged)));
    assert!(effects.iter().any(|e| matches!(
        e,
        Effect::Persist { writes, .. } if matches!(&writes[..], [Write::Document(_)])
    )));
}

#[test]
fn what_we_carry_over_is_durable_before_it_is_visible() {
    let mut machine = machine();
    let propose = Input::Propose {
        id: ProposalId(1),
        commands: vec![deploy("ours")],
        author: "x".to_owned(),
    };
    machine.handle(propose, at(1));
    machine.handle(Input::Persisted(PersistId(1)), at(2));
    let old = machine.document_id();
    let (document, saved, _) = foreign();
    let effects = machine.handle(said(Message::Document { document, saved }), at(10));
    assert_eq!(machine.document_id(), old);
    let [Effect::Persist { id, writes }] = &effects[..] else {
        panic!("only a request to the disk: {effects:?}");
    };
    assert!(matches!(&writes[..], [Write::Document(_)]));
    let effects = machine.handle(Input::Persisted(*id), at(20));
    assert_eq!(machine.document_id(), document);
    assert_eq!(machine.desired().services.len(), 2);
    let sent = |e: &Effect| {
        matches!(
            e,
            Effect::Send {
                message: Message::Changes { .. },
                ..
            }
        )
    };
    assert_eq!(effects.iter().filter(|e| sent(e)).count(), 3);
}

#[test]
fn a_greater_document_is_asked_for_once() {
    let mut machine = machine();
    let (document, ..) = foreign();
    let mut asked = 0;
    for peer in 1..=3 {
        let message = Message::Summary {
            document,
            heads: [0; 32],
            table: None,
            reply: true,
        };
        let input = Input::Message {
            from: node(peer),
            message,
        };
        asked += machine.handle(input, at(10)).len();
    }
    assert_eq!(asked, 1);
}

#[test]
fn a_report_that_nobody_would_take_is_not_published() {
    let mut machine = machine();
    let effects = machine.handle(Input::Report(named(&"x".repeat(100_000))), at(1));
    assert!(matches!(&effects[..], [Effect::Warning(_)]));
    assert!(machine.observed().is_empty());
}

/// A register as large as one can be, of a node that nobody has heard of.
fn giant(number: u8) -> Pushed {
    let invented = NodeId::from_bytes([number; 32]);
    let claim = |replica| {
        let slot = SlotId {
            service: service("s"),
            slot: Slot::Replica(replica),
        };
        let won = Claim::won(slot, 1, "r", &ServiceSpec::default(), 0);
        Claim {
            message: Some("x".repeat(1_000)),
            ..won
        }
    };
    let report = NodeReport {
        claims: (0..500).map(claim).collect(),
        ..*named("giant")
    };
    whole(&sealed(invented, Version { boot: 1, seq: 1 }, report))
}

#[test]
fn invented_nodes_take_a_bounded_part_of_the_memory_and_leave_room_for_the_known() {
    let mut machine = machine();
    let known = |seq, name: &str| whole(&sealed(node(1), Version { boot: 1, seq }, *named(name)));
    machine.handle(said(Message::Registers(vec![known(1, "a")])), at(10));
    let mut warnings = 0;
    for number in 100..200 {
        let effects = machine.handle(said(Message::Registers(vec![giant(number)])), at(20));
        warnings += effects
            .iter()
            .filter(|e| matches!(e, Effect::Warning(text) if text.contains("invent")))
            .count();
    }
    let table = machine.registers.table();
    assert!((5..20).contains(&table.len()), "{} kept", table.len());
    assert!(table.bytes() <= limits::MAX_TABLE_BYTES_NEW);
    assert_eq!((warnings, machine.metrics().offences), (1, 0));
    machine.handle(said(Message::Registers(vec![known(2, "longer")])), at(30));
    let heard = machine.registers.table().get(node(1)).unwrap();
    assert_eq!(heard.report.name, "longer");
}
