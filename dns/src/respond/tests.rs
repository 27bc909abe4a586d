use dunlin_state::model::{Endpoint, NodeId, PortSpec, ServiceKey, Slot};
use dunlin_state::route::{Backend, RouteTable, ServiceRoute};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Asked};
use hickory_proto::rr::Name;
use proptest::prelude::*;

use super::*;
use crate::suffix::Suffix;
use crate::wire::MAX_UDP;

const ALONE: Manner = Manner { recursion: false };

/// One service `web` with so many replicas.
fn zone(replicas: u8) -> Zone {
    let backends = (0..replicas).map(|n| Backend {
        slot: Slot::Replica(n.into()),
        node: NodeId::from_bytes([n; 32]),
        epoch: 1,
        endpoints: vec![Endpoint {
            target: 80,
            protocol: Default::default(),
            address: ([10, 0, 0, n], 80).into(),
        }],
    });
    let route = ServiceRoute {
        ports: vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }],
        backends: backends.collect(),
        ..ServiceRoute::default()
    };
    let mut table = RouteTable::default();
    table
        .services
        .insert("web".parse::<ServiceKey>().unwrap(), route);
    Zone::new(&Suffix::default(), &table)
}

fn message(name: &str, qtype: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), qtype));
    message
}

fn ask(zone: &Zone, query: &Message, transport: Transport) -> (Message, usize) {
    let mut reply = vec![1, 2, 3];
    let query = query.to_vec().unwrap();
    match respond(zone, &query, transport, ALONE, 0, &mut reply) {
        Outcome::Answered => {}
        Outcome::Silent => panic!("it is a query"),
        // As a server does that asks nobody.
        Outcome::Elsewhere(query) => decline(&query, ResponseCode::Refused, ALONE, &mut reply),
    }
    (Message::from_vec(&reply).unwrap(), reply.len())
}

#[test]
fn says_who_it_is_and_what_was_asked() {
    let query = message("wEb.default.dunlin.internal.", RecordType::A);
    let (answer, _) = ask(&zone(2), &query, Transport::Udp);
    let head = answer.metadata;
    assert_eq!((head.id, head.response_code), (7, ResponseCode::NoError));
    assert!(head.authoritative && head.recursion_desired && !head.recursion_available);
    assert_eq!(answer.answers.len(), 2);
    let asked = answer.queries[0].name();
    assert!(asked.eq_case(query.queries[0].name()), "in the same case");
    assert!(answer.edns.is_none(), "none was asked for");
}

#[test]
fn tells_the_codes_apart() {
    use RecordType::{A, AAAA, AXFR};
    let cases = [
        (
            "nope.default.dunlin.internal.",
            A,
            ResponseCode::NXDomain,
            1,
        ),
        (
            "web.default.dunlin.internal.",
            AAAA,
            ResponseCode::NoError,
            1,
        ),
        ("example.com.", A, ResponseCode::Refused, 0),
        ("dunlin.internal.", AXFR, ResponseCode::Refused, 0),
    ];
    for (name, qtype, code, authorities) in cases {
        let (answer, _) = ask(&zone(1), &message(name, qtype), Transport::Udp);
        assert_eq!(answer.metadata.response_code, code, "{name} {qtype}");
        assert_eq!(answer.authorities.len(), authorities, "{name} {qtype}");
        assert!(answer.answers.is_empty());
    }
    let mut chaos = message("web.default.dunlin.internal.", A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    let (answer, _) = ask(&zone(1), &chaos, Transport::Udp);
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
}

#[test]
fn sends_what_does_not_fit_to_tcp() {
    let tasks = message("tasks.web.default.dunlin.internal.", RecordType::A);
    let (zone, mut with_edns) = (zone(250), tasks.clone());
    with_edns.edns = Some(Edns::new());
    let edns = with_edns.edns.as_mut().unwrap();
    edns.set_max_payload(65_000);
    for (query, most) in [(&tasks, 512), (&with_edns, 1232)] {
        let (answer, length) = ask(&zone, query, Transport::Udp);
        assert!(answer.metadata.truncation && answer.answers.is_empty());
        assert!(length <= most);
        assert_eq!(answer.edns.is_some(), query.edns.is_some());
    }
    let (answer, _) = ask(&zone, &tasks, Transport::Tcp);
    assert!(!answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 250);
}

#[test]
fn eight_addresses_fit_beside_a_long_name() {
    let name = format!("{0}.{0}.dunlin.internal", "a".repeat(34));
    let mut table = RouteTable::default();
    let key = ServiceKey::new(&"a".repeat(34), &"a".repeat(34)).unwrap();
    let backends = (0..200).map(|n| Backend {
        slot: Slot::Replica(n),
        node: NodeId::from_bytes([0; 32]),
        epoch: 1,
        endpoints: vec![Endpoint {
            target: 80,
            protocol: Default::default(),
            address: ([0xfd00, 0, 0, 0, 0, 0, 0, n as u16 + 1], 80).into(),
        }],
    });
    let route = ServiceRoute {
        ports: Vec::new(),
        backends: backends.collect(),
        ..ServiceRoute::default()
    };
    table.services.insert(key, route);
    let zone = Zone::new(&Suffix::default(), &table);
    let (answer, length) = ask(&zone, &message(&name, RecordType::AAAA), Transport::Udp);
    assert_eq!(answer.answers.len(), 8);
    assert!(!answer.metadata.truncation && length <= 512);
}

#[test]
fn drops_addresses_of_targets_before_the_targets() {
    let srv = message("_80._tcp.web.default.dunlin.internal.", RecordType::SRV);
    let (answer, _) = ask(&zone(2), &srv, Transport::Udp);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (2, 2));
    let (answer, _) = ask(&zone(8), &srv, Transport::Udp);
    assert!(!answer.metadata.truncation);
    assert_eq!((answer.answers.len(), answer.additionals.len()), (8, 0));
}

