//! Whole shells on the loopback interface.

mod datagrams;
mod faults;
mod joining;
mod strangers;
mod streams;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use dunlin_trust::{ClusterId, Founding, Standing};

use super::control::Listen;
use super::*;

/// Longer than anything here may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    net: Net,
    address: SocketAddr,
}

/// The gatekeeper of the node with this seed in the cluster with this number.
fn gatekeeper(seed: u8, cluster: u8) -> Gatekeeper {
    let key = SecretKey::from_seed([seed; 32]);
    let now = trust::wall_seconds();
    let founding = Founding::new([cluster; 32], [cluster; 32], key.public(), now);
    let root = founding.root.public();
    let standing = Standing::Member {
        root,
        chain: founding.node,
        keyring: founding.keyring,
    };
    Gatekeeper::new(key, ClusterId::of(&root), standing)
}

fn config(seed: u8, gatekeeper: Gatekeeper, membership: UdpSocket) -> NetConfig {
    NetConfig {
        seed: NodeSeed([seed; 32]),
        boot: 1,
        gatekeeper,
        membership,
        mdns: false,
    }
}

fn start(seed: u8, key: u8) -> Node {
    start_with(seed, key, Listen::Both)
}

/// Starts a node on a free port whose next is free too.
fn start_with(seed: u8, cluster: u8, listen: Listen) -> Node {
    start_as(seed, listen, || gatekeeper(seed, cluster))
}

fn start_as(seed: u8, listen: Listen, gatekeeper: impl Fn() -> Gatekeeper) -> Node {
    for _ in 0..50 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        if let Ok(net) = Net::start_on(config(seed, gatekeeper(), socket), listen) {
            return Node { net, address };
        }
    }
    panic!("no two free ports in a row");
}

impl Node {
    fn send(&self, to: &Node, bytes: impl Into<Bytes>) {
        self.net.control.send(to.net.node, to.address, bytes.into());
    }

    fn connect(&self, to: &Node) {
        self.net.control.connect(to.net.node, to.address);
    }

    async fn event(&mut self) -> ControlEvent {
        let event = timeout(PATIENCE, self.net.events.recv()).await;
        event.expect("an event in time").expect("a running node")
    }

    /// The next event for which `pick` has something; those before are dropped.
    async fn wait<T>(&mut self, pick: impl Fn(ControlEvent) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.event().await) {
                return picked;
            }
        }
    }

    async fn message(&mut self) -> (NodeId, Bytes) {
        self.wait(|event| match event {
            ControlEvent::Message { from, bytes } => Some((from, bytes)),
            _ => None,
        })
        .await
    }

    async fn connected(&mut self) -> NodeId {
        self.wait(|event| match event {
            ControlEvent::Connected(node) => Some(node),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self) -> NodeId {
        self.wait(|event| match event {
            ControlEvent::Disconnected(node) => Some(node),
            _ => None,
        })
        .await
    }

    async fn unreachable(&mut self) -> String {
        self.wait(|event| match event {
            ControlEvent::Unreachable { reason, .. } => Some(reason),
            _ => None,
        })
        .await
    }
}

#[tokio::test]
async fn two_nodes_exchange_messages_in_order() {
    let (mut a, mut b) = (start(1, 1), start(2, 1));
    for n in 0..100u32 {
        a.send(&b, n.to_be_bytes().to_vec());
    }
    assert_eq!(b.connected().await, a.net.node);
    for n in 0..100u32 {
        let (from, bytes) = b.message().await;
        assert_eq!((from, bytes), (a.net.node, n.to_be_bytes().to_vec().into()));
    }
    b.send(&a, "back");
    assert_eq!(a.message().await, (b.net.node, "back".into()));
    assert_eq!(a.net.counters.read().messages_dropped, 0);
}

#[tokio::test]
async fn the_largest_message_arrives_and_a_larger_one_is_dropped() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    a.send(&b, vec![7; MAX_MESSAGE + 1]);
    assert_eq!(a.net.counters.read().messages_oversize, 1);
    a.send(&b, vec![8; MAX_MESSAGE]);
    let (_, bytes) = b.message().await;
    assert_eq!(bytes, vec![8; MAX_MESSAGE]);
}

#[tokio::test]
async fn a_request_is_answered() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    let (node, control, address) = (b.net.node, a.net.control.clone(), b.address);
    let ask = tokio::spawn(async move {
        let question = Bytes::from_static(b"question");
        control.rpc(node, address, question, PATIENCE).await
    });
    let answer = |event| match event {
        ControlEvent::RpcRequest { from, bytes, reply } => Some((from, bytes, reply)),
        _ => None,
    };
    let (from, bytes, reply) = b.wait(answer).await;
    assert_eq!((from, bytes), (a.net.node, "question".into()));
    reply.send(vec![9; MAX_RESPONSE].into()).unwrap();
    assert_eq!(ask.await.unwrap().unwrap(), vec![9; MAX_RESPONSE]);
}

#[tokio::test]
async fn a_refused_request_fails_at_once_and_an_ignored_one_in_time() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    let control = a.net.control.clone();
    let (node, address) = (b.net.node, b.address);
    let refused =
        tokio::spawn(async move { control.rpc(node, address, Bytes::new(), PATIENCE).await });
    let reply = |event| match event {
        ControlEvent::RpcRequest { reply, .. } => Some(reply),
        _ => None,
    };
    drop(b.wait(reply).await);
    assert!(matches!(refused.await.unwrap(), Err(RpcError::Refused(_))));

    let short = Duration::from_millis(50);
    let ignored = a.net.control.rpc(node, address, Bytes::new(), short).await;
    assert_eq!(ignored, Err(RpcError::TimedOut));

    let large = vec![0; MAX_REQUEST + 1].into();
    let refused = a.net.control.rpc(node, address, large, PATIENCE).await;
    assert_eq!(refused, Err(RpcError::TooLarge(MAX_REQUEST + 1)));
}

