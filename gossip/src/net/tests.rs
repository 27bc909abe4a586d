//! Whole shells on the loopback interface.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::control::Listen;
use super::*;

/// Longer than anything here may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    net: Net,
    address: SocketAddr,
}

fn secret(key: u8) -> ClusterSecret {
    ClusterSecret {
        id: [1; 16],
        key: [key; 32],
        previous_key: None,
    }
}

fn config(seed: u8, key: u8, membership: UdpSocket) -> NetConfig {
    NetConfig {
        seed: NodeSeed([seed; 32]),
        cluster: secret(key),
        membership,
        mdns: false,
    }
}

fn start(seed: u8, key: u8) -> Node {
    start_with(seed, key, Listen::Both)
}

/// Starts a node on a free port whose next is free too.
fn start_with(seed: u8, key: u8, listen: Listen) -> Node {
    for _ in 0..50 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        if let Ok(net) = Net::start_on(config(seed, key, socket), listen) {
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
async fn a_probe_finds_a_peer_that_has_restarted_on_the_same_address() {
    let (a, b) = (start(1, 1), start(2, 1));
    assert!(a.net.control.probe(b.net.node, b.address).await);
    let Node { net, address } = b;
    let node = net.node;
    // Cut off, as by `kill -9`: no goodbye reaches the peer.
    drop(net);
    let again = rebind(address, 2).await;
    assert_eq!(again.net.node, node);
    assert!(a.net.control.probe(node, address).await);
}

/// Starts a node again where one has just been cut off.
async fn rebind(address: SocketAddr, seed: u8) -> Node {
    let started = Instant::now();
    loop {
        let net = UdpSocket::bind(address)
            .map_err(NetError::Socket)
            .and_then(|socket| Net::start(config(seed, 1, socket)));
        match net {
            Ok(net) => return Node { net, address },
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn assert_stranger_is_refused(mut member: Node, mut stranger: Node) {
    stranger.connect(&member);
    let reason = stranger.unreachable().await;
    assert!(reason.contains("does not accept this node"), "{reason}");
    assert!(member.net.counters.read().strangers_refused >= 1);

    member.connect(&stranger);
    member.unreachable().await;
    for node in [&mut member, &mut stranger] {
        while let Ok(event) = node.net.events.try_recv() {
            assert!(!matches!(event, ControlEvent::Connected(_)), "{event:?}");
        }
    }
    assert!(
        !stranger
            .net
            .control
            .probe(member.net.node, member.address)
            .await
    );
}

#[tokio::test]
async fn a_stranger_is_refused() {
    assert_stranger_is_refused(start(1, 1), start(2, 9)).await;
}

#[tokio::test]
async fn a_stranger_is_refused_on_tcp_too() {
    let tcp = |seed, key| start_with(seed, key, Listen::TcpOnly);
    assert_stranger_is_refused(tcp(1, 1), tcp(2, 9)).await;
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
async fn a_node_that_answers_under_another_name_is_refused() {
    let (mut a, b) = (start(1, 1), start(2, 1));
    let other = NodeSeed([3; 32]).node();
    a.net.control.connect(other, b.address);
    a.unreachable().await;
    assert!(!a.net.control.probe(other, b.address).await);
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

/// Stands between two nodes' control ports until it is told to swallow everything.
struct Path {
    /// The membership address that the far node seems to have.
    address: SocketAddr,
    cut: Arc<AtomicBool>,
    _relays: JoinSet<io::Result<()>>,
}

async fn path_to(far: &Node, quic: bool) -> Path {
    let cut = Arc::new(AtomicBool::new(false));
    let control = SocketAddr::new(far.address.ip(), far.address.port() + 1);
    let mut relays = JoinSet::new();
    let port = if quic {
        let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = near.local_addr().unwrap().port();
        relays.spawn(relay_datagrams(near, control, Arc::clone(&cut)));
        port
    } else {
        let near = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = near.local_addr().unwrap().port();
        relays.spawn(relay_stream(near, control, Arc::clone(&cut)));
        port
    };
    Path {
        address: SocketAddr::new(far.address.ip(), port - 1),
        cut,
        _relays: relays,
    }
}

async fn relay_datagrams(
    near: tokio::net::UdpSocket,
    far: SocketAddr,
    cut: Arc<AtomicBool>,
) -> io::Result<()> {
    let far_side = tokio::net::UdpSocket::bind("127.0.0.1:0").await?;
    far_side.connect(far).await?;
    let (mut there, mut back) = ([0; 2_048], [0; 2_048]);
    let mut dialer = None;
    loop {
        tokio::select! {
            Ok((len, from)) = near.recv_from(&mut there) => {
                dialer = Some(from);
                if !cut.load(Ordering::Relaxed) {
                    far_side.send(&there[..len]).await?;
                }
            }
            Ok(len) = far_side.recv(&mut back) => {
                if let Some(dialer) = dialer.filter(|_| !cut.load(Ordering::Relaxed)) {
                    near.send_to(&back[..len], dialer).await?;
                }
            }
        }
    }
}

async fn relay_stream(
    near: tokio::net::TcpListener,
    far: SocketAddr,
    cut: Arc<AtomicBool>,
) -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut near, _) = near.accept().await?;
    let mut far = tokio::net::TcpStream::connect(far).await?;
    let (mut there, mut back) = ([0; 2_048], [0; 2_048]);
    loop {
        let (len, forward) = tokio::select! {
            len = near.read(&mut there) => (len?, true),
            len = far.read(&mut back) => (len?, false),
        };
        match (cut.load(Ordering::Relaxed), forward) {
            (true, _) => {}
            (false, true) => far.write_all(&there[..len]).await?,
            (false, false) => near.write_all(&back[..len]).await?,
        }
    }
}

/// A peer behind a black hole is reported gone, and what is sent to it meanwhile stays bounded.
async fn assert_black_hole_is_noticed(quic: bool) {
    let (mut a, mut b) = (start(1, 1), start(2, 1));
    let path = path_to(&b, quic).await;
    let node = b.net.node;
    a.net.control.connect(node, path.address);
    assert_eq!(a.connected().await, node);
    assert_eq!(b.connected().await, a.net.node);
    path.cut.store(true, Ordering::Relaxed);
    let cut = Instant::now();
    let document = Bytes::from(vec![0; MAX_MESSAGE]);
    for _ in 0..100 {
        a.net.control.send(node, path.address, document.clone());
    }
    assert_eq!(a.disconnected().await, node);
    assert!(
        cut.elapsed() < Duration::from_secs(15),
        "{:?}",
        cut.elapsed()
    );
    assert_eq!(b.disconnected().await, a.net.node);
    assert!(
        cut.elapsed() < Duration::from_secs(15),
        "{:?}",
        cut.elapsed()
    );
    assert!(a.net.counters.read().messages_dropped >= 95);
}

#[tokio::test]
async fn a_black_hole_is_noticed_on_quic() {
    assert_black_hole_is_noticed(true).await;
}

#[tokio::test]
async fn a_black_hole_is_noticed_on_tcp() {
    assert_black_hole_is_noticed(false).await;
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
async fn a_node_that_does_not_read_costs_drops_and_nothing_else() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    let mut accepted = 0;
    let started = Instant::now();
    // Twenty times what all queues and windows between them hold.
    for n in 0..200_000u32 {
        let mut bytes = vec![0; 500];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        a.send(&b, bytes);
        tokio::task::yield_now().await;
    }
    let counted = |net: &Net| {
        let counters = net.counters.read();
        counters.messages_sent + counters.messages_dropped
    };
    while counted(&a.net) < 200_000 {
        assert!(started.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    let counters = a.net.counters.read();
    assert!(counters.messages_dropped > 100_000, "{counters:?}");
    let mut last = None;
    while accepted < counters.messages_sent {
        let (_, bytes) = b.message().await;
        let n = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert!(last < Some(n), "in order");
        last = Some(n);
        accepted += 1;
    }
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
        let error = Net::start(config(1, 1, socket)).unwrap_err().to_string();
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
async fn datagrams_arrive_and_strangers_datagrams_do_not() {
    let (a, mut b, stranger) = (start(1, 1), start(2, 1), start(3, 9));
    stranger.net.datagrams.send(b.address, "intruder".into());
    UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .send_to(b"not even sealed", b.address)
        .unwrap();
    let refused = Instant::now();
    while b.net.counters.read().datagrams_refused < 2 {
        assert!(refused.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    a.net.datagrams.send(b.address, "hello".into());
    let received = timeout(PATIENCE, b.net.received.recv()).await.unwrap();
    let expected = Datagram {
        from: a.address,
        bytes: "hello".into(),
    };
    assert_eq!(received, Some(expected));
}

#[tokio::test]
async fn a_closed_port_does_not_stop_the_membership_socket() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    let closed = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    for _ in 0..20 {
        a.net.datagrams.send(closed, "nobody".into());
        a.net.datagrams.send(b.address, "hello".into());
    }
    for _ in 0..20 {
        let received = timeout(PATIENCE, b.net.received.recv()).await.unwrap();
        assert_eq!(received.unwrap().bytes, "hello");
    }
}

#[tokio::test]
async fn too_long_a_datagram_is_counted_and_not_sent() {
    let (a, b) = (start(1, 1), start(2, 1));
    let long = vec![0; seal::MAX_PLAIN + 1];
    a.net.datagrams.send(b.address, long.into());
    let started = Instant::now();
    while a.net.counters.read().datagrams_unsent == 0 {
        assert!(started.elapsed() < PATIENCE);
        tokio::task::yield_now().await;
    }
    assert_eq!(a.net.counters.read().datagrams_sent, 0);
}
