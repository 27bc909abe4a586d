use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use dunlin_state::model::{Endpoint, NodeId, PortSpec, Protocol, Slot, VipIndex};
use dunlin_state::route::{Backend, NodeRoute};
use hickory_proto::op::{Message, MessageType, OpCode, Query as Asked, ResponseCode};
use hickory_proto::rr::RData;
use proptest::prelude::*;

use super::*;
use crate::answer::Manner;
use crate::respond::{Outcome, respond};
use crate::wire::Transport;

fn key(text: &str) -> ServiceKey {
    text.parse().unwrap()
}

fn backend(slot: u32, node: u8, ends: &[(u16, Protocol, &str)]) -> Backend {
    let endpoints = ends.iter().map(|(target, protocol, address)| Endpoint {
        target: *target,
        protocol: *protocol,
        address: address.parse::<SocketAddr>().unwrap(),
    });
    Backend {
        slot: Slot::Replica(slot),
        node: NodeId::from_bytes([node; 32]),
        epoch: 1,
        endpoints: endpoints.collect(),
    }
}

fn port(target: u16, protocol: Protocol) -> PortSpec {
    PortSpec {
        target,
        protocol,
        ..PortSpec::default()
    }
}

fn node(name: &str, address: &str) -> NodeRoute {
    NodeRoute {
        name: name.to_owned(),
        address: address.parse().ok(),
        ..NodeRoute::default()
    }
}

fn service(ports: &[PortSpec], backends: Vec<Backend>) -> ServiceRoute {
    ServiceRoute {
        ports: ports.to_vec(),
        backends,
        ..ServiceRoute::default()
    }
}

/// `web`: three replicas on two addresses; `db` in `prod`: none ready; `agent`: one per node, v6;
/// `shop` has virtual addresses; two daemons on one host and one on another.
fn table() -> RouteTable {
    use Protocol::{Tcp, Udp};
    let range = VipRange::new(
        Some(Ipv4Addr::new(10, 93, 0, 0)),
        Some("fd12:93::".parse().unwrap()),
    );
    let mut table = RouteTable {
        range,
        ..RouteTable::default()
    };
    let web = vec![
        backend(
            0,
            1,
            &[(80, Tcp, "10.0.0.1:8001"), (53, Udp, "10.0.0.1:9001")],
        ),
        backend(1, 2, &[(80, Tcp, "10.0.0.2:8002")]),
        backend(2, 2, &[(80, Tcp, "10.0.0.2:8003")]),
    ];
    let mut agent = backend(0, 7, &[(1, Tcp, "[fd00::7]:1"), (2, Tcp, "0.0.0.0:2")]);
    agent.slot = Slot::Node(agent.node);
    let shop = ServiceRoute {
        vip: range.of(VipIndex::nth(0)),
        ..service(
            &[port(80, Tcp)],
            vec![backend(0, 1, &[(80, Tcp, "10.0.0.9:80")])],
        )
    };
    table.services = BTreeMap::from([
        (key("web"), service(&[port(80, Tcp), port(53, Udp)], web)),
        (key("prod/db"), service(&[port(5432, Tcp)], Vec::new())),
        (key("agent"), service(&[port(1, Tcp)], vec![agent])),
        (key("shop"), shop),
        (key("node/other"), service(&[], Vec::new())),
        (key("node/n1"), service(&[], Vec::new())),
    ]);
    table.nodes = BTreeMap::from([
        (NodeId::from_bytes([1; 32]), node("n1", "192.0.2.1:7400")),
        (NodeId::from_bytes([2; 32]), node("n2", "192.0.2.2:7400")),
        (NodeId::from_bytes([3; 32]), node("n3", "192.0.2.2:7500")),
        (NodeId::from_bytes([4; 32]), node("n4", "")),
    ]);
    table
}

fn zone() -> Zone {
    Zone::new(&Suffix::default(), &table())
}

/// The answer as hickory reads it.
fn answer(zone: &Zone, name: &str, kind: RecordType, turn: u32) -> Option<Message> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Asked::query(Name::from_ascii(name).unwrap(), kind));
    let (packet, mut reply) = (message.to_vec().unwrap(), Vec::new());
    let manner = Manner { recursion: false };
    match respond(zone, &packet, Transport::Tcp, manner, turn, &mut reply) {
        Outcome::Answered => Some(Message::from_vec(&reply).unwrap()),
        Outcome::Elsewhere(_) => None,
        Outcome::Silent => panic!("it is a query"),
    }
}