#[tokio::test]
async fn a_probe_tells_the_living_from_the_absent() {
    let (a, b) = (start(1, 1), start(2, 1));
    assert!(a.net.control.probe(b.net.node, b.address).await, "new");
    assert!(a.net.control.probe(b.net.node, b.address).await, "old");
    let nobody = "127.0.0.1:1".parse().unwrap();
    let asked = Instant::now();
    assert!(!a.net.control.probe(NodeSeed([9; 32]).node(), nobody).await);
    assert!(asked.elapsed() < PROBE_TIME + Duration::from_secs(1));
}

#[tokio::test]
async fn tcp_serves_where_quic_does_not() {
    let (mut a, mut b) = (start(1, 1), start_with(2, 1, Listen::TcpOnly));
    let large = vec![5; 1_000_000];
    a.send(&b, "small");
    a.send(&b, large.clone());
    assert_eq!(b.connected().await, a.net.node);
    assert_eq!(b.message().await.1, "small");
    assert_eq!(b.message().await.1, large);
    b.send(&a, "back");
    assert_eq!(a.message().await.1, "back");
    assert!(a.net.control.probe(b.net.node, b.address).await);
    let Node { net, .. } = b;
    assert!(net.tasks.shutdown().await);
    assert_eq!(a.disconnected().await, net.node);
}

#[tokio::test]
async fn disconnecting_is_seen_by_both_sides() {
    let (mut a, mut b) = (start(1, 1), start(2, 1));
    a.connect(&b);
    assert_eq!(a.connected().await, b.net.node);
    assert_eq!(b.connected().await, a.net.node);
    a.net.control.disconnect(b.net.node);
    assert_eq!(a.disconnected().await, b.net.node);
    assert_eq!(b.disconnected().await, a.net.node);
}

#[tokio::test]
async fn simultaneous_dials_are_one_connection_to_the_node() {
    let (mut a, mut b) = (start(1, 1), start(2, 1));
    a.connect(&b);
    b.connect(&a);
    a.send(&b, "to b");
    b.send(&a, "to a");
    let mut connected = 0;
    loop {
        match a.event().await {
            ControlEvent::Connected(_) => connected += 1,
            ControlEvent::Message { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(b.message().await.1, "to b");
    assert_eq!(connected, 1);
}

#[tokio::test]
async fn messages_to_nobody_are_dropped_and_counted() {
    let mut a = start(1, 1);
    let nobody = NodeSeed([9; 32]).node();
    let nowhere = "127.0.0.1:1".parse().unwrap();
    for _ in 0..1_000 {
        a.net.control.send(nobody, nowhere, "lost".into());
        tokio::task::yield_now().await;
    }
    let reason = a.unreachable().await;
    assert!(reason.contains("Connection refused"), "{reason}");
    assert_eq!(a.net.counters.read().messages_dropped, 1_000);
}

#[tokio::test]
async fn the_ports_are_free_after_shutdown_and_the_peer_knows() {
    let (mut a, b) = (start(1, 1), start(2, 1));
    a.connect(&b);
    a.connected().await;
    let Node { net, address } = b;
    assert!(net.tasks.shutdown().await, "all tasks end by themselves");
    assert_eq!(a.disconnected().await, net.node);
    let control = SocketAddr::new(address.ip(), address.port() + 1);
    UdpSocket::bind(address).unwrap();
    UdpSocket::bind(control).unwrap();
    TcpListener::bind(control).unwrap();
}

#[tokio::test]
async fn a_control_port_in_use_is_an_error_that_names_it() {
    let a = start(1, 1);
    let taken = SocketAddr::new(a.address.ip(), a.address.port() + 1);
    // The port before the taken one is `a`'s own, so let go of it and keep a holder of the other.
    let Node { net, address } = a;
    assert!(net.tasks.shutdown().await);
    for hold_tcp in [false, true] {
        let udp = (!hold_tcp).then(|| UdpSocket::bind(taken).unwrap());
        let tcp = hold_tcp.then(|| TcpListener::bind(taken).unwrap());
        let socket = UdpSocket::bind(address).unwrap();
        let error = Net::start(config(1, gatekeeper(1, 1), socket))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&taken.port().to_string()), "{error}");
        drop((udp, tcp));
        let freed = Instant::now();
        while UdpSocket::bind(taken).is_err() {
            assert!(freed.elapsed() < PATIENCE);
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_was_sent_before_a_shutdown_arrives() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    assert!(a.net.control.probe(b.net.node, b.address).await);
    a.send(&b, vec![1; 500_000]);
    a.send(&b, "goodbye");
    let reading = tokio::spawn(async move {
        let lengths = [b.message().await.1.len(), b.message().await.1.len()];
        (lengths, b.disconnected().await)
    });
    assert!(a.net.tasks.shutdown().await);
    let (mut lengths, gone) = reading.await.unwrap();
    lengths.sort_unstable();
    assert_eq!((lengths, gone), ([7, 500_000], a.net.node));
}
