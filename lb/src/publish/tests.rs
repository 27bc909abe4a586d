use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;

use dunlin_state::model::{Endpoint, Networks, NodeId, PortSpec, Protocol, Slot, Vip};
use dunlin_state::route::{Backend, ServiceRoute};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::origin::{Origin, Peer};

mod waking;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A replica that says its number to each client.
async fn replica(number: u8) -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _gone = client.write_all(&[number]).await;
        }
    });
    address
}

async fn call(address: SocketAddr) -> io::Result<u8> {
    TcpStream::connect(address).await?.read_u8().await
}

/// A port that nobody has at the moment.
async fn free_port() -> u16 {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

fn port(published: u16) -> PortSpec {
    PortSpec {
        target: 80,
        published: Some(published),
        ..PortSpec::default()
    }
}

fn table(services: &[(&str, PortSpec, SocketAddr)]) -> Arc<RouteTable> {
    let services = services.iter().map(|(name, port, address)| {
        let backend = Backend {
            slot: Slot::Replica(0),
            node: NodeId::from_bytes([1; 32]),
            epoch: 1,
            endpoints: vec![Endpoint {
                target: 80,
                protocol: Protocol::Tcp,
                address: *address,
            }],
        };
        let route = ServiceRoute {
            ports: vec![port.clone()],
            backends: vec![backend],
            ..ServiceRoute::default()
        };
        (name.parse().unwrap(), route)
    });
    Arc::new(RouteTable {
        services: services.collect(),
        ..RouteTable::default()
    })
}

fn tcp(address: SocketAddr) -> Place {
    Place {
        protocol: Protocol::Tcp,
        address,
    }
}

struct Running {
    routes: watch::Sender<Arc<RouteTable>>,
    events: mpsc::Receiver<PublishEvent>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), PublishError>>,
}

fn start() -> Running {
    let (routes, receiver) = watch::channel(Arc::new(RouteTable::default()));
    let (tell, events) = mpsc::channel(100);
    let publisher = Publisher::new(LOCAL, move |event| tell.try_send(event).unwrap());
    let stop = CancellationToken::new();
    let task = tokio::spawn(publisher.run(receiver, stop.clone()));
    Running {
        routes,
        events,
        stop,
        task,
    }
}

#[tokio::test]
async fn ports_open_change_hands_and_close_with_the_table() {
    let mut node = start();
    let (one, two) = (replica(1).await, replica(2).await);
    let published = free_port().await;
    let address = SocketAddr::new(LOCAL, published);
    let place = tcp(address);
    let opened = |name: &str| PublishEvent::Opened {
        service: name.parse().unwrap(),
        place,
    };
    let closed = |name: &str| PublishEvent::Closed {
        service: name.parse().unwrap(),
        place,
    };

    node.routes
        .send_replace(table(&[("web", port(published), one)]));
    assert_eq!(node.events.recv().await, Some(opened("web")));
    assert_eq!(call(address).await.unwrap(), 1);

    // The same port, another service; no warning for what is our own hand-over.
    node.routes
        .send_replace(table(&[("shop", port(published), two)]));
    assert_eq!(node.events.recv().await, Some(closed("web")));
    assert_eq!(node.events.recv().await, Some(opened("shop")));
    assert_eq!(call(address).await.unwrap(), 2);

    node.routes.send_replace(Arc::default());
    assert_eq!(node.events.recv().await, Some(closed("shop")));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    node.stop.cancel();
    node.task.await.unwrap().unwrap();
    assert_eq!(node.events.recv().await, None, "nothing else happened");
}