/// An answer as text: the code, or the records' data, sorted.
fn ask(zone: &Zone, name: &str, kind: RecordType) -> String {
    let Some(message) = answer(zone, name, kind, 0) else {
        return "not ours".to_owned();
    };
    let asked = Name::from_ascii(name).unwrap();
    assert!(message.answers.iter().all(|r| r.name == asked), "{name}");
    let mut data: Vec<_> = message.answers.iter().map(|r| r.data.to_string()).collect();
    data.sort();
    match (message.metadata.response_code, data.is_empty()) {
        (ResponseCode::NXDomain, true) => "no such name".to_owned(),
        (ResponseCode::NoError, true) => "empty".to_owned(),
        (ResponseCode::NoError, false) => data.join(", "),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn answers_each_kind_of_name() {
    use RecordType::{A, AAAA, ANY, HTTPS, MX, NS, PTR, SOA, SRV};
    let node = Slot::Node(NodeId::from_bytes([7; 32])).to_string();
    let by_node = format!("{node}.agent.default.dunlin.internal.");
    let cases = [
        ("web.default.dunlin.internal.", A, "10.0.0.1, 10.0.0.2"),
        ("WEB.Default.dunlin.INTERNAL.", A, "10.0.0.1, 10.0.0.2"),
        ("web.default.dunlin.internal.", AAAA, "empty"),
        ("web.default.dunlin.internal.", MX, "empty"),
        ("web.default.dunlin.internal.", HTTPS, "empty"),
        ("web.default.dunlin.internal.", ANY, "10.0.0.1, 10.0.0.2"),
        (
            "tasks.web.default.dunlin.internal.",
            A,
            "10.0.0.1, 10.0.0.2",
        ),
        ("1.web.default.dunlin.internal.", A, "10.0.0.2"),
        ("3.web.default.dunlin.internal.", A, "no such name"),
        ("web.prod.dunlin.internal.", A, "no such name"),
        ("x.web.default.dunlin.internal.", A, "no such name"),
        ("db.prod.dunlin.internal.", A, "empty"),
        ("tasks.db.prod.dunlin.internal.", A, "empty"),
        ("_5432._tcp.db.prod.dunlin.internal.", SRV, "empty"),
        ("agent.default.dunlin.internal.", AAAA, "fd00::7"),
        ("agent.default.dunlin.internal.", A, "empty"),
        (&by_node, AAAA, "fd00::7"),
        ("shop.default.dunlin.internal.", A, "10.93.0.16"),
        ("shop.default.dunlin.internal.", AAAA, "fd12:93::10"),
        ("tasks.shop.default.dunlin.internal.", A, "10.0.0.9"),
        ("default.dunlin.internal.", A, "empty"),
        ("_tcp.web.default.dunlin.internal.", A, "empty"),
        ("nowhere.dunlin.internal.", A, "no such name"),
        ("x.nowhere.dunlin.internal.", A, "no such name"),
        ("dunlin.internal.", A, "empty"),
        ("dunlin.internal.", NS, "empty"),
        ("internal.", SOA, "not ours"),
        ("webdunlin.internal.", A, "not ours"),
        ("example.com.", A, "not ours"),
        (".", NS, "not ours"),
        ("n1.node.dunlin.internal.", A, "192.0.2.1"),
        ("n1.node.dunlin.internal.", AAAA, "empty"),
        ("n4.node.dunlin.internal.", A, "empty"),
        ("n9.node.dunlin.internal.", A, "no such name"),
        ("other.node.dunlin.internal.", A, "empty"),
        ("node.dunlin.internal.", A, "empty"),
        (
            "1.0.0.10.in-addr.arpa.",
            PTR,
            "0.web.default.dunlin.internal.",
        ),
        (
            "16.0.93.10.IN-ADDR.arpa.",
            PTR,
            "shop.default.dunlin.internal.",
        ),
        ("17.0.93.10.in-addr.arpa.", PTR, "no such name"),
        ("1.2.0.192.in-addr.arpa.", PTR, "n1.node.dunlin.internal."),
        ("2.2.0.192.in-addr.arpa.", PTR, "not ours"),
        ("2.0.0.10.in-addr.arpa.", PTR, "not ours"),
        ("01.0.0.10.in-addr.arpa.", PTR, "not ours"),
        ("300.0.0.10.in-addr.arpa.", PTR, "not ours"),
        ("0.0.10.in-addr.arpa.", PTR, "not ours"),
        ("1.0.0.10.in-addr.arpa.", A, "not ours"),
    ];
    let zone = zone();
    for (name, kind, expected) in cases {
        assert_eq!(ask(&zone, name, kind), expected, "{name} {kind}");
    }
    let reverse = Name::from(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7])).to_ascii();
    assert_eq!(ask(&zone, &reverse, PTR), by_node);
}

