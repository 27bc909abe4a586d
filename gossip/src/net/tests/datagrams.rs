//! The membership socket.

use super::*;

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
        sender: a.net.node,
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
