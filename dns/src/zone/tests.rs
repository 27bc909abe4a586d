use std::net::SocketAddr;

use dunlin_state::model::{Endpoint, NodeId, PortSpec, Slot};
use proptest::prelude::*;

use super::*;

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

/// `web`: three replicas on two addresses; `db` in `prod`: none ready; `agent`: one per node, v6.
fn table() -> RouteTable {
    use Protocol::{Tcp, Udp};
    let mut table = RouteTable::default();
    table.services.insert(
        key("web"),
        ServiceRoute {
            ports: vec![port(80, Tcp), port(53, Udp)],
            backends: vec![
                backend(
                    0,
                    1,
                    &[(80, Tcp, "10.0.0.1:8001"), (53, Udp, "10.0.0.1:9001")],
                ),
                backend(1, 2, &[(80, Tcp, "10.0.0.2:8002")]),
                backend(2, 2, &[(80, Tcp, "10.0.0.2:8003")]),
            ],
            ..ServiceRoute::default()
        },
    );
    table.services.insert(
        key("prod/db"),
        ServiceRoute {
            ports: vec![port(5432, Tcp)],
            ..ServiceRoute::default()
        },
    );
    let mut agent = backend(0, 7, &[(1, Tcp, "[fd00::7]:1"), (2, Tcp, "0.0.0.0:2")]);
    agent.slot = Slot::Node(agent.node);
    table.services.insert(
        key("agent"),
        ServiceRoute {
            ports: vec![port(1, Tcp)],
            backends: vec![agent],
            ..ServiceRoute::default()
        },
    );
    table
}

fn zone() -> Zone {
    Zone::new(&Suffix::default(), &table(), 9)
}

/// An answer as text: the code, or the records' data, sorted.
fn ask(zone: &Zone, name: &str, qtype: RecordType) -> String {
    match zone.answer(&Name::from_ascii(name).unwrap(), qtype, 0) {
        Answer::NotOurs => "not ours".to_owned(),
        Answer::NoSuchName { .. } => "no such name".to_owned(),
        Answer::Empty { .. } => "empty".to_owned(),
        Answer::Records { answers, .. } => {
            let mut data: Vec<_> = answers.iter().map(|r| r.data.to_string()).collect();
            data.sort();
            data.join(", ")
        }
    }
}

#[test]
fn answers_each_kind_of_name() {
    use RecordType::{A, AAAA, ANY, MX, NS, PTR, SOA, SRV};
    let node = Slot::Node(NodeId::from_bytes([7; 32])).to_string();
    let by_node = format!("{node}.agent.default.dunlin.internal.");
    let cases = [
        ("web.default.dunlin.internal.", A, "10.0.0.1, 10.0.0.2"),
        ("WEB.Default.dunlin.INTERNAL.", A, "10.0.0.1, 10.0.0.2"),
        ("web.default.dunlin.internal.", AAAA, "empty"),
        ("web.default.dunlin.internal.", MX, "empty"),
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
        ("default.dunlin.internal.", A, "empty"),
        ("_tcp.web.default.dunlin.internal.", A, "empty"),
        ("nowhere.dunlin.internal.", A, "no such name"),
        ("dunlin.internal.", A, "empty"),
        ("dunlin.internal.", NS, "empty"),
        ("internal.", SOA, "not ours"),
        ("webdunlin.internal.", A, "not ours"),
        ("example.com.", A, "not ours"),
        (".", NS, "not ours"),
        (
            "1.0.0.10.in-addr.arpa.",
            PTR,
            "0.web.default.dunlin.internal.",
        ),
        ("2.0.0.10.in-addr.arpa.", PTR, "not ours"),
        ("0.0.10.in-addr.arpa.", PTR, "not ours"),
        ("1.0.0.10.in-addr.arpa.", A, "not ours"),
    ];
    let zone = zone();
    for (name, qtype, expected) in cases {
        assert_eq!(ask(&zone, name, qtype), expected, "{name} {qtype}");
    }
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
    assert_eq!(
        ask(&zone, &format!("_80._tcp.{name}"), RecordType::SRV),
        all
    );
    assert_eq!(
        ask(&zone, &format!("_53._udp.{name}"), RecordType::SRV),
        udp
    );
    let denied = ask(&zone, &format!("_80._udp.{name}"), RecordType::SRV);
    assert_eq!(denied, "no such name");

    let name = Name::from_ascii(format!("_80._tcp.{name}")).unwrap();
    let Answer::Records { additional, .. } = zone.answer(&name, RecordType::SRV, 0) else {
        panic!("there are records");
    };
    let given: Vec<_> = additional.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(given, ["10.0.0.1", "10.0.0.2", "10.0.0.2"]);
}

#[test]
fn denials_say_for_how_long() {
    let zone = zone();
    let name = Name::from_ascii("nope.default.dunlin.internal.").unwrap();
    let Answer::NoSuchName { soa } = zone.answer(&name, RecordType::A, 0) else {
        panic!("there is no such name");
    };
    let RData::SOA(data) = &soa.data else {
        panic!("it is an SOA record");
    };
    assert_eq!((data.serial, data.minimum, soa.ttl), (9, TTL, TTL));
    assert_eq!(soa.name.to_ascii(), "dunlin.internal.");
}

#[test]
fn a_slot_with_two_holders_is_named_after_the_first() {
    let mut table = table();
    let route = table.services.get_mut(&key("web")).unwrap();
    let twin = backend(0, 3, &[(80, Protocol::Tcp, "10.0.0.3:8009")]);
    route.backends.insert(1, twin);
    let zone = Zone::new(&Suffix::default(), &table, 1);
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
    let backends = (0..count)
        .map(|n| backend(n.into(), n, &[(80, Protocol::Tcp, &ends(n))]))
        .collect();
    let ports = vec![port(80, Protocol::Tcp)];
    table.services.insert(
        key("web"),
        ServiceRoute {
            ports,
            backends,
            ..ServiceRoute::default()
        },
    );
    Zone::new(&Suffix::default(), &table, 1)
}

proptest! {
    #[test]
    fn every_replica_is_first_in_turn(count in 1..40_u8, turn in any::<u32>()) {
        let zone = crowd(count);
        let name = Name::from_ascii("web.default.dunlin.internal.").unwrap();
        let tasks = Name::from_ascii("tasks.web.default.dunlin.internal.").unwrap();
        let mut firsts = BTreeSet::new();
        for step in 0..u32::from(count) {
            let turn = (turn % 1000) + step;
            let Answer::Records { answers, .. } = zone.answer(&name, RecordType::A, turn) else {
                panic!("there are records");
            };
            let given: Vec<_> = answers.iter().map(|r| r.data.to_string()).collect();
            let distinct: BTreeSet<_> = given.iter().collect();
            prop_assert_eq!(distinct.len(), given.len(), "no address twice");
            prop_assert_eq!(given.len(), usize::from(count).min(MAX_SERVICE_ADDRESSES));
            firsts.insert(given[0].clone());
            let Answer::Records { answers, .. } = zone.answer(&tasks, RecordType::A, turn) else {
                panic!("there are records");
            };
            prop_assert_eq!(answers.iter().count(), usize::from(count));
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
        let outside = matches!(zone.answer(&name, RecordType::A, 0), Answer::NotOurs);
        prop_assert_eq!(outside, !ours);
    }
}