#[test]
fn services_give_ports_and_replicas() {
    let zone = zone();
    let all = "0 1 8001 0.web.default.dunlin.internal., 0 1 8002 1.web.default.dunlin.internal., \
               0 1 8003 2.web.default.dunlin.internal.";
    let udp = "0 1 9001 0.web.default.dunlin.internal.";
    let name = "web.default.dunlin.internal.";
    let both = ask(&zone, name, RecordType::SRV);
    assert_eq!(both, format!("{all}, {udp}"));
    let tcp = format!("_80._TCP.{name}");
    assert_eq!(ask(&zone, &tcp, RecordType::SRV), all);
    let by_udp = ask(&zone, &format!("_53._udp.{name}"), RecordType::SRV);
    assert_eq!(by_udp, udp);
    let denied = ask(&zone, &format!("_80._udp.{name}"), RecordType::SRV);
    assert_eq!(denied, "no such name");

    let message = answer(&zone, &tcp, RecordType::SRV, 0).unwrap();
    let extra = message.additionals.iter();
    let given: Vec<_> = extra.map(|r| format!("{} {}", r.name, r.data)).collect();
    assert_eq!(
        given,
        [
            "0.web.default.dunlin.internal. 10.0.0.1",
            "1.web.default.dunlin.internal. 10.0.0.2",
            "2.web.default.dunlin.internal. 10.0.0.2"
        ]
    );
}

#[test]
fn denials_say_for_how_long() {
    let zone = zone().updated(&table(), &table());
    for (name, kind) in [
        ("nope.default.dunlin.internal.", RecordType::A),
        ("web.default.dunlin.internal.", RecordType::MX),
        ("dunlin.internal.", RecordType::MX),
    ] {
        let message = answer(&zone, name, kind, 0).unwrap();
        let [soa] = message.authorities.as_slice() else {
            panic!("one record: {message:?}");
        };
        let RData::SOA(data) = &soa.data else {
            panic!("it is an SOA record");
        };
        assert_eq!((data.serial, data.minimum, soa.ttl), (2, TTL, TTL));
        let names = [&soa.name, &data.mname, &data.rname].map(Name::to_ascii);
        let expected = [
            "dunlin.internal.",
            "dunlin.internal.",
            "hostmaster.dunlin.internal.",
        ];
        assert_eq!(names, expected);
        let apex = answer(&zone, "dunlin.internal.", RecordType::SOA, 0).unwrap();
        assert_eq!(apex.answers[0], *soa);
    }
}

#[test]
fn lifetimes_are_as_stated() {
    let zone = zone();
    for (name, expected) in [
        ("shop.default.dunlin.internal.", VIP_TTL),
        ("tasks.shop.default.dunlin.internal.", TTL),
        ("web.default.dunlin.internal.", TTL),
        ("n1.node.dunlin.internal.", NODE_TTL),
    ] {
        let message = answer(&zone, name, RecordType::A, 0).unwrap();
        assert_eq!(message.answers[0].ttl, expected, "{name}");
    }
}

#[test]
fn a_slot_with_two_holders_is_named_after_the_first() {
    let mut table = table();
    let route = table.services.get_mut(&key("web")).unwrap();
    let twin = backend(0, 3, &[(80, Protocol::Tcp, "10.0.0.3:8009")]);
    route.backends.insert(1, twin);
    let zone = Zone::new(&Suffix::default(), &table);
    let name = "web.default.dunlin.internal.";
    let slot = ask(&zone, &format!("0.{name}"), RecordType::A);
    assert_eq!(slot, "10.0.0.1");
    let all = ask(&zone, name, RecordType::A);
    assert_eq!(all, "10.0.0.1, 10.0.0.2, 10.0.0.3");
    assert!(!ask(&zone, name, RecordType::SRV).contains("8009"));
}

/// A service whose `count` replicas each have an address of their own.
fn crowd(count: u8) -> Zone {
    let mut table = RouteTable::default();
    let ends = |n: u8| format!("10.0.1.{n}:80");
    let backends = (0..count).map(|n| backend(n.into(), n, &[(80, Protocol::Tcp, &ends(n))]));
    let route = service(&[port(80, Protocol::Tcp)], backends.collect());
    table.services.insert(key("web"), route);
    Zone::new(&Suffix::default(), &table)
}