#[tokio::test]
async fn a_taken_port_is_told_once_and_served_when_it_is_free() {
    let mut node = start();
    let holder = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = holder.local_addr().unwrap();
    let one = replica(1).await;
    node.routes
        .send_replace(table(&[("web", port(address.port()), one)]));
    let warning = node.events.recv().await.unwrap();
    assert!(matches!(warning, PublishEvent::Failed { .. }));
    let text = warning.to_string();
    assert!(
        text.contains("default/web") && text.contains("in use"),
        "{text}"
    );
    drop(holder);
    let service = "web".parse().unwrap();
    let place = tcp(address);
    let opened = PublishEvent::Opened { service, place };
    assert_eq!(node.events.recv().await, Some(opened));
    assert_eq!(call(address).await.unwrap(), 1);
}

#[tokio::test]
async fn what_cannot_be_published_is_told_once() {
    let mut node = start();
    let one = replica(1).await;
    let mut bad = port(free_port().await);
    bad.host_ip = Some("everywhere".to_owned());
    node.routes
        .send_replace(table(&[("dns", bad.clone(), one)]));
    let event = node.events.recv().await.unwrap();
    assert!(matches!(event, PublishEvent::Refused(_)), "{event}");
    let published = free_port().await;
    node.routes
        .send_replace(table(&[("dns", bad, one), ("web", port(published), one)]));
    let next = node.events.recv().await.unwrap();
    assert!(matches!(next, PublishEvent::Opened { .. }), "{next}");
}

/// A virtual address with the port that is published on all addresses, next to it.
#[tokio::test]
async fn a_published_port_and_virtual_addresses_of_the_same_number_live_side_by_side() {
    let (one, two) = (replica(1).await, replica(2).await);
    for virtual_first in [true, false] {
        let (routes, receiver) = watch::channel(Arc::new(RouteTable::default()));
        let (tell, mut events) = mpsc::channel(100);
        let any = Ipv4Addr::UNSPECIFIED.into();
        let publisher = Publisher::new(any, move |event| tell.try_send(event).unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn(publisher.run(receiver, stop.clone()));
        let number = free_port().await;
        let vip = SocketAddr::from(([127, 44, 0, 20], number));
        let mut both = RouteTable::clone(&table(&[
            ("shop", port(number), one),
            ("web", port(1), two),
        ]));
        let web = both.services.get_mut(&"web".parse().unwrap()).unwrap();
        (web.ports[0].target, web.ports[0].published) = (number, None);
        web.backends[0].endpoints[0].target = number;
        web.vip.v4 = Some([127, 44, 0, 20].into());
        let mut first = both.clone();
        let later = if virtual_first { "shop" } else { "web" };
        first.services.remove(&later.parse().unwrap());
        routes.send_replace(Arc::new(first));
        if virtual_first {
            while call(vip).await.ok() != Some(2) {
                tokio::task::yield_now().await;
            }
        } else {
            events.recv().await.unwrap();
        }
        routes.send_replace(Arc::new(both));
        while call(vip).await.ok() != Some(2) {
            tokio::task::yield_now().await;
        }
        let published = SocketAddr::new(LOCAL, number);
        while call(published).await.ok() != Some(1) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn two_daemons_do_not_share_a_port_unnoticed() {
    let (mut one, mut two) = (start(), start());
    let replica = replica(1).await;
    let table = table(&[("web", port(free_port().await), replica)]);
    one.routes.send_replace(Arc::clone(&table));
    assert!(matches!(
        one.events.recv().await,
        Some(PublishEvent::Opened { .. })
    ));
    two.routes.send_replace(table);
    assert!(matches!(
        two.events.recv().await,
        Some(PublishEvent::Failed { .. })
    ));
}

/// A replica that sends each datagram back, after its number.
async fn echo(number: u8) -> SocketAddr {
    let socket = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            let mut answer = vec![number];
            answer.extend_from_slice(&buffer[..count]);
            let _gone = socket.send_to(&answer, from).await;
        }
    });
    address
}

