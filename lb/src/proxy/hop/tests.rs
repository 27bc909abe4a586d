//! Two nodes on loopback, each with a hop of its own.

use std::net::Ipv4Addr;

use dunlin_state::model::{Endpoint, PortSpec, ProxyProtocol, ServiceKey, Slot};
use dunlin_state::route::{Backend, NodeRoute, ServiceRoute};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::proxy::{Limits, Proxy};
use crate::publish::room;

/// Ed25519 keys need a crate of their own; these pairs of seed and public key are from RFC 8032
/// (7.1, tests 1 to 3).
const KEYS: [(&str, &str); 3] = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    ),
];

fn bytes(hex: &str) -> [u8; 32] {
    let digits = |i: usize| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).unwrap();
    std::array::from_fn(digits)
}

fn id(n: usize) -> NodeId {
    NodeId::from_bytes(bytes(KEYS[n].1))
}

struct Node {
    hop: Arc<Hop>,
    routes: watch::Sender<Arc<RouteTable>>,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn node(n: usize) -> Node {
    let (routes, watched) = watch::channel(Arc::new(RouteTable::default()));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let config = HopConfig {
        node: id(n),
        seed: bytes(KEYS[n].0),
        socket,
    };
    let (hop, task) = Hop::new(config, watched, room()).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(task.run(stop.clone(), Duration::from_secs(2)));
    Node {
        hop,
        routes,
        address,
        stop,
        task,
    }
}

fn service() -> ServiceKey {
    "web".parse().unwrap()
}

/// A table in which these nodes are members, and a replica on node `at` answers at `replica`.
fn table(members: &[(usize, SocketAddr)], at: usize, replica: SocketAddr) -> RouteTable {
    let backend = Backend {
        slot: Slot::Replica(0),
        node: id(at),
        epoch: 7,
        endpoints: [Protocol::Tcp, Protocol::Udp]
            .map(|protocol| Endpoint {
                target: 80,
                protocol,
                address: replica,
            })
            .to_vec(),
    };
    let route = ServiceRoute {
        ports: vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }],
        backends: vec![backend],
        ..ServiceRoute::default()
    };
    let mut table = RouteTable::default();
    table.services.insert(service(), route);
    for (n, address) in members {
        let mut address = *address;
        address.set_port(address.port() - PORT_OFFSET);
        let route = NodeRoute {
            address: Some(address),
            ..NodeRoute::default()
        };
        table.nodes.insert(id(*n), route);
    }
    table
}

/// Makes the nodes members of one cluster.
fn join(nodes: &[&Node], at: usize, replica: SocketAddr, edit: impl Fn(&mut RouteTable)) {
    let members: Vec<_> = nodes.iter().map(|n| n.address).enumerate().collect();
    let mut table = table(&members, at, replica);
    edit(&mut table);
    for node in nodes {
        node.routes.send_replace(Arc::new(table.clone()));
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A proxy on a node, and where it listens.
async fn proxy(n: usize, node: &Node) -> SocketAddr {
    let (listener, address) = listen().await;
    let limits = Limits {
        patience: Duration::from_secs(30),
        connect: Duration::from_secs(10),
        ..Limits::default()
    };
    let proxy = Proxy::new(service(), 80).limits(limits);
    let proxy = proxy.hop(id(n), Arc::clone(&node.hop));
    let watched = node.routes.subscribe();
    tokio::spawn(proxy.run(listener, watched, node.stop.clone()));
    address
}

#[tokio::test]
async fn connections_reach_replicas_of_other_nodes_and_end_as_they_ended() {
    let (a, b) = (node(0), node(1));
    let (replica, at) = listen().await;
    join(&[&a, &b], 1, at, |_| {});
    let proxy = proxy(0, &a).await;
    let text: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    let expected = text.clone();
    let served = tokio::spawn(async move {
        let (mut server, _) = replica.accept().await.unwrap();
        let mut all = Vec::new();
        server.read_to_end(&mut all).await.unwrap();
        server.write_all(&all).await.unwrap();
        drop(server);
        // A second one is reset after a byte.
        let (mut server, _) = replica.accept().await.unwrap();
        server.write_u8(9).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), 8);
        server.set_zero_linger().unwrap();
    });
    let client = TcpStream::connect(proxy).await.unwrap();
    let (mut read, mut write) = client.into_split();
    let sending = tokio::spawn(async move {
        write.write_all(&text).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    sending.await.unwrap();
    assert!(back == expected);

    let mut client = TcpStream::connect(proxy).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 9);
    client.write_u8(8).await.unwrap();
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    served.await.unwrap();
}

#[tokio::test]
async fn replicas_are_told_the_client_where_their_service_says_so() {
    let (a, b) = (node(0), node(1));
    let (replica, at) = listen().await;
    join(&[&a, &b], 1, at, |table| {
        let route = table.services.get_mut(&service()).unwrap();
        route.traffic.proxy_protocol = Some(ProxyProtocol::V1);
    });
    let proxy = proxy(0, &a).await;
    let client = TcpStream::connect(proxy).await.unwrap();
    let from = client.local_addr().unwrap();
    let (mut server, _) = replica.accept().await.unwrap();
    let expected = format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
        from.port(),
        proxy.port()
    );
    let mut line = vec![0; expected.len()];
    server.read_exact(&mut line).await.unwrap();
    assert_eq!(String::from_utf8(line).unwrap(), expected);
}