proptest! {
    #[test]
    fn every_replica_is_first_in_turn(count in 1..40_u8, turn in any::<u32>()) {
        let zone = crowd(count);
        let mut firsts = BTreeSet::new();
        for step in 0..u32::from(count) {
            let turn = (turn % 1000) + step;
            let name = "web.default.dunlin.internal.";
            let message = answer(&zone, name, RecordType::A, turn).unwrap();
            let given: Vec<_> = message.answers.iter().map(|r| r.data.to_string()).collect();
            let distinct: BTreeSet<_> = given.iter().collect();
            prop_assert_eq!(distinct.len(), given.len(), "no address twice");
            let most = usize::from(count).min(MAX_SERVICE_ADDRESSES.into());
            prop_assert_eq!(given.len(), most);
            firsts.insert(given[0].clone());
            let name = "tasks.web.default.dunlin.internal.";
            let message = answer(&zone, name, RecordType::A, turn).unwrap();
            prop_assert_eq!(message.answers.len(), usize::from(count));
        }
        prop_assert_eq!(firsts.len(), usize::from(count));
    }

    #[test]
    fn any_name_gets_an_answer(labels in prop::collection::vec("[ -~]{1,20}", 0..6), ours: bool) {
        let zone = zone();
        let mut name = Name::from_labels(labels.iter().map(|l| l.as_bytes())).unwrap();
        if ours {
            name = name.append_domain(Suffix::default().name()).unwrap();
        }
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Asked::query(name, RecordType::A));
        let (packet, mut reply) = (message.to_vec().unwrap(), Vec::new());
        let manner = Manner { recursion: false };
        let outcome = respond(&zone, &packet, Transport::Udp, manner, 0, &mut reply);
        prop_assert_eq!(matches!(outcome, Outcome::Elsewhere(_)), !ours);
    }

    /// An index that has followed many changes answers like one that is made at once.
    #[test]
    fn changes_add_up(steps in prop::collection::vec(any::<[u8; 4]>(), 1..40)) {
        let mut old = RouteTable::default();
        let mut followed = Zone::empty(&Suffix::default());
        for [service_index, replicas, address, what] in steps {
            let mut new = old.clone();
            let name = key(&format!("ns{}/s{}", service_index % 2, service_index % 5));
            let ends = |n: u8| format!("10.0.{}.{n}:80", address % 2);
            let backends = (0..replicas % 4)
                .map(|n| backend(n.into(), n, &[(80, Protocol::Tcp, &ends(n))]));
            let route = service(&[port(80, Protocol::Tcp)], backends.collect());
            match what % 4 {
                0 => { new.services.remove(&name); }
                1 => {
                    let id = NodeId::from_bytes([address % 4; 32]);
                    let at = format!("192.0.2.{}:1", address % 3);
                    new.nodes.insert(id, node(&format!("n{}", what % 3), &at));
                }
                _ => { new.services.insert(name, route); }
            }
            followed = followed.updated(&old, &new);
            old = new;
        }
        let made = Zone::new(&Suffix::default(), &old);
        let mut names = vec!["dunlin.internal.".to_owned(), "ns0.dunlin.internal.".to_owned()];
        for n in 0..10 {
            let service = format!("s{}.ns{}.dunlin.internal.", n % 5, n / 5);
            names.extend(["tasks.", "0.", "2.", "_80._tcp."].map(|l| format!("{l}{service}")));
            names.push(service);
            names.push(format!("n{}.node.dunlin.internal.", n % 4));
            names.push(format!("{}.{}.0.10.in-addr.arpa.", n % 5, n / 5));
            names.push(format!("{n}.2.0.192.in-addr.arpa."));
        }
        for name in names {
            for kind in [RecordType::A, RecordType::SRV, RecordType::PTR] {
                prop_assert_eq!(ask(&followed, &name, kind), ask(&made, &name, kind), "{} {}", name, kind);
            }
        }
    }
}

#[test]
fn replicas_with_virtual_addresses_are_named_by_them() {
    use RecordType::{A, AAAA, PTR, SRV};
    let mut table = table();
    let range = table.range;
    let shop = table.services.get_mut(&key("shop")).unwrap();
    let own = range.of(VipIndex::nth(7));
    shop.replicas.insert(Slot::Replica(0), own);
    // One that got none is at its node's address.
    let other = backend(1, 2, &[(80, Protocol::Tcp, "10.0.0.8:8080")]);
    shop.backends.push(other);
    let zone = Zone::new(&Suffix::default(), &table);
    let cases = [
        (
            "tasks.shop.default.dunlin.internal.",
            A,
            "10.0.0.8, 10.93.0.23",
        ),
        ("tasks.shop.default.dunlin.internal.", AAAA, "fd12:93::17"),
        ("0.shop.default.dunlin.internal.", A, "10.93.0.23"),
        ("1.shop.default.dunlin.internal.", A, "10.0.0.8"),
        ("shop.default.dunlin.internal.", A, "10.93.0.16"),
        (
            "shop.default.dunlin.internal.",
            SRV,
            "0 1 80 0.shop.default.dunlin.internal., 0 1 8080 1.shop.default.dunlin.internal.",
        ),
        (
            "23.0.93.10.in-addr.arpa.",
            PTR,
            "0.shop.default.dunlin.internal.",
        ),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(ask(&zone, name, kind), expected, "{name} {kind}");
    }
}