#[tokio::test]
async fn udp_sessions_stay_with_their_replica_and_are_answered_from_where_they_asked() {
    let mut node = start();
    let (one, two) = (echo(1).await, echo(2).await);
    let mut udp = port(free_port().await);
    udp.protocol = Protocol::Udp;
    let address = SocketAddr::new(LOCAL, udp.published.unwrap());
    let mut routes = RouteTable::clone(&table(&[("dns", udp.clone(), one)]));
    let route = routes.services.values_mut().next().unwrap();
    route.backends[0].endpoints[0].protocol = Protocol::Udp;
    let mut second = route.backends[0].clone();
    second.slot = Slot::Replica(1);
    second.endpoints[0].address = two;
    route.backends.push(second);
    route.traffic.balance = dunlin_state::model::Balance::RoundRobin;
    node.routes.send_replace(Arc::new(routes));
    let opened = node.events.recv().await.unwrap();
    assert!(matches!(opened, PublishEvent::Opened { .. }), "{opened}");
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let client = UdpSocket::bind((LOCAL, 0)).await.unwrap();
        let mut numbers = BTreeSet::new();
        for turn in 0..3_u8 {
            client.send_to(&[turn; 100], address).await.unwrap();
            let mut buffer = [0; 2048];
            let (count, from) = client.recv_from(&mut buffer).await.unwrap();
            assert_eq!((count, from, buffer[1]), (101, address, turn));
            numbers.insert(buffer[0]);
        }
        assert_eq!(numbers.len(), 1, "one session, one replica");
        seen.extend(numbers);
    }
    assert_eq!(seen.len(), 2, "two clients, two replicas");
}

#[tokio::test]
async fn a_loopback_port_is_open_on_that_address_alone() {
    let mut node = start();
    let one = replica(1).await;
    let mut spec = port(free_port().await);
    spec.host_ip = Some("127.0.0.2".to_owned());
    let published = spec.published.unwrap();
    node.routes.send_replace(table(&[("web", spec, one)]));
    node.events.recv().await.unwrap();
    let there = SocketAddr::from(([127, 0, 0, 2], published));
    assert_eq!(call(there).await.unwrap(), 1);
    let elsewhere = SocketAddr::new(LOCAL, published);
    assert!(TcpStream::connect(elsewhere).await.is_err());
}

#[tokio::test]
async fn its_ports_are_free_after_it_stops() {
    let mut node = start();
    let published = free_port().await;
    let address = SocketAddr::new(LOCAL, published);
    let one = replica(1).await;
    node.routes
        .send_replace(table(&[("web", port(published), one)]));
    node.events.recv().await.unwrap();
    assert_eq!(call(address).await.unwrap(), 1);
    node.stop.cancel();
    node.task.await.unwrap().unwrap();
    TcpListener::bind(address).await.unwrap();
}

#[tokio::test]
async fn views_tell_what_is_open_what_is_not_and_what_was_counted() {
    let (routes, receiver) = watch::channel(Arc::new(RouteTable::default()));
    let (tell, mut events) = mpsc::channel(100);
    let publisher = Publisher::new(LOCAL, move |event| tell.try_send(event).unwrap());
    let views = publisher.views();
    let stop = CancellationToken::new();
    let task = tokio::spawn(publisher.run(receiver, stop.clone()));
    let holder = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let taken = holder.local_addr().unwrap();
    let published = free_port().await;
    let one = replica(1).await;
    let mut bad = port(published);
    bad.host_ip = Some("everywhere".to_owned());
    routes.send_replace(table(&[
        ("bad", bad, one),
        ("shop", port(taken.port()), one),
        ("web", port(published), one),
    ]));
    for _ in 0..3 {
        events.recv().await.unwrap();
    }
    let listeners = views.listeners();
    let mut told: Vec<_> = listeners
        .all
        .iter()
        .map(|l| (l.port.service.name(), l.failure.is_some()))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [("shop", true), ("web", false)]);
    assert_eq!(listeners.refused[0].service.name(), "bad");

    let web: ServiceKey = "web".parse().unwrap();
    let address = SocketAddr::new(LOCAL, published);
    for _ in 0..3 {
        assert_eq!(call(address).await.unwrap(), 1);
    }
    let tally = || views.ports(Some(&web)).remove(0).tally;
    while tally().active > 0 {
        tokio::task::yield_now().await;
    }
    let counted = tally();
    assert_eq!(
        (counted.connections, counted.sent, counted.ejections),
        (3, 3, 0)
    );
    assert_eq!(counted.latency.iter().sum::<u64>(), 3);
    assert_eq!(views.ports(None).len(), 3);
    stop.cancel();
    task.await.unwrap().unwrap();
}

