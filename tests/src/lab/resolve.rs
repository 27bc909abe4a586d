//! Asks the daemons of a lab for names, each from its own host.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::net::{LabError, inside};

/// Where every daemon of a lab answers, on its host's own loopback.
pub(super) const SERVER: &str = "127.0.0.1:5300";

/// Where the lab's own resolver answers: on the bridge, so that a host without its cable cannot ask.
pub(super) const OUTSIDE: &str = "10.98.0.254:5399";

/// How long one question may take: the server is on the same host, and others share its CPUs.
const PATIENCE: Duration = Duration::from_secs(2);

/// Codes of answers (RFC 1035, 4.1.1).
const NO_ERROR: u8 = 0;
const NO_SUCH_NAME: u8 = 3;

/// What a server says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It exists, with these IPv4 addresses.
    Addresses(BTreeSet<Ipv4Addr>),
    /// It does not exist.
    NoSuchName,
    /// It could not be answered.
    Trouble,
}

impl Said {
    /// How many addresses it has: none where it does not exist.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Addresses(list) => list.len(),
            Self::NoSuchName | Self::Trouble => 0,
        }
    }

    /// These addresses.
    pub(super) fn these(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Self {
        Self::Addresses(addresses.into_iter().collect())
    }
}

/// A program on a host that asks its daemon.
#[derive(Debug)]
pub(super) struct Asker {
    socket: UdpSocket,
    /// The id of the next question.
    next: Cell<u16>,
}

impl Asker {
    /// A socket in that namespace.
    pub(super) fn new(namespace: &str) -> Result<Self, LabError> {
        let socket = inside(namespace, || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            let server: SocketAddr = SERVER.parse().map_err(std::io::Error::other)?;
            socket.connect(server)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })?;
        Ok(Self {
            socket,
            next: Cell::new(0),
        })
    }

    /// Asks for the IPv4 addresses of a name, again when nothing comes.
    pub(super) fn ask(&self, name: &str) -> Said {
        let tries = (0..3).map(|_| self.ask_once(name));
        let said = tries.into_iter().find(|said| *said != Said::Trouble);
        said.unwrap_or(Said::Trouble)
    }

    /// Asks once.
    pub(super) fn ask_once(&self, name: &str) -> Said {
        let question = question(name);
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        let header = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let query = [&id.to_be_bytes()[..], &header, &question].concat();
        let start = Instant::now();
        // A server that is not there says so by an error.
        if self.socket.send(&query).is_err() {
            return Said::Trouble;
        }
        let mut reply = [0; 2_048];
        while start.elapsed() < PATIENCE {
            let Ok(length) = self.socket.recv(&mut reply) else {
                return Said::Trouble;
            };
            // Late answers to earlier questions are passed over.
            if let Some(said) = read(reply.get(..length).unwrap_or_default(), id, &question) {
                return said;
            }
        }
        Said::Trouble
    }
}

fn question(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Reads an answer whose records all have compressed owners, as the daemons write them.
fn read(reply: &[u8], id: u16, question: &[u8]) -> Option<Said> {
    let header = reply.get(..12)?;
    if header[..2] != id.to_be_bytes() || reply.get(12..12 + question.len())? != question {
        return None;
    }
    match header[3] & 0xf {
        NO_ERROR => {}
        NO_SUCH_NAME => return Some(Said::NoSuchName),
        _other => return Some(Said::Trouble),
    }
    let count = usize::from(u16::from_be_bytes([header[6], header[7]]));
    let records = reply
        .get(12 + question.len()..)?
        .chunks_exact(16)
        .take(count);
    let address = |record: &[u8]| <[u8; 4]>::try_from(&record[12..]).ok().map(Ipv4Addr::from);
    Some(Said::these(records.filter_map(address)))
}

/// A resolver in the lab's own namespace that knows one address for every name.
#[derive(Debug)]
pub(super) struct Outside {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Outside {
    /// The address it gives.
    pub(super) const GIVES: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

    /// Answers until it is dropped.
    pub(super) fn start() -> Result<Self, LabError> {
        let trouble = |e: std::io::Error| LabError::new("start a resolver", e);
        let served = UdpSocket::bind(OUTSIDE).map_err(trouble)?;
        let looks = Duration::from_millis(200);
        served.set_read_timeout(Some(looks)).map_err(trouble)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut query = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = served.recv_from(&mut query)
                    && let Some(reply) = reply(query.get(..length).unwrap_or_default())
                {
                    // Whoever asked asks again.
                    let _lost = served.send_to(&reply, from);
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn reply(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(query[end]);
    }
    let mut reply = query.get(..end + 5)?.to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    // A lifetime of nothing: each question comes here.
    reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
    reply.extend_from_slice(&Outside::GIVES.octets());
    Some(reply)
}