#[test]
fn rejects_what_it_must_not_decode() {
    let good = message("web.default.dunlin.internal.", RecordType::A);
    let good = good.to_vec().unwrap();
    let with = |at: usize, value: u8| {
        let mut packet = good.clone();
        packet[at] = value;
        packet
    };
    let cases = [
        (good[..11].to_vec(), None),
        (with(2, 0x80), None),
        (with(2, 0x28), Some(ResponseCode::NotImp)),
        (with(4, 0xff), Some(ResponseCode::FormErr)),
        (with(5, 0), Some(ResponseCode::FormErr)),
        (with(6, 0xff), Some(ResponseCode::FormErr)),
        (with(8, 0xff), Some(ResponseCode::FormErr)),
        (with(10, 0xff), Some(ResponseCode::FormErr)),
        (with(11, 1), Some(ResponseCode::FormErr)),
        (good[..20].to_vec(), Some(ResponseCode::FormErr)),
    ];
    for (packet, expected) in cases {
        let mut reply = Vec::new();
        let outcome = respond(&zone(1), &packet, Transport::Udp, ALONE, 0, &mut reply);
        assert_eq!(matches!(outcome, Outcome::Answered), expected.is_some());
        if let Some(code) = expected {
            let answer = Message::from_vec(&reply).unwrap();
            assert_eq!(answer.metadata.response_code, code);
            assert_eq!((answer.metadata.id, reply.len()), (7, HEADER));
        }
    }
    let mut future = message("web.default.dunlin.internal.", RecordType::A);
    future.edns = Some(Edns::new());
    future.edns.as_mut().unwrap().set_version(1);
    let (answer, _) = ask(&zone(1), &future, Transport::Udp);
    // The lower four bits of BADVERS (16) are zero; the rest stands in the EDNS record.
    assert_eq!(answer.edns.unwrap().rcode_high(), 1);
}

#[test]
fn strangers_get_no_more_than_they_sent() {
    let query = message("web.default.dunlin.internal.", RecordType::A);
    let query = query.to_vec().unwrap();
    let mut reply = Vec::new();
    assert!(refuse(&query, &mut reply));
    assert!(reply.len() <= query.len());
    let answer = Message::from_vec(&reply).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert!(
        !refuse(&reply, &mut Vec::new()),
        "an answer is not answered"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn survives_any_bytes(mut packet in prop::collection::vec(any::<u8>(), 0..300), tame: bool) {
        if tame && packet.len() > HEADER {
            // A plausible header, so that the decoder gets to see the rest.
            packet[2..HEADER].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        }
        let zone = zone(3);
        for transport in [Transport::Udp, Transport::Tcp] {
            let mut reply = Vec::new();
            let outcome = respond(&zone, &packet, transport, ALONE, 1, &mut reply);
            if matches!(outcome, Outcome::Answered) {
                prop_assert!(reply.len() >= HEADER);
                prop_assert_eq!(&reply[..2], &packet[..2]);
                prop_assert_eq!(reply[2] & 0x80, 0x80);
            }
        }
    }

    #[test]
    fn survives_damaged_queries(at in 0..60_usize, value: u8, cut in 0..70_usize, edns: bool) {
        let mut query = message("_80._tcp.web.default.dunlin.internal.", RecordType::SRV);
        query.edns = edns.then(Edns::new);
        let mut packet = query.to_vec().unwrap();
        if let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
        packet.truncate(cut.max(HEADER));
        let mut reply = Vec::new();
        let outcome = respond(&zone(3), &packet, Transport::Udp, ALONE, 1, &mut reply);
        if matches!(outcome, Outcome::Answered) {
            prop_assert!(reply.len() <= usize::from(MAX_UDP));
            prop_assert!(Message::from_vec(&reply).is_ok());
        }
    }
}
