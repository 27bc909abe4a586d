//! `whoami` on loopback.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Identity, LIMITS, Limits, bind_address, serve};

/// Longest wait for something that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn variable(name: &str) -> Option<String> {
    let value = match name {
        "DUNLIN_SERVICE" => "hello",
        "DUNLIN_NAMESPACE" => "default",
        "DUNLIN_SLOT" => "2",
        "DUNLIN_NODE" => "n1",
        "DUNLIN_EPOCH" => "7",
        _ => return None,
    };
    Some(value.to_owned())
}

async fn server(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = oneshot::channel::<()>();
    let identity = Identity::of(variable);
    let task = tokio::spawn(serve(listener, identity, limits, async {
        let _ = stopped.await;
    }));
    Server {
        address,
        stop,
        task,
    }
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.expect("connect")
}

/// Everything until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes));
    // A reset also is an end.
    let _ = read.await.expect("the server closes");
    String::from_utf8(bytes).expect("text")
}

async fn exchange(server: &Server, request: &str) -> String {
    let mut stream = connect(server).await;
    stream.write_all(request.as_bytes()).await.expect("write");
    rest(&mut stream).await
}

/// One answer on a connection that stays open.
async fn one(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"}\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut bytes));
        let count = read.await.expect("an answer").expect("read");
        assert_ne!(count, 0, "closed after {}", String::from_utf8_lossy(&bytes));
    }
    String::from_utf8(bytes).expect("text")
}

fn json(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).expect("JSON")
}

#[tokio::test]
async fn says_who_it_is_and_what_was_asked() {
    let server = server(LIMITS).await;
    let request = "POST /a/b?c=d HTTP/1.1\r\nHost: hello\r\nX-One: 1\r\nX-One: 2\r\n\
                   Connection: close\r\nContent-Length: 3\r\n\r\nabc";
    let answer = json(&exchange(&server, request).await);
    assert_eq!(answer["service"], "hello");
    assert_eq!(answer["namespace"], "default");
    assert_eq!(answer["slot"], 2);
    assert_eq!(answer["node"], "n1");
    assert_eq!(answer["epoch"], 7);
    assert_eq!(answer["pid"], std::process::id());
    assert_eq!(answer["request"]["method"], "POST");
    assert_eq!(answer["request"]["path"], "/a/b?c=d");
    assert_eq!(answer["request"]["headers"]["host"], "hello");
    assert_eq!(answer["request"]["headers"]["x-one"], "1, 2");
}

#[tokio::test]
async fn is_healthy_and_keeps_connections() {
    let server = server(LIMITS).await;
    let mut stream = connect(&server).await;
    for _ in 0..3 {
        let answer = one(&mut stream, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(json(&answer)["status"], "ok");
    }
}

#[tokio::test]
async fn refuses_what_is_no_request_or_too_large() {
    let server = server(LIMITS).await;
    let nonsense = exchange(&server, "what?\r\n\r\n").await;
    assert!(nonsense.starts_with("HTTP/1.1 400"), "{nonsense}");
    let big = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    let big = exchange(&server, &big).await;
    assert!(big.is_empty() || big.starts_with("HTTP/1.1 431"), "{big}");
    let lines: String = (0..200).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = exchange(&server, &format!("GET / HTTP/1.1\r\n{lines}\r\n")).await;
    assert!(
        many.is_empty() || many.starts_with("HTTP/1.1 431"),
        "{many}"
    );
    let fine = exchange(&server, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert_eq!(json(&fine)["service"], "hello");
}

#[tokio::test]
async fn a_slow_header_loses_its_connection() {
    let server = server(Limits {
        header_time: Duration::from_millis(50),
        ..LIMITS
    })
    .await;
    let mut slow = connect(&server).await;
    slow.write_all(b"GET / HTTP/1.1\r\nHo")
        .await
        .expect("write");
    let mut idle = connect(&server).await;
    let start = Instant::now();
    assert!(!rest(&mut slow).await.contains("200"));
    assert_eq!(rest(&mut idle).await, "");
    assert!(start.elapsed() < PATIENCE);
}

#[tokio::test]
async fn more_connections_than_places_wait_for_their_turn() {
    let server = server(Limits {
        connections: 1,
        ..LIMITS
    })
    .await;
    let mut first = connect(&server).await;
    one(&mut first, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut second = connect(&server).await;
    let request = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
    second.write_all(request).await.expect("write");
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(50), second.peek(&mut byte)).await;
    assert!(early.is_err(), "there is one place only");
    drop(first);
    assert_eq!(json(&rest(&mut second).await)["service"], "hello");
}

#[tokio::test]
async fn stops_at_once_and_finishes_what_it_has() {
    let server = server(LIMITS).await;
    let mut idle = connect(&server).await;
    one(&mut idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut busy = connect(&server).await;
    busy.write_all(b"GET /last HTTP/1.1\r\n")
        .await
        .expect("write");
    // Both are accepted in order, so an answer on a third one shows that the second is too.
    let mut third = connect(&server).await;
    one(&mut third, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let address = server.address;
    server.stop.send(()).expect("it runs");
    assert_eq!(rest(&mut idle).await, "");
    busy.write_all(b"Host: a\r\n\r\n").await.expect("write");
    rest(&mut busy).await;
    let ended = tokio::time::timeout(PATIENCE, server.task).await;
    ended.expect("it stops in time").expect("it does not panic");
    TcpListener::bind(address)
        .await
        .expect("its port is free again");
}

#[test]
fn listens_where_the_runtime_says() {
    let any: IpAddr = [0, 0, 0, 0].into();
    let told: IpAddr = [127, 0, 1, 2].into();
    let given: IpAddr = [127, 0, 0, 1].into();
    assert_eq!(bind_address(None, None), any);
    assert_eq!(bind_address(None, Some("127.0.1.2")), told);
    assert_eq!(bind_address(None, Some("my-laptop")), any);
    assert_eq!(bind_address(Some(given), Some("127.0.1.2")), given);
}

#[test]
fn a_daemon_services_slot_is_a_node() {
    let of = |name: &str| (name == "DUNLIN_SLOT").then(|| "abcdefghij".to_owned());
    let identity = Identity::of(of);
    assert_eq!(identity.slot, Some("abcdefghij".into()));
    assert_eq!(identity.epoch, None);
}
