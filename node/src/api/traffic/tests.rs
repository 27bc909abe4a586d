use dunlin_api::NodeState;
use dunlin_lb::balance::{Distance, Target};
use dunlin_lb::publish::ListenerView;
use dunlin_lb::publish::plan::{Place, Refusal, Unpublishable};
use dunlin_lb::{PortKey, Tally};
use dunlin_state::model::{Endpoint, Protocol, Slot, Vip};
use dunlin_state::route::NodeRoute;

use super::*;

fn web() -> ServiceKey {
    "web".parse().unwrap()
}

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn end(n: u8) -> Endpoint {
    Endpoint {
        target: 80,
        protocol: Protocol::Tcp,
        address: ([10, 0, 0, n], 31_000).into(),
    }
}

/// A ready replica in slot `n` on node `n`.
fn replica(n: u8) -> Replica {
    Replica {
        service: web(),
        slot: Slot::Replica(n.into()),
        node: id(n),
        node_name: format!("n{n}"),
        node_state: NodeState::Alive,
        phase: Phase::Running,
        ready: true,
        leaving: false,
        superseded: false,
        epoch: 1,
        revision: String::new(),
        restarts: 0,
        endpoints: vec![end(n)],
        since: 0,
        started_at: None,
        message: None,
        last_exit: None,
        history: Vec::new(),
        workload: None,
    }
}

fn seen(n: u8, health: Health, open: u32) -> TargetView {
    TargetView {
        target: Target {
            slot: Slot::Replica(n.into()),
            node: id(n),
            epoch: 1,
            address: end(n).address,
        },
        listed: true,
        open,
        latency: 300,
        health,
        distance: Distance::Far,
        weight: 1,
    }
}

/// A service whose replicas in these slots are in the table, with what the proxies see of them.
struct World {
    known: Known,
    table: RouteTable,
    ports: Vec<PortView>,
    listeners: Listeners,
}

impl World {
    fn new(used: &[u8], all: &[u8], targets: Vec<TargetView>) -> Self {
        let backends = used.iter().map(|n| Backend {
            slot: Slot::Replica((*n).into()),
            node: id(*n),
            epoch: 1,
            endpoints: vec![end(*n)],
        });
        let port = PortSpec {
            target: 80,
            published: Some(8080),
            ..PortSpec::default()
        };
        let route = ServiceRoute {
            ports: vec![port],
            backends: backends.collect(),
            vip: Vip {
                v4: Some([10, 93, 0, 20].into()),
                v6: None,
            },
            ..ServiceRoute::default()
        };
        let nodes = all.iter().map(|n| (id(*n), NodeRoute::default()));
        let known = Known {
            node: id(0),
            node_name: "n0".to_owned(),
            replicas: all.iter().map(|n| replica(*n)).collect(),
            standings: all.iter().map(|n| (id(*n), Standing::Alive)).collect(),
            names: BTreeMap::new(),
        };
        Self {
            known,
            table: RouteTable {
                services: BTreeMap::from([(web(), route)]),
                nodes: nodes.collect(),
                ..RouteTable::default()
            },
            ports: vec![PortView {
                port: key(),
                targets,
                pending: 4,
                waits: false,
                now: 5_000,
                tally: Tally::default(),
            }],
            listeners: Listeners::default(),
        }
    }

    fn shown(&self) -> ServiceRoutes {
        let scene = Scene {
            known: &self.known,
            table: &self.table,
            ports: &self.ports,
            listeners: &self.listeners,
            suffix: Some("dunlin.internal"),
        };
        scene.service(&web(), &self.table.services[&web()])
    }

    fn usages(&self) -> Vec<(String, RouteUsage)> {
        let replicas = self.shown().replicas.into_iter();
        replicas
            .map(|replica| {
                let end = replica.ends.first().map_or(replica.usage, |end| end.usage);
                (replica.slot.to_string(), end)
            })
            .collect()
    }
}

fn key() -> PortKey {
    PortKey {
        service: web(),
        target: 80,
        protocol: Protocol::Tcp,
    }
}

fn good() -> Health {
    Health::default()
}

