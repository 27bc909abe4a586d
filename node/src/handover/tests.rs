use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use dunlin_state::model::VipRange;

use super::*;

fn head() -> Head {
    let range = VipRange::new(Some([10, 93, 0, 0].into()), None);
    Head::new(Duration::from_secs(1), range, true)
}

fn pair() -> (OwnedFd, OwnedFd) {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (a, b) = socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    for end in [&a, &b] {
        patient(end, Duration::from_secs(30)).unwrap();
    }
    (a, b)
}

#[test]
fn sockets_arrive_with_their_names_and_go_on_listening() {
    let (from, to) = pair();
    let listeners: Vec<TcpListener> = (0..150)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let addresses: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap()).collect();
    let named = listeners.into_iter().zip(&addresses);
    let sockets: Sockets = named
        .map(|(listener, address)| (address.to_string(), OwnedFd::from(listener)))
        .collect();
    send_all(&from, &head(), &sockets).unwrap();
    // Who connects before anybody has taken them waits.
    let mut client = TcpStream::connect(addresses[149]).unwrap();
    drop(sockets);
    let (told, mut taken) = receive_all(&to).unwrap();
    assert_eq!((told, taken.len()), (head(), 150));
    let listener = TcpListener::from(taken.remove(&addresses[149].to_string()).unwrap());
    let (mut served, _) = listener.accept().unwrap();
    served.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn another_version_or_garbage_is_refused() {
    for text in [
        &br#"{"version":2,"head":{"hold_ms":1,"v4":null,"v6":null,"has_routes":false},"names":[],"last":true}"#[..],
        br#"{"version":1,"head":{"hold_ms":1,"v4":null,"v6":null,"has_routes":false},"names":["a"],"last":true}"#,
        b"nonsense",
    ] {
        let (from, to) = pair();
        rustix::net::send(&from, text, rustix::net::SendFlags::empty()).unwrap();
        assert!(receive_all(&to).is_err(), "{}", String::from_utf8_lossy(text));
    }
    let (from, to) = pair();
    drop(from);
    assert!(receive_all(&to).is_err());
}

#[test]
fn without_a_holder_there_is_nothing_to_take() {
    let home = tempfile::tempdir().unwrap();
    assert!(take(home.path()).is_empty());
    // A holder that was killed leaves its file.
    let path = home.path().join(SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(take(home.path()).is_empty());
}
