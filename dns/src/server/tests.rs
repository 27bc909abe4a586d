use std::net::Ipv4Addr;

use dunlin_state::model::{Endpoint, NodeId, PortSpec, ServiceKey, Slot};
use dunlin_state::route::{Backend, ServiceRoute};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::tcp::MAX_TCP;
use super::*;

const NAME: &str = "web.default.dunlin.internal.";

fn table(replicas: u8) -> Arc<RouteTable> {
    let backends = (0..replicas).map(|n| Backend {
        slot: Slot::Replica(n.into()),
        node: NodeId::from_bytes([n; 32]),
        epoch: 1,
        endpoints: vec![Endpoint {
            target: 80,
            protocol: Default::default(),
            address: ([10, 0, 0, n + 1], 80).into(),
        }],
    });
    let route = ServiceRoute {
        ports: vec![PortSpec::default()],
        backends: backends.collect(),
        ..ServiceRoute::default()
    };
    let mut table = RouteTable::default();
    table
        .services
        .insert("web".parse::<ServiceKey>().unwrap(), route);
    Arc::new(table)
}

struct Running {
    address: SocketAddr,
    routes: watch::Sender<Arc<RouteTable>>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

async fn start(replicas: u8) -> Running {
    let server = DnsServer::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    let address = server.addresses()[0];
    let (routes, receiver) = watch::channel(table(replicas));
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(receiver, Suffix::default(), stop.clone()));
    Running {
        address,
        routes,
        stop,
        task,
    }
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(3, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

async fn over_udp(server: SocketAddr, packet: &[u8]) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut buffer = [0; 2000];
    let length = socket.recv(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn over_tcp(stream: &mut TcpStream, packet: &[u8]) -> io::Result<Message> {
    stream.write_u16(packet.len() as u16).await?;
    stream.write_all(packet).await?;
    let mut buffer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut buffer).await?;
    Ok(Message::from_vec(&buffer).unwrap())
}

#[tokio::test]
async fn sockets_left_by_one_server_are_served_by_the_next() {
    let first = DnsServer::bind((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .unwrap();
    let [(address, bound)] = first.bound().unwrap().try_into().unwrap();
    drop(first);
    // Asked while nobody answers.
    let over_udp = tokio::spawn(async move { over_udp(address, &query(NAME)).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    let elsewhere = SocketAddr::new(address.ip(), address.port() ^ 1);
    let copy = Bound {
        udp: bound.udp.try_clone().unwrap(),
        tcp: bound.tcp.try_clone().unwrap(),
    };
    assert!(DnsServer::on(elsewhere, copy).is_err());
    let next = DnsServer::on(address, bound).unwrap();
    let (_routes, receiver) = watch::channel(table(1));
    let stop = CancellationToken::new();
    let task = tokio::spawn(next.serve(receiver, Suffix::default(), stop.clone()));
    let answer = over_udp.await.unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    over_tcp(&mut stream, &query(NAME)).await.unwrap();
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn answers_over_both_transports() {
    let server = start(40).await;
    let answer = over_udp(server.address, &query(NAME)).await;
    assert_eq!(answer.answers.len(), 8);
    let tasks = query(&format!("tasks.{NAME}"));
    let answer = over_udp(server.address, &tasks).await;
    assert!(answer.metadata.truncation);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        let answer = over_tcp(&mut stream, &tasks).await.unwrap();
        assert_eq!(answer.answers.len(), 40);
    }
}

#[tokio::test]
async fn follows_the_table() {
    let server = start(1).await;
    for replicas in [5, 0, 3] {
        server.routes.send_replace(table(replicas));
        // Each answer is from one table or the next; the new one must come.
        loop {
            let answer = over_udp(server.address, &query(NAME)).await;
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
            if answer.answers.len() == usize::from(replicas) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    drop(server.routes);
    let answer = over_udp(server.address, &query(NAME)).await;
    assert_eq!(answer.answers.len(), 3, "the last table stays");
}

#[tokio::test]
async fn survives_garbage_on_the_wire() {
    let server = start(1).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for length in [0, 1, 11, 12, 600, 4000] {
        let garbage = vec![0xc0; length];
        socket.send_to(&garbage, server.address).await.unwrap();
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    over_tcp(&mut stream, &[0xff; 40]).await.unwrap_err();
    let answer = over_udp(server.address, &query(NAME)).await;
    assert_eq!(answer.answers.len(), 1);
}

#[tokio::test]
async fn too_many_connections_are_turned_away() {
    let server = start(1).await;
    let mut kept = Vec::new();
    for _ in 0..MAX_TCP {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        over_tcp(&mut stream, &query(NAME)).await.unwrap();
        kept.push(stream);
    }
    let mut one_more = TcpStream::connect(server.address).await.unwrap();
    over_tcp(&mut one_more, &query(NAME)).await.unwrap_err();
    over_tcp(&mut kept[0], &query(NAME)).await.unwrap();
}

#[tokio::test]
async fn its_ports_are_free_after_it_stops() {
    let server = start(1).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    over_tcp(&mut stream, &query(NAME)).await.unwrap();
    let taken = DnsServer::bind(server.address).await.unwrap_err();
    assert!(taken.to_string().contains("stop the resolver that has it"));
    server.stop.cancel();
    server.task.await.unwrap().unwrap();
    DnsServer::bind(server.address).await.unwrap();
}

/// Many answers of one length to one client go in one piece; each must still be its own.
#[tokio::test]
async fn a_burst_is_answered_one_by_one() {
    let server = start(2).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server.address).await.unwrap();
    let names = ["web", "tasks.web", "0.web", "nope"];
    let mut waiting = std::collections::BTreeSet::new();
    for id in 0..100_u16 {
        let name = names[usize::from(id) % names.len()];
        let mut packet = query(&format!("{name}.default.dunlin.internal."));
        packet[..2].copy_from_slice(&id.to_be_bytes());
        socket.send(&packet).await.unwrap();
        waiting.insert(id);
        // What is lost on the way is no fault of the server, so that few are in flight.
        while waiting.len() > 40 || (id == 99 && !waiting.is_empty()) {
            let mut buffer = [0; 2000];
            let length = socket.recv(&mut buffer).await.unwrap();
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            let id = answer.metadata.id;
            assert!(waiting.remove(&id), "{id} is answered once");
            let expected = [2, 2, 1, 0][usize::from(id) % names.len()];
            assert_eq!(answer.answers.len(), expected);
        }
    }
}

#[tokio::test]
async fn a_server_on_all_addresses_answers_from_the_one_asked() {
    let server = DnsServer::bind((Ipv4Addr::UNSPECIFIED, 0).into())
        .await
        .unwrap();
    let port = server.addresses()[0].port();
    let (_routes, receiver) = watch::channel(table(1));
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(receiver, Suffix::default(), stop.clone()));
    for last in [1, 77] {
        // A connected socket hears only the address it asked.
        let answer = over_udp(([127, 0, 0, last], port).into(), &query(NAME)).await;
        assert_eq!(answer.answers.len(), 1);
    }
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn other_names_are_refused_when_nobody_is_asked() {
    let server = start(1).await;
    let answer = over_udp(server.address, &query("example.com.")).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert!(!answer.metadata.recursion_available);
}
