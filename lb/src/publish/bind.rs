//! Taking addresses.
//!
//! Linux lets nobody listen on `0.0.0.0:80` and on `10.0.0.1:80` at once, unless both sockets say
//! `SO_REUSEPORT`. This node needs that: a published port is often the same as the port of some
//! service on its virtual address, and the more particular address wins as it should. But with
//! that option, a second daemon on the host would silently share the ports of the first. So it is
//! set only beside a listener of our own, and a [`Guard`] keeps daemons apart.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_ipv6_freebind, set_ipv6_v6only, set_socket_keepalive, set_socket_reuseport,
    set_tcp_keepidle, set_tcp_nodelay,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

use super::Sockets;
use super::plan::Place;

/// Connections that the kernel keeps while all places are taken; what Linux grants at most by
/// default is 4096.
const BACKLOG: u32 = 4_096;

/// Silence after which the kernel asks whether a client is still there. With its default of two
/// hours, clients that vanished would hold their places for as long.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(120);

/// How an address is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Whether an IPv6 listener leaves IPv4 alone.
    pub(super) only_v6: bool,
    /// Whether no device has the address: a route alone makes it the host's. For IPv6 the kernel
    /// wants to be told that this is meant.
    pub(super) virtual_address: bool,
    /// Whether a listener of our own has the same port on another address.
    pub(super) beside: bool,
}

/// Holds the name of an address among the daemons of this host: an abstract Unix socket, which is
/// bound to the network namespace as the address is, and goes with the process. Virtual addresses
/// need none: their range is held as a whole.
#[derive(Debug)]
pub(super) struct Guard {
    socket: OwnedFd,
}

impl Guard {
    /// Takes over that of the daemon before, or makes one.
    pub(super) fn take(place: Place, inherited: &mut Sockets) -> io::Result<Self> {
        let name = format!("dunlin/listen/{}/{}", place.protocol, place.address);
        if let Some(socket) = inherited.remove(&guard_name(place)) {
            return Ok(Self { socket });
        }
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        let holder = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
        bind(&holder, &address)?;
        Ok(Self { socket: holder })
    }

    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }
}

/// The name by which a guard is handed over.
pub(super) fn guard_name(place: Place) -> String {
    format!("guard {} {}", place.protocol, place.address)
}

/// The name by which a listener is handed over. One that differs in how it was made is another.
pub(super) fn listener_name(place: Place, only_v6: bool) -> String {
    let how = if only_v6 { "v6only" } else { "all" };
    format!("listener {} {} {how}", place.protocol, place.address)
}

/// A TCP listener of the daemon before.
pub(super) fn taken_tcp(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = StdTcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// A UDP socket of the daemon before.
pub(super) fn taken_udp(socket: OwnedFd) -> io::Result<UdpSocket> {
    let socket = StdUdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Listens for TCP. The address may be taken again at once after it was closed, though connections
/// of before linger in the kernel. What is set here holds for the connections too.
pub(super) fn tcp(address: SocketAddr, how: How) -> io::Result<TcpListener> {
    let attempt = |shared: bool| -> io::Result<TcpListener> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => {
                let socket = TcpSocket::new_v6()?;
                set_ipv6_v6only(&socket, how.only_v6)?;
                set_ipv6_freebind(&socket, how.virtual_address)?;
                socket
            }
        };
        socket.set_reuseaddr(true)?;
        set_socket_reuseport(&socket, shared)?;
        set_socket_keepalive(&socket, true)?;
        set_tcp_keepidle(&socket, KEEP_ALIVE)?;
        set_tcp_nodelay(&socket, true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        set_socket_reuseport(&listener, true)?;
        Ok(listener)
    };
    twice(how.beside, attempt)
}

/// Receives UDP.
pub(super) fn udp(address: SocketAddr, how: How) -> io::Result<UdpSocket> {
    let attempt = |shared: bool| -> io::Result<UdpSocket> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let fd = socket(family, SocketType::DGRAM, None)?;
        if address.is_ipv6() {
            set_ipv6_v6only(&fd, how.only_v6)?;
            set_ipv6_freebind(&fd, how.virtual_address)?;
        }
        set_socket_reuseport(&fd, shared)?;
        bind(&fd, &address)?;
        set_socket_reuseport(&fd, true)?;
        let socket = StdUdpSocket::from(fd);
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    twice(how.beside, attempt)
}

/// Tries to have the address alone, and beside a listener of our own only if that fails.
fn twice<T>(beside: bool, attempt: impl Fn(bool) -> io::Result<T>) -> io::Result<T> {
    match attempt(false) {
        Err(error) if beside && error.raw_os_error() == Some(Errno::ADDRINUSE.raw_os_error()) => {
            attempt(true)
        }
        other => other,
    }
}