/// A replica that sends back each byte that it gets.
async fn parrot() -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            clients.spawn(async move {
                while let Ok(byte) = client.read_u8().await {
                    client.write_all(&[byte]).await.unwrap();
                }
            });
        }
    });
    address
}

async fn repeat(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
    stream.write_u8(byte).await?;
    stream.read_u8().await
}

/// The same when its service is removed altogether: its rules still hold then.
#[tokio::test]
async fn connections_of_a_leaving_replica_go_on_until_the_deadline_and_are_cut_then() {
    for removed in [false, true] {
        let (routes, receiver) = watch::channel(Arc::new(RouteTable::default()));
        let (tell, mut events) = mpsc::channel(100);
        let publisher = Publisher::new(LOCAL, move |event| tell.try_send(event).unwrap());
        let views = publisher.views();
        let stop = CancellationToken::new();
        let task = tokio::spawn(publisher.run(receiver, stop.clone()));
        let (old, new) = (parrot().await, parrot().await);
        let spec = port(free_port().await);
        let address = SocketAddr::new(LOCAL, spec.published.unwrap());
        let with = |replica: SocketAddr, drain_ms: u64| {
            let mut table = RouteTable::clone(&table(&[("web", spec.clone(), replica)]));
            for route in table.services.values_mut() {
                route.traffic.drain_ms = Some(drain_ms);
            }
            Arc::new(table)
        };
        const HOUR: u64 = 3_600_000;
        routes.send_replace(with(old, HOUR));
        events.recv().await.unwrap();
        let mut first = TcpStream::connect(address).await.unwrap();
        assert_eq!(repeat(&mut first, 1).await.unwrap(), 1);

        // It leaves with an hour's time: nothing happens to the connection.
        routes.send_replace(with(new, HOUR));
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(repeat(&mut second, 2).await.unwrap(), 2);
        assert_eq!(repeat(&mut first, 3).await.unwrap(), 3);
        let open = |at: SocketAddr| {
            let views = views.ports(Some(&"web".parse().unwrap()));
            let mut targets = views[0].targets.iter();
            let of = |t: &&crate::balance::TargetView| t.target.address == at;
            targets.find(of).map(|t| (t.listed, t.open))
        };
        assert_eq!((open(old), open(new)), (Some((false, 1)), Some((true, 1))));

        // The other one leaves with a moment's time, which is known before.
        let mut shorter = RouteTable::clone(&with(new, 20));
        let other = table(&[("other", port(free_port().await), old)]);
        shorter.services.extend(other.services.clone());
        routes.send_replace(Arc::new(shorter));
        let opened = events.recv().await.unwrap();
        assert!(matches!(opened, PublishEvent::Opened { .. }), "{opened}");
        match removed {
            true => routes.send_replace(Arc::default()),
            false => routes.send_replace(with(old, 20)),
        };
        let error = second.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        if removed {
            // So is every connection through a listener that is closed.
            let error = first.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        } else {
            assert_eq!(
                repeat(&mut first, 4).await.unwrap(),
                4,
                "its time was set before"
            );
            assert_eq!(views.ports(None)[0].tally.cut, 1);
            drop(first);
        }
        stop.cancel();
        task.await.unwrap().unwrap();
    }
}

