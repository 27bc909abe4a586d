//! Which replica of this node a connection of this host comes from.
//!
//! Processes share the host's addresses, so the kernel is asked for the client's socket
//! (`sock_diag(7)`), and `/proc` for the process that has it open. That costs a walk over the
//! replicas' processes, and is done only where a replica of this node may not connect to what is
//! asked for. A supervisor adopts what its workload leaves behind, so its descendants are all of
//! the replica.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_state::model::{Networks, Protocol, share_network};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::supervisor::ProcessStamp;
use crate::supervisor::proc;

/// Asks for one socket by its addresses.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Flags of such a request.
const NLM_F_REQUEST: u16 = 1;
/// Bytes of the request, and of the head of an answer.
const REQUEST: usize = 72;
const HEADER: usize = 16;
/// Where an answer has the socket's number: after the header, four bytes of state, the addresses
/// and four numbers.
const INODE: usize = HEADER + 4 + 48 + 16;

/// How long a supervisor may take to be executed, while connections that may be its workload's
/// wait.
const SPAWNING: Duration = Duration::from_secs(5);

/// The replicas of this node that run as processes, by their directories.
#[derive(Debug, Default)]
pub(super) struct Sources {
    all: Mutex<BTreeMap<PathBuf, Source>>,
    /// Told when one that was announced has a supervisor, or will have none.
    settled: Condvar,
}

#[derive(Debug, Clone)]
struct Source {
    /// Absent while it is being executed.
    supervisor: Option<ProcessStamp>,
    networks: Arc<Networks>,
}

impl Source {
    fn reaches(&self, networks: &Networks) -> bool {
        share_network(&self.networks, networks)
    }
}

impl Sources {
    /// Announces an attempt whose supervisor is about to be executed: its workload may be quicker
    /// than what notes it.
    pub(super) fn announce(&self, directory: &Path, networks: &Networks) {
        self.put(directory, None, networks);
    }

    /// Notes the supervisor of an attempt.
    pub(super) fn note(&self, directory: &Path, supervisor: ProcessStamp, networks: &Networks) {
        self.put(directory, Some(supervisor), networks);
        self.settled.notify_all();
    }

    fn put(&self, directory: &Path, supervisor: Option<ProcessStamp>, networks: &Networks) {
        let source = Source {
            supervisor,
            networks: Arc::new(networks.clone()),
        };
        self.lock().insert(directory.to_owned(), source);
    }

    /// An attempt has ended, or was not started.
    pub(super) fn forget(&self, directory: &Path) {
        self.lock().remove(directory);
        self.settled.notify_all();
    }

    /// Whether there is a replica here that may not connect to services in these networks.
    pub(super) fn has_others(&self, networks: &Networks) -> bool {
        self.lock().values().any(|source| !source.reaches(networks))
    }

    /// Those replicas, once all of them can be told.
    fn others(&self, networks: &Networks) -> Vec<(ProcessStamp, Arc<Networks>)> {
        let waits = |all: &mut BTreeMap<PathBuf, Source>| {
            let mut all = all.values();
            all.any(|source| source.supervisor.is_none() && !source.reaches(networks))
        };
        let waited = self
            .settled
            .wait_timeout_while(self.lock(), SPAWNING, waits);
        let (all, _in_time) = waited.unwrap_or_else(PoisonError::into_inner);
        let others = all.values().filter(|source| !source.reaches(networks));
        others
            .filter_map(|s| Some((s.supervisor?, Arc::clone(&s.networks))))
            .filter(|(supervisor, _)| proc::is_same(*supervisor))
            .collect()
    }

    /// The networks of the replica that has opened a connection, if it is one of those that may
    /// not connect to services in `target`. Reads many files.
    pub(super) fn find(
        &self,
        protocol: Protocol,
        (from, to): (SocketAddr, SocketAddr),
        target: &Networks,
    ) -> Option<Arc<Networks>> {
        let others = self.others(target);
        if others.is_empty() {
            return None;
        }
        let name = format!("socket:[{}]", inode(protocol, from, to)?);
        let children = proc::children();
        let mut others = others.into_iter();
        let found = others.find(|(supervisor, _)| {
            let mut family = family(supervisor.pid, &children).into_iter();
            family.any(|pid| has_open(pid, &name))
        });
        found.map(|(_, networks)| networks)
    }

    /// Nothing panics while it holds this.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Source>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process and all its descendants.
fn family(root: i32, children: &BTreeMap<i32, Vec<i32>>) -> BTreeSet<i32> {
    let (mut family, mut open) = (BTreeSet::from([root]), vec![root]);
    while let Some(pid) = open.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if family.insert(*child) {
                open.push(*child);
            }
        }
    }
    family
}

fn has_open(pid: i32, name: &str) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    entries
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target.as_os_str() == name)
}

/// The number of the socket on this host that is at `from` and talks to `to`.
fn inode(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let flags = SocketFlags::CLOEXEC;
    let kind = Some(netlink::SOCK_DIAG);
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, kind).ok()?;
    // The kernel answers before this returns.
    send(&kernel, &request(protocol, from, to)?, SendFlags::empty()).ok()?;
    let mut answer = [0; 512];
    let (length, _) = recv(&kernel, &mut answer[..], RecvFlags::DONTWAIT).ok()?;
    read_inode(answer.get(..length)?)
}