fn port() -> PortKey {
    PortKey {
        service: service(),
        target: 80,
        protocol: Protocol::Tcp,
    }
}

fn target(at: SocketAddr) -> Target {
    Target {
        slot: Slot::Replica(0),
        node: id(1),
        epoch: 7,
        address: at,
    }
}

#[tokio::test]
async fn a_node_opens_nothing_but_its_own_ready_replicas() {
    let (a, b) = (node(0), node(1));
    let (_replica, at) = listen().await;
    join(&[&a, &b], 1, at, |_| {});
    let client = SocketAddr::from(([192, 0, 2, 1], 9));
    let ask =
        async |target: &Target, port: &PortKey| a.hop.open(target, port, client, client).await;
    assert!(ask(&target(at), &port()).await.is_ok());
    let mut other_port = port();
    other_port.target = 22;
    let mut earlier = target(at);
    earlier.epoch = 6;
    let mut other_slot = target(at);
    other_slot.slot = Slot::Replica(1);
    for (target, port) in [
        (target(at), other_port),
        (earlier, port()),
        (other_slot, port()),
    ] {
        let refused = ask(&target, &port).await;
        assert!(
            matches!(refused, Err(HopError::Answer(Answer::Gone))),
            "{refused:?}"
        );
    }
    // The replica of a third node is nothing that the second would connect to.
    join(&[&a, &b], 0, at, |_| {});
    let refused = ask(&target(at), &port()).await;
    assert!(
        matches!(refused, Err(HopError::Answer(Answer::Gone))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn strangers_and_impostors_are_refused_and_former_members_cut_off() {
    let (a, b, c) = (node(0), node(1), node(2));
    let (_replica, at) = listen().await;
    let client = SocketAddr::from(([192, 0, 2, 1], 9));
    join(&[&a, &b], 1, at, |_| {});
    // The third knows the two, who do not know it.
    let all = [(0, a.address), (1, b.address), (2, c.address)];
    c.routes.send_replace(Arc::new(table(&all, 1, at)));
    let refused = c.hop.open(&target(at), &port(), client, client).await;
    assert!(refused.is_err());
    // At the second's address answers the third, which cannot show the second's key.
    let imposed = [(0, a.address), (1, c.address)];
    a.routes.send_replace(Arc::new(table(&imposed, 1, at)));
    let refused = a.hop.open(&target(at), &port(), client, client).await;
    assert!(
        matches!(refused, Err(HopError::Link(_) | HopError::Connect(_))),
        "{refused:?}"
    );
    // A member that is none any more loses its connection.
    let (d, e) = (node(0), node(1));
    join(&[&d, &e], 1, at, |_| {});
    let (link, mut wire) = d
        .hop
        .open(&target(at), &port(), client, client)
        .await
        .unwrap();
    e.routes
        .send_replace(Arc::new(table(&[(1, e.address)], 1, at)));
    link.connection.closed().await;
    let Wire::Hop(_, recv) = &mut wire else {
        panic!("{wire:?} is no stream");
    };
    assert!(recv.read_chunk(1, true).await.is_err());
}

#[tokio::test]
async fn one_connection_serves_both_directions_also_when_both_open_one() {
    let (a, b) = (node(0), node(1));
    let (_replica, at) = listen().await;
    join(&[&a, &b], 1, at, |table| {
        let route = table.services.get_mut(&service()).unwrap();
        let mut mine = route.backends[0].clone();
        (mine.node, mine.slot) = (id(0), Slot::Replica(1));
        route.backends.push(mine);
    });
    let client = SocketAddr::from(([192, 0, 2, 1], 9));
    let mut to_a = target(at);
    (to_a.node, to_a.slot) = (id(0), Slot::Replica(1));
    for _ in 0..20 {
        let (there, port) = (target(at), port());
        let (one, two) = tokio::join!(
            a.hop.open(&there, &port, client, client),
            b.hop.open(&to_a, &port, client, client)
        );
        assert!(one.is_ok() && two.is_ok());
    }
    let live = |hop: &Hop, n: usize| hop.lock()[&id(n)].live().map(|l| l.connection.stable_id());
    // Both have settled on the connection that the smaller one opened.
    let smaller_dialed = |hop: &Hop, n: usize| {
        let peers = hop.lock();
        let link = peers[&id(n)].live().unwrap();
        link.dialed == (hop.node < link.node)
    };
    assert!(live(&a.hop, 1).is_some() && live(&b.hop, 0).is_some());
    assert!(smaller_dialed(&a.hop, 1) == smaller_dialed(&b.hop, 0));
}

#[tokio::test]
async fn stopping_lets_streams_end_and_frees_the_port() {
    let (a, b) = (node(0), node(1));
    let (replica, at) = listen().await;
    join(&[&a, &b], 1, at, |_| {});
    let client = SocketAddr::from(([192, 0, 2, 1], 9));
    let (_link, wire) = a
        .hop
        .open(&target(at), &port(), client, client)
        .await
        .unwrap();
    let Wire::Hop(mut send, mut recv) = wire else {
        panic!("{wire:?} is no stream");
    };
    let (mut server, _) = replica.accept().await.unwrap();
    b.stop.cancel();
    send.write_all(b"last words").await.unwrap();
    send.finish().unwrap();
    let mut heard = Vec::new();
    server.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
    server.write_all(b"heard").await.unwrap();
    drop(server);
    assert_eq!(recv.read_to_end(100).await.unwrap(), b"heard");
    b.task.await.unwrap();
    drop(b.hop);
    while UdpSocket::bind(b.address).is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn datagrams_of_all_sizes_arrive_both_ways() {
    let (a, b) = (node(0), node(1));
    let echo = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let at = echo.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((count, from)) = echo.recv_from(&mut buffer).await {
            echo.send_to(&buffer[..count], from).await.unwrap();
        }
    });
    join(&[&a, &b], 1, at, |_| {});
    let mut port = port();
    port.protocol = Protocol::Udp;
    let client = SocketAddr::from(([192, 0, 2, 1], 9));
    let (link, wire) = a
        .hop
        .open(&target(at), &port, client, client)
        .await
        .unwrap();
    let Wire::Hop(send, recv) = wire else {
        panic!("{wire:?} is no stream");
    };
    let (mut sink, mut inbox, mut stream) = far(link, send, recv);
    for size in [0, 1, 500, 1_000, 5_000, 40_000] {
        let sent = vec![3; size];
        // Any of them may be lost; it is sent until one comes back.
        loop {
            sink.send(&sent).await.unwrap();
            let came = async {
                tokio::select! {
                    small = inbox.datagrams.recv() => small,
                    large = stream.next() => large.unwrap(),
                }
            };
            match timeout(Duration::from_secs(2), came).await {
                Ok(Some(back)) if back.len() == size => break,
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => panic!("the session has ended"),
            }
        }
    }
    task.abort();
}

/// Carries packets between one client and a node, as long as it is not aborted.
fn carry(front: &Arc<tokio::net::UdpSocket>, to: SocketAddr) -> JoinHandle<()> {
    let front = Arc::clone(front);
    tokio::spawn(async move {
        let back = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let back = back.await.unwrap();
        back.connect(to).await.unwrap();
        let (mut there, mut here) = (vec![0; 65_535], vec![0; 65_535]);
        let mut client = None;
        loop {
            // A packet that nobody takes is lost, as packets are.
            tokio::select! {
                Ok((length, from)) = front.recv_from(&mut there) => {
                    client = Some(from);
                    let _lost = back.send(&there[..length]).await;
                }
                Ok(length) = back.recv(&mut here) => {
                    if let Some(client) = client {
                        let _lost = front.send_to(&here[..length], client).await;
                    }
                }
            }
        }
    })
}

#[tokio::test]
async fn a_node_that_was_killed_and_is_back_tells_that_it_knows_nothing() {
    let (a, dead) = (node(0), node(1));
    let (_replica, at) = listen().await;
    let front = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let front = Arc::new(front.unwrap());
    let members = [(0, a.address), (1, front.local_addr().unwrap())];
    let table = Arc::new(table(&members, 1, at));
    a.routes.send_replace(Arc::clone(&table));
    dead.routes.send_replace(Arc::clone(&table));
    let carried = carry(&front, dead.address);
    let client = SocketAddr::from(([192, 0, 2, 1], 9));
    let asked = (target(at), port());
    let (link, _wire) = a
        .hop
        .open(&asked.0, &asked.1, client, client)
        .await
        .unwrap();
    // From here on nothing of the first one is heard, not even that it stops.
    carried.abort();
    let _aborted = carried.await;
    let back = node(1);
    back.routes.send_replace(table);
    let _carried = carry(&front, back.address);
    let first = a.hop.open(&asked.0, &asked.1, client, client).await;
    assert!(
        matches!(first, Err(HopError::Link(_) | HopError::Stream)),
        "{first:?}"
    );
    let reason = link.connection.closed().await;
    assert!(matches!(reason, ConnectionError::Reset), "{reason:?}");
    let again = a.hop.open(&asked.0, &asked.1, client, client).await;
    assert!(again.is_ok(), "{again:?}");
}
