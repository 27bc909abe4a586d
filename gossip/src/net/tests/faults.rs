//! Peers that vanish, restart, or stop reading.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::control::testing::Bare;
use super::*;

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

/// As a daemon does that was killed: its old connections are not closed, they are not there any more.
/// Nothing but the new one says so before they time out.
#[tokio::test]
async fn a_peer_that_comes_back_is_spoken_to_on_its_new_connection() {
    let mut node = start(1, 1);
    let mut lives = vec![
        Bare::dial([2; 32], node.address)
            .await
            .prove(gatekeeper(2, 1))
            .await,
    ];
    let peer = node.connected().await;
    let started = Instant::now();
    // Connections that follow each other too quickly count as opened at once.
    let event = loop {
        assert!(started.elapsed() < PATIENCE);
        lives.push(
            Bare::dial([2; 32], node.address)
                .await
                .prove(gatekeeper(2, 1))
                .await,
        );
        if let Ok(event) = timeout(Duration::from_secs(2), node.event()).await {
            break event;
        }
    };
    assert!(
        matches!(event, ControlEvent::Disconnected(gone) if gone == peer),
        "{event:?}"
    );
    assert_eq!(node.connected().await, peer);
}

/// Starts a node again where one has just been cut off.
async fn rebind(address: SocketAddr, seed: u8) -> Node {
    let started = Instant::now();
    loop {
        let net = UdpSocket::bind(address)
            .map_err(NetError::Socket)
            .and_then(|socket| Net::start(config(seed, gatekeeper(seed, 1), socket)));
        match net {
            Ok(net) => return Node { net, address },
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        tokio::task::yield_now().await;
    }
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