/// Two replicas of `web` at virtual addresses of their own, and `web` at one.
fn with_addresses(number: u16, replicas: [SocketAddr; 2]) -> RouteTable {
    let mut all = RouteTable::clone(&table(&[("web", port(1), replicas[0])]));
    let web = all.services.values_mut().next().unwrap();
    (web.ports[0].target, web.ports[0].published) = (number, None);
    web.networks = Networks::from(["default/back".to_owned()]);
    web.vip.v4 = Some([127, 44, 1, 20].into());
    web.backends[0].endpoints[0].target = number;
    let mut second = web.backends[0].clone();
    second.slot = Slot::Replica(1);
    second.endpoints[0].address = replicas[1];
    web.backends.push(second);
    for slot in 0..2_u8 {
        let v4 = Some([127, 44, 1, 200 + slot].into());
        web.replicas
            .insert(Slot::Replica(slot.into()), Vip { v4, v6: None });
    }
    all
}

#[tokio::test]
async fn a_replicas_own_address_leads_to_it_alone() {
    let node = start();
    let number = free_port().await;
    let mut table = with_addresses(number, [replica(1).await, replica(2).await]);
    node.routes.send_replace(Arc::new(table.clone()));
    let own = |slot: u8| SocketAddr::from(([127, 44, 1, 200 + slot], number));
    while call(own(1)).await.ok() != Some(2) {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        assert_eq!(call(own(0)).await.unwrap(), 1);
        assert_eq!(call(own(1)).await.unwrap(), 2);
    }
    // Its address goes with it, and nobody else's answers in its place.
    let web = table.services.values_mut().next().unwrap();
    web.backends.pop();
    web.replicas.pop_last();
    node.routes.send_replace(Arc::new(table));
    while call(own(1)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(call(own(0)).await.unwrap(), 1);
}

/// Who comes from this address is a replica of the network `front`; it has to be looked for.
#[derive(Debug)]
struct OfFront(IpAddr);

impl Origins for OfFront {
    fn known(&self, peer: &Peer, _target: &Networks) -> Option<Origin> {
        (peer.from.ip() != self.0).then_some(Origin::Other)
    }

    fn find(
        &self,
        _peer: Peer,
        _target: Arc<Networks>,
    ) -> Pin<Box<dyn Future<Output = Origin> + Send + '_>> {
        let front = Networks::from(["default/front".to_owned()]);
        Box::pin(async { Origin::Replica(Arc::new(front)) })
    }
}

async fn call_from(from: IpAddr, address: SocketAddr) -> io::Result<u8> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(address).await?.read_u8().await
}

#[tokio::test]
async fn replicas_of_other_networks_are_turned_away_from_virtual_addresses() {
    let (routes, receiver) = watch::channel(Arc::new(RouteTable::default()));
    let stranger: IpAddr = [127, 9, 9, 9].into();
    let publisher = Publisher::new(LOCAL, drop).origins(Arc::new(OfFront(stranger)));
    let views = publisher.views();
    let stop = CancellationToken::new();
    let task = tokio::spawn(publisher.run(receiver, stop.clone()));
    let number = free_port().await;
    let published = free_port().await;
    let mut table = with_addresses(number, [replica(1).await, replica(2).await]);
    let web = table.services.values_mut().next().unwrap();
    web.ports[0].published = Some(published);
    routes.send_replace(Arc::new(table.clone()));
    let places = [[127, 44, 1, 20], [127, 44, 1, 200]].map(|ip| SocketAddr::from((ip, number)));
    let everybodys = SocketAddr::new(LOCAL, published);
    for place in [places[0], places[1], everybodys] {
        while call(place).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    for place in places {
        assert!(call_from(stranger, place).await.is_err(), "{place}");
        assert!(call_from([127, 9, 9, 8].into(), place).await.is_ok());
    }
    assert!(call_from(stranger, everybodys).await.is_ok());
    assert_eq!(views.ports(None)[0].tally.isolated, 2);
    let web = table.services.values_mut().next().unwrap();
    web.networks.insert("default/front".to_owned());
    routes.send_replace(Arc::new(table));
    while call_from(stranger, places[0]).await.is_err() {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    task.await.unwrap().unwrap();
}
