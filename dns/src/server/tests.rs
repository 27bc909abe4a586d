use std::net::Ipv4Addr;

use dunlin_state::model::{Endpoint, NodeId, PortSpec, ServiceKey, Slot};
use dunlin_state::route::{Backend, ServiceRoute};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::task::JoinHandle;

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
    let address = server.local_addr();
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

#[test]
fn lets_in_this_host_and_whom_the_caller_names() {
    let door = |allow: Option<Allow>| Door {
        bound: "192.0.2.1".parse().unwrap(),
        allow,
    };
    let member: Allow = Arc::new(|ip| ip == IpAddr::from([198, 51, 100, 7]));
    let cases = [
        ("127.0.0.1:9", true, true),
        ("127.8.9.1:9", true, true),
        ("[::1]:9", true, true),
        ("[::ffff:127.0.0.1]:9", true, true),
        ("192.0.2.1:9", true, true),
        ("192.0.2.2:9", false, false),
        ("198.51.100.7:9", false, true),
        ("127.0.0.1:0", false, false),
    ];
    for (client, alone, with_member) in cases {
        let client = client.parse().unwrap();
        assert_eq!(door(None).admits(client), alone, "{client}");
        let admitted = door(Some(member.clone())).admits(client);
        assert_eq!(admitted, with_member, "{client}");
    }
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
