use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use dunlin_state::model::{Endpoint, NodeId, PortSpec, Slot};
use dunlin_state::route::{Backend, ServiceRoute};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::balance::Policy;

fn web() -> ServiceKey {
    "web".parse().unwrap()
}

/// A replica that says its number and then sends back what it gets, until its client ends.
struct Replica {
    address: SocketAddr,
    task: JoinHandle<()>,
}

async fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

impl Replica {
    async fn start(number: u8) -> Self {
        Self::on(listener().await, number)
    }

    fn on(listener: TcpListener, number: u8) -> Self {
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                clients.spawn(async move {
                    client.write_all(&[number]).await.unwrap();
                    let mut all = Vec::new();
                    if client.read_to_end(&mut all).await.is_ok() {
                        client.write_all(&all).await.unwrap();
                    }
                });
            }
        });
        Self { address, task }
    }

    async fn kill(self) {
        self.task.abort();
        let _aborted = self.task.await;
    }
}

fn table(replicas: &[SocketAddr]) -> Arc<RouteTable> {
    let backends = replicas.iter().zip(0..).map(|(address, n)| Backend {
        slot: Slot::Replica(n),
        node: NodeId::from_bytes([1; 32]),
        epoch: 1,
        endpoints: vec![
            Endpoint {
                target: 9,
                protocol: Protocol::Tcp,
                address: ([127, 0, 0, 1], 9).into(),
            },
            Endpoint {
                target: 80,
                protocol: Protocol::Tcp,
                address: *address,
            },
        ],
    });
    let route = ServiceRoute {
        ports: vec![PortSpec::default()],
        backends: backends.collect(),
        ..ServiceRoute::default()
    };
    Arc::new(RouteTable {
        services: BTreeMap::from([(web(), route)]),
        ..RouteTable::default()
    })
}

struct Running {
    address: SocketAddr,
    routes: watch::Sender<Arc<RouteTable>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(replicas: &[SocketAddr], policy: Policy, limits: Limits) -> Running {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let mut first = RouteTable::clone(&table(replicas));
    for route in first.services.values_mut() {
        route.traffic.balance = policy;
    }
    let (routes, receiver) = watch::channel(Arc::new(first));
    let stop = CancellationToken::new();
    let proxy = Proxy::new(web(), 80).limits(limits);
    let task = tokio::spawn(proxy.run(listener, receiver, stop.clone()));
    Running {
        address,
        routes,
        stop,
        task,
    }
}

/// Sends `text`, ends that direction, and returns who answered and all that came after.
async fn call(proxy: SocketAddr, text: &[u8]) -> io::Result<(u8, Vec<u8>)> {
    let mut stream = TcpStream::connect(proxy).await?;
    let number = stream.read_u8().await?;
    stream.write_all(text).await?;
    stream.shutdown().await?;
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await?;
    Ok((number, back))
}

#[tokio::test]
async fn spreads_and_carries_both_directions_to_their_own_ends() {
    let replicas = [
        Replica::start(0).await,
        Replica::start(1).await,
        Replica::start(2).await,
    ];
    let addresses = replicas.each_ref().map(|r| r.address);
    let proxy = start(&addresses, Policy::RoundRobin, Limits::default()).await;
    let mut calls = [0; 3];
    let text = vec![7; 300_000];
    for _ in 0..9 {
        // The replica answers only after the client has ended its direction.
        let (number, back) = call(proxy.address, &text).await.unwrap();
        assert!(back == text);
        calls[usize::from(number)] += 1;
    }
    assert_eq!(calls, [3, 3, 3]);
}

#[tokio::test]
async fn no_call_fails_while_the_table_still_names_a_dead_replica() {
    for policy in [
        Policy::RoundRobin,
        Policy::LeastConnections,
        Policy::RandomOfTwo,
    ] {
        let (alive, dead) = (Replica::start(1).await, Replica::start(2).await);
        let addresses = [dead.address, alive.address];
        let proxy = start(&addresses, policy, Limits::default()).await;
        dead.kill().await;
        for _ in 0..50 {
            let (number, _) = call(proxy.address, b"x").await.unwrap();
            assert_eq!(number, 1);
        }
    }
}

#[tokio::test]
async fn a_call_waits_for_a_replica_to_come() {
    let proxy = start(&[], Policy::RandomOfTwo, Limits::default()).await;
    let waiting = tokio::spawn(call(proxy.address, b"early"));
    let replica = Replica::start(4).await;
    proxy.routes.send_replace(table(&[replica.address]));
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer, (4, b"early".to_vec()));

    // Nobody tells of a restart at the same address, so it has to be tried.
    let address = replica.address;
    replica.kill().await;
    let waiting = tokio::spawn(call(proxy.address, b"late"));
    tokio::task::yield_now().await;
    let listener = TcpListener::bind(address).await.unwrap();
    let _replica = Replica::on(listener, 5);
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!(answer, (5, b"late".to_vec()));
}

#[tokio::test]
async fn a_call_that_nobody_takes_is_reset() {
    let limits = Limits {
        patience: Duration::from_millis(150),
        ..Limits::default()
    };
    let proxy = start(&[], Policy::RandomOfTwo, limits).await;
    let error = call(proxy.address, b"").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let replica = Replica::start(0).await;
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let proxy = start(&[replica.address], Policy::RandomOfTwo, limits).await;
    let mut first = TcpStream::connect(proxy.address).await.unwrap();
    first.read_u8().await.unwrap();
    let mut second = TcpStream::connect(proxy.address).await.unwrap();
    let early = timeout(Duration::from_millis(100), second.read_u8()).await;
    assert!(early.is_err(), "it is not served yet");
    drop(first);
    assert_eq!(second.read_u8().await.unwrap(), 0);
}

#[tokio::test]
async fn stopping_lets_connections_end_and_frees_the_port() {
    let replica = Replica::start(0).await;
    let proxy = start(&[replica.address], Policy::RandomOfTwo, Limits::default()).await;
    let mut open = TcpStream::connect(proxy.address).await.unwrap();
    open.read_u8().await.unwrap();
    proxy.stop.cancel();
    while TcpStream::connect(proxy.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    TcpListener::bind(proxy.address).await.unwrap();
    open.write_all(b"bye").await.unwrap();
    open.shutdown().await.unwrap();
    let mut back = Vec::new();
    open.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"bye");
    proxy.task.await.unwrap();
}

#[tokio::test]
async fn stopping_cuts_what_does_not_end_in_time() {
    let replica = Replica::start(0).await;
    let limits = Limits {
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let proxy = start(&[replica.address], Policy::RandomOfTwo, limits).await;
    let mut open = TcpStream::connect(proxy.address).await.unwrap();
    open.read_u8().await.unwrap();
    proxy.stop.cancel();
    proxy.task.await.unwrap();
    let error = open.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_replica_that_resets_is_seen_as_a_reset() {
    let listener = listener().await;
    let replica = listener.local_addr().unwrap();
    let proxy = start(&[replica], Policy::RandomOfTwo, Limits::default()).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    // Reset before the proxy has seen the connection stand, it would try again.
    server.write_u8(1).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 1);
    server.set_zero_linger().unwrap();
    drop(server);
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