#[test]
fn what_the_proxies_have_found_out_stands_with_each_port() {
    let until = 5_800;
    let targets = vec![
        seen(0, good(), 2),
        seen(1, Health::Ejected { until, failures: 1 }, 0),
        seen(2, Health::Probation { failures: 2 }, 1),
        seen(3, good(), 7),
    ];
    let mut world = World::new(&[0, 1, 2, 3], &[0, 1, 2, 3], targets);
    let route = world.table.services.get_mut(&web()).unwrap();
    route.traffic.max_connections = Some(7);
    let usages: Vec<RouteUsage> = world.usages().into_iter().map(|(_, usage)| usage).collect();
    use RouteUsage::{Ejected, Full, Trial, Used};
    assert_eq!(usages, [Used, Ejected, Trial, Full]);
    let shown = world.shown();
    assert!(
        shown.replicas.iter().all(|r| r.usage == Used),
        "DNS names them all"
    );
    assert_eq!(shown.replicas[1].ends[0].ejected_for_ms, Some(800));
    assert_eq!(shown.replicas[0].ends[0].open, 2);
    assert_eq!(shown.replicas[0].ends[0].connect_us, Some(300));
    assert_eq!(shown.name.as_deref(), Some("web.default.dunlin.internal"));
    assert_eq!(shown.addresses, [IpAddr::from([10, 93, 0, 20])]);
    assert_eq!(shown.ports[0].waiting, 4);
}

#[test]
fn a_replica_that_is_not_used_says_why() {
    use RouteUsage::*;
    type Edit = fn(&mut World);
    let cases: [(RouteUsage, Edit); 8] = [
        (NotReady, |w| w.known.replicas[0].ready = false),
        (NotReady, |w| w.known.replicas[0].phase = Phase::Starting),
        (Leaving, |w| w.known.replicas[0].leaving = true),
        (Leaving, |w| w.known.replicas[0].phase = Phase::Stopping),
        (NodeSuspect, |w| {
            w.known.standings.insert(id(1), Standing::Suspect);
        }),
        (NodeGone, |w| {
            w.known.standings.remove(&id(1));
        }),
        (NodeUnconfirmed, |w| {
            w.table.nodes.get_mut(&id(1)).unwrap().serving = false;
        }),
        (NotWanted, |_| {}),
    ];
    for (expected, edit) in cases {
        let mut world = World::new(&[], &[1], Vec::new());
        edit(&mut world);
        assert_eq!(world.usages(), [("1".to_owned(), expected)]);
    }
    // One that was restarted elsewhere is another replica.
    let mut world = World::new(&[1], &[1], Vec::new());
    world.known.replicas[0].epoch = 2;
    assert_eq!(world.usages(), [("1".to_owned(), NotWanted)]);
}

#[test]
fn one_that_is_gone_is_shown_for_as_long_as_it_has_connections() {
    let mut old = seen(7, good(), 3);
    old.listed = false;
    let world = World::new(&[0], &[0], vec![seen(0, good(), 0), old]);
    let usages = [("0", RouteUsage::Used), ("7", RouteUsage::Leaving)];
    assert_eq!(
        world.usages(),
        usages.map(|(slot, usage)| (slot.to_owned(), usage))
    );
    let shown = world.shown();
    assert_eq!(
        (shown.replicas[1].phase, shown.replicas[1].ends[0].open),
        (None, 3)
    );
    let world = World::new(&[0], &[0], vec![seen(0, good(), 0), seen(8, good(), 0)]);
    assert_eq!(
        world.usages().len(),
        1,
        "a moment between two tables shows nothing"
    );
}

#[test]
fn a_port_says_where_it_answers_and_where_not() {
    let mut world = World::new(&[0], &[0], Vec::new());
    let listener = |address: [u8; 4], port: u16, failure: Option<&str>| ListenerView {
        place: Place {
            protocol: Protocol::Tcp,
            address: (address, port).into(),
        },
        port: key(),
        virtual_address: port == 80,
        only: None,
        failure: failure.map(str::to_owned),
    };
    let mut other = listener([10, 93, 0, 21], 80, None);
    other.port.service = "shop".parse().unwrap();
    world.listeners = Listeners {
        all: vec![
            listener([0, 0, 0, 0], 8080, Some("address in use")),
            listener([10, 93, 0, 20], 80, None),
            other,
        ],
        refused: vec![Refusal {
            service: web(),
            published: 8080,
            reason: Unpublishable::BadAddress("nowhere".to_owned()),
        }],
    };
    let port = world.shown().ports.remove(0);
    let listeners: Vec<_> = port
        .listeners
        .iter()
        .map(|l| (l.is_virtual, &l.failure))
        .collect();
    assert_eq!(
        listeners,
        [(false, &Some("address in use".to_owned())), (true, &None)]
    );
    assert!(port.refused.unwrap().contains("nowhere"));
}
