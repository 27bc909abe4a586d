//! Those who do not belong, and members who misbehave.

use super::control::testing::Bare;
use super::*;

async fn assert_stranger_is_refused(mut member: Node, mut stranger: Node) {
    stranger.connect(&member);
    let reason = stranger.unreachable().await;
    assert!(reason.contains("refused by the other side"), "{reason}");
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
async fn a_node_that_answers_under_another_name_is_refused() {
    let (mut a, b) = (start(1, 1), start(2, 1));
    let other = NodeSeed([3; 32]).node();
    a.net.control.connect(other, b.address);
    a.unreachable().await;
    assert!(!a.net.control.probe(other, b.address).await);
}

async fn wait_until(net: &Net, done: impl Fn(CounterValues) -> bool) {
    let started = Instant::now();
    while !done(net.counters.read()) {
        assert!(started.elapsed() < PATIENCE, "{:?}", net.counters.read());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_that_speaks_another_protocol_is_refused() {
    let mut node = start(1, 1);
    let mut bare = Bare::dial([2; 32], node.address).await;
    let _stream = bare.write(&[b'x'; 300]).await;
    wait_until(&node.net, |counters| counters.strangers_refused == 1).await;
    assert!(node.net.events.try_recv().is_err());
}

#[tokio::test]
async fn a_connection_that_never_speaks_is_closed() {
    let mut node = start(1, 1);
    let _silent = Bare::dial([2; 32], node.address).await;
    wait_until(&node.net, |counters| counters.connections_failed == 1).await;
    assert!(node.net.events.try_recv().is_err());
}

#[tokio::test]
async fn one_host_cannot_open_connections_without_end_and_gets_its_turn_again() {
    let (node, friend) = (start(1, 1), start(2, 1));
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(std::net::TcpStream::connect(control_of(&node)).unwrap());
    }
    let refused = std::net::TcpStream::connect(control_of(&node)).unwrap();
    wait_until(&node.net, |counters| counters.connections_failed >= 1).await;
    drop((silent, refused));
    let started = Instant::now();
    while !friend.net.control.probe(node.net.node, node.address).await {
        assert!(started.elapsed() < PATIENCE);
    }
}

fn control_of(node: &Node) -> SocketAddr {
    SocketAddr::new(node.address.ip(), node.address.port() + 1)
}

#[tokio::test]
async fn a_member_that_announces_too_large_a_message_is_cut_off() {
    let mut node = start(1, 1);
    let bare = Bare::dial([2; 32], node.address).await;
    let mut member = bare.prove(gatekeeper(2, 1)).await;
    let from = node.connected().await;
    let hello = [&5u32.to_be_bytes(), b"hello".as_slice()].concat();
    let _first = member.write_messages(&hello).await;
    assert_eq!(node.message().await, (from, "hello".into()));
    let _second = member.write_messages(&u32::MAX.to_be_bytes()).await;
    assert_eq!(node.disconnected().await, from);
    assert_eq!(node.net.counters.read().messages_oversize, 1);
}

#[tokio::test]
async fn a_member_that_opens_too_many_streams_harms_nobody() {
    let (mut node, friend) = (start(1, 1), start(3, 1));
    let bare = Bare::dial([2; 32], node.address).await;
    let mut member = bare.prove(gatekeeper(2, 1)).await;
    let from = node.connected().await;
    // Each stays in the middle of a message.
    let half = [&100u32.to_be_bytes(), b"half".as_slice()].concat();
    let mut streams = Vec::new();
    for _ in 0..100 {
        streams.push(member.write_messages(&half).await);
    }
    assert!(friend.net.control.probe(node.net.node, node.address).await);
    friend.send(&node, "fine");
    assert_eq!(node.message().await, (friend.net.node, "fine".into()));
    drop((streams, member));
    assert_eq!(node.disconnected().await, from);
}