/// A header (`struct nlmsghdr`) and a request (`struct inet_diag_req_v2`).
fn request(protocol: Protocol, from: SocketAddr, to: SocketAddr) -> Option<[u8; REQUEST]> {
    let (number, local, remote) = match protocol {
        Protocol::Tcp => (6, from, to),
        // For UDP the kernel takes them the other way round.
        Protocol::Udp => (17, to, from),
    };
    let family = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => 2,
        (IpAddr::V6(_), IpAddr::V6(_)) => 10,
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let mut bytes = [0; REQUEST];
    let length = u32::try_from(REQUEST).unwrap_or_default();
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    (bytes[16], bytes[17]) = (family, number);
    // All states.
    bytes[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes[24..26].copy_from_slice(&local.port().to_be_bytes());
    bytes[26..28].copy_from_slice(&remote.port().to_be_bytes());
    put(&mut bytes[28..44], local.ip());
    put(&mut bytes[44..60], remote.ip());
    // On any device, and with no cookie to compare.
    bytes[64..72].fill(0xff);
    Some(bytes)
}

fn put(place: &mut [u8], ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(a) => place[..4].copy_from_slice(&a.octets()),
        IpAddr::V6(a) => place.copy_from_slice(&a.octets()),
    }
}

fn read_inode(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let inode = u32::from_ne_bytes(answer.get(INODE..INODE + 4)?.try_into().ok()?);
    (inode != 0).then_some(inode)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn number(fd: i32) -> String {
        let link = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        link.to_str().unwrap().to_owned()
    }

    fn own() -> ProcessStamp {
        proc::stamp(rustix::process::getpid().as_raw_nonzero().get()).unwrap()
    }

    fn back_and_front() -> (Networks, Networks) {
        let networks = |name: &str| Networks::from([name.to_owned()]);
        (networks("shop/back"), networks("shop/front"))
    }

    /// A connection of this process to itself, and its two ends.
    fn connected() -> ((TcpListener, TcpStream), (SocketAddr, SocketAddr)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let pair = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        ((listener, client), pair)
    }

    #[test]
    fn the_kernel_knows_the_socket_of_a_connection() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else {
                assert!(any.starts_with('['), "this host has no IPv4");
                continue;
            };
            let to = listener.local_addr().unwrap();
            let client = TcpStream::connect(to).unwrap();
            let from = client.local_addr().unwrap();
            let found = inode(Protocol::Tcp, from, to).unwrap();
            assert_eq!(format!("socket:[{found}]"), number(client.as_raw_fd()));
            // What talks to nobody's address is nobody's.
            let nobody = SocketAddr::new(to.ip(), 1);
            assert_eq!(inode(Protocol::Tcp, from, nobody), None);
        }
    }

    #[test]
    fn a_socket_that_sends_to_anyone_is_known_too() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        let to = server.local_addr().unwrap();
        client.send_to(b"x", to).unwrap();
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        let found = inode(Protocol::Udp, from, to).unwrap();
        assert_eq!(format!("socket:[{found}]"), number(client.as_raw_fd()));
    }

    #[test]
    fn a_connection_is_that_of_the_replica_whose_process_has_it() {
        let (back, front) = back_and_front();
        let sources = Sources::default();
        let (_connected, pair) = connected();
        assert_eq!(sources.find(Protocol::Tcp, pair, &back), None);
        // This process stands for the supervisor.
        sources.note(Path::new("/a"), own(), &front);
        assert!(sources.has_others(&back) && !sources.has_others(&front));
        let found = sources.find(Protocol::Tcp, pair, &back);
        assert_eq!(found.as_deref(), Some(&front));
        // Of those that may connect, nobody needs to know which it is.
        assert_eq!(sources.find(Protocol::Tcp, pair, &front), None);
        let strange = ProcessStamp { start: 0, ..own() };
        sources.note(Path::new("/a"), strange, &front);
        assert_eq!(sources.find(Protocol::Tcp, pair, &back), None);
        sources.forget(Path::new("/a"));
        assert!(!sources.has_others(&back));
    }

    #[test]
    fn a_connection_that_is_quicker_than_the_note_waits_for_it() {
        let (back, front) = back_and_front();
        let sources = Sources::default();
        let (_connected, pair) = connected();
        sources.announce(Path::new("/a"), &front);
        assert!(sources.has_others(&back));
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| sources.find(Protocol::Tcp, pair, &back));
            sources.note(Path::new("/a"), own(), &front);
            assert_eq!(asked.join().unwrap().as_deref(), Some(&front));
        });
    }

    #[test]
    fn a_family_is_all_descendants_and_a_loop_no_trap() {
        let children = BTreeMap::from([(1, vec![2, 3]), (3, vec![4]), (4, vec![1]), (5, vec![6])]);
        assert_eq!(family(1, &children), BTreeSet::from([1, 2, 3, 4]));
        assert_eq!(family(9, &children), BTreeSet::from([9]));
    }

    #[test]
    fn an_answer_that_is_none_is_no_number() {
        for bad in [&[][..], &[0; 16], &[0; 88], &[255; 20]] {
            assert_eq!(read_inode(bad), None);
        }
    }
}
