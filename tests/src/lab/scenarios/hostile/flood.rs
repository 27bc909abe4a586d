//! Connections without end, and bytes that mean nothing, on every port.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::lab::net::{LabError, inside};

/// Bytes of one datagram: those of a full QUIC packet.
const DATAGRAM: usize = 1_200;

/// Datagrams in a row, before others get their turn.
const BURST: usize = 64;

/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(1);

/// How long one connection, or a write on it, may take.
const IMPATIENCE: Duration = Duration::from_millis(200);

/// How long bytes are pushed at one port: who is refused again and again gets rid of few.
const ENOUGH: Duration = Duration::from_secs(8);

/// Ports of one host.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    pub(super) namespace: String,
    pub(super) udp: Vec<SocketAddr>,
    pub(super) tcp: Vec<SocketAddr>,
    /// Where names are answered: inside of the host.
    pub(super) dns: SocketAddr,
}

/// What was thrown at a host.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Thrown {
    pub(super) bytes: usize,
    pub(super) connections: usize,
}

/// Bytes of no meaning, some of which begin like what is expected there.
fn noise(seed: usize) -> [u8; DATAGRAM] {
    let mut bytes = [0; DATAGRAM];
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    for byte in &mut bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = (state >> 32) as u8;
    }
    match seed % 6 {
        // A sealed datagram, a QUIC packet with a long header (RFC 9000, 17.2), a DNS query, TLS
        // (RFC 8446, 5.1), multistream-select, HTTP.
        0 => bytes[0] = 2,
        1 => bytes[..7].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8, 8]),
        2 => bytes[2..12].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
        3 => bytes[..6].copy_from_slice(&[22, 3, 1, 4, 0xab, 1]),
        4 => bytes[..20].copy_from_slice(b"\x13/multistream/1.0.0\n"),
        _ => bytes[..14].copy_from_slice(b"GET / HTTP/1.1"),
    }
    bytes
}

/// Throws about so many bytes at every port of a host, and opens so many connections to those that
/// take any, which then say nothing. Blocks.
pub(super) fn throw(doors: &Doors, bytes: usize, connections: usize) -> Result<Thrown, LabError> {
    let mut thrown = Thrown::default();
    for door in &doors.udp {
        thrown.bytes += datagrams((Ipv4Addr::UNSPECIFIED, 0).into(), *door, bytes)?;
    }
    for door in &doors.tcp {
        thrown.bytes += stream(*door, bytes);
        thrown.connections += open(*door, connections);
    }
    let dns = doors.dns;
    let (more, opened) = inside(&doors.namespace, move || {
        let from = (IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into();
        let sent = datagrams(from, dns, bytes).map_err(std::io::Error::other)?;
        Ok((sent + stream(dns, bytes), open(dns, connections)))
    })?;
    thrown.bytes += more;
    thrown.connections += opened;
    Ok(thrown)
}

fn datagrams(from: SocketAddr, to: SocketAddr, bytes: usize) -> Result<usize, LabError> {
    let socket = UdpSocket::bind(from).map_err(|e| LabError::new("bind", e))?;
    let (mut sent, began) = (0, Instant::now());
    let mut number = 0;
    while sent < bytes && began.elapsed() < ENOUGH {
        for _ in 0..BURST {
            number += 1;
            // A full buffer here is a full one there.
            let _full = socket.send_to(&noise(number), to);
            sent += DATAGRAM;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(sent)
}

fn connect(to: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, IMPATIENCE).ok()?;
    stream.set_write_timeout(Some(IMPATIENCE)).ok()?;
    Some(stream)
}

/// Bytes over one connection after the other: each is closed by who has had enough.
fn stream(to: SocketAddr, bytes: usize) -> usize {
    let (mut sent, began) = (0, Instant::now());
    let mut number = 0;
    while sent < bytes && began.elapsed() < ENOUGH {
        let Some(mut stream) = connect(to) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        while sent < bytes && began.elapsed() < ENOUGH {
            number += 1;
            match stream.write(&noise(number)) {
                Ok(count) => sent += count,
                Err(_closed) => break,
            }
        }
    }
    sent
}

/// Connections that say nothing, all open at once. As many as there can be.
fn open(to: SocketAddr, connections: usize) -> usize {
    let began = Instant::now();
    let mut open = Vec::with_capacity(connections);
    while open.len() < connections && began.elapsed() < ENOUGH {
        match connect(to) {
            Some(stream) => open.push(stream),
            None => break,
        }
    }
    open.len()
}
