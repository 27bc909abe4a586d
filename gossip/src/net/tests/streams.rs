//! Streams both ways.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::control::PeerStream;
use super::*;

async fn pair(a: &Node, b: &mut Node) -> (PeerStream, PeerStream) {
    let (control, node, address) = (a.net.control.clone(), b.net.node, b.address);
    let asked = async move { control.open_stream(node, address, PATIENCE).await };
    let asked = tokio::spawn(asked);
    let mut opened = asked.await.unwrap().unwrap();
    // The other side learns of it with the first bytes.
    opened.write_all(b"!").await.unwrap();
    opened.flush().await.unwrap();
    let accept = |event| match event {
        ControlEvent::Stream { from, stream } => Some((from, stream)),
        _ => None,
    };
    let (from, mut accepted) = b.wait(accept).await;
    assert_eq!(from, a.net.node);
    assert_eq!(
        timeout(PATIENCE, accepted.read_u8())
            .await
            .unwrap()
            .unwrap(),
        b'!'
    );
    (opened, accepted)
}

async fn carries_bytes_both_ways(listen: Listen) {
    let (a, mut b) = (start(1, 1), start_with(2, 1, listen));
    let (mut here, mut there) = pair(&a, &mut b).await;
    // More than the window of a stream, so that both sides must read to go on.
    let bytes = vec![7; 5_000_000];
    let sent = bytes.clone();
    let echo = tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(&mut there);
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    });
    let (mut from, mut to) = tokio::io::split(here);
    let write = async {
        to.write_all(&sent).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, read) = timeout(PATIENCE, async {
        tokio::join!(write, from.read_to_end(&mut got))
    })
    .await
    .unwrap();
    read.unwrap();
    assert!(got == bytes, "{} bytes came back", got.len());
    echo.await.unwrap();
    here = from.unsplit(to);
    drop(here);
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_over_quic() {
    carries_bytes_both_ways(Listen::Both).await;
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_over_tcp() {
    carries_bytes_both_ways(Listen::TcpOnly).await;
}

#[tokio::test]
async fn dropping_one_end_ends_the_other() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    let (here, mut there) = pair(&a, &mut b).await;
    drop(here);
    let mut rest = Vec::new();
    // The end of the stream or its reset: both mean that nobody is there.
    let ended = timeout(PATIENCE, there.read_to_end(&mut rest)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn nobody_has_more_streams_than_the_limit() {
    let (a, mut b) = (start(1, 1), start(2, 1));
    let mut held = Vec::new();
    let refused = loop {
        assert!(held.len() < 200, "no limit");
        let control = a.net.control.clone();
        match control.open_stream(b.net.node, b.address, PATIENCE).await {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, RpcError::Unavailable);
    drop(held);
    // Room again, as soon as the other side has noticed.
    let freed = async {
        while let Err(error) = a
            .net
            .control
            .open_stream(b.net.node, b.address, PATIENCE)
            .await
        {
            assert_eq!(error, RpcError::Unavailable);
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, freed).await.unwrap();
    let (_here, _there) = pair(&a, &mut b).await;
}

#[tokio::test]
async fn a_stream_to_nobody_says_why_there_is_none() {
    let a = start(1, 1);
    let nobody = NodeSeed([9; 32]).node();
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let opened = a.net.control.open_stream(nobody, nowhere, PATIENCE).await;
    assert!(
        matches!(opened, Err(RpcError::Unreachable(_))),
        "{opened:?}"
    );
}

/// The reader does not read, so that the writer is held up; then the writer goes. The reader learns
/// of it when it writes itself.
async fn a_writer_that_goes_while_held_up_is_missed(listen: Listen) {
    let (a, mut b) = (start(1, 1), start_with(2, 1, listen));
    let (mut here, mut there) = pair(&a, &mut b).await;
    let chunk = vec![7; 16 * 1024];
    let held_up = Duration::from_millis(300);
    while let Ok(written) = timeout(held_up, here.write_all(&chunk)).await {
        written.unwrap();
    }
    drop(here);
    let told = async {
        while there.write_all(b"?").await.is_ok() && there.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("it is never told");
}

#[tokio::test]
async fn a_held_up_writer_that_goes_is_missed_over_quic() {
    a_writer_that_goes_while_held_up_is_missed(Listen::Both).await;
}

#[tokio::test]
async fn a_held_up_writer_that_goes_is_missed_over_tcp() {
    a_writer_that_goes_while_held_up_is_missed(Listen::TcpOnly).await;
}
