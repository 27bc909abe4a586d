//! Queries over UDP, many with one system call when many come.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::net::addr::SocketAddrArg as _;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::debug;

use super::current::{Answer, Current};
use super::door::{Door, Welcome};
use crate::forward::Back;
use crate::respond::refuse;
use crate::wire::{MAX_UDP, Transport};

/// Room for what one receive gives: the kernel may hand over many datagrams of one client in one
/// piece, as long as they fit into the largest datagram.
const RECEIVE: usize = 65_535;

/// Bytes of queries that may wait in the kernel, which counts almost a kilobyte for each: what comes
/// in the tens of milliseconds for which a busy host may not run this task.
const WAITING: usize = 2 << 20;

/// Most bytes of answers that go through the stack in one piece: the largest datagram without its
/// headers.
const MAX_PIECE: usize = 65_507;

/// Largest query in bytes. A question is 271 bytes at most, EDNS options add little.
const MAX_QUERY: usize = MAX_UDP as usize;

/// A UDP socket that fails so often in a row is broken, and the server ends.
const MAX_FAILURES: u32 = 100;

/// A socket for datagrams that knows which of the host's addresses a query came to, and answers
/// from that one: a client takes an answer from another address for a forgery.
pub(crate) struct Datagrams {
    socket: UdpSocket,
    state: UdpSocketState,
    /// Whether it listens on every address, so that the one to answer from must be given.
    everywhere: bool,
}

impl Datagrams {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let everywhere = socket.local_addr()?.ip().is_unspecified();
        // Beyond the system's limit only with the right to; without it there is what the limit
        // allows, and a flood loses queries earlier.
        if sockopt::set_socket_recv_buffer_size_force(&socket, WAITING).is_err() {
            let _less = sockopt::set_socket_recv_buffer_size(&socket, WAITING);
        }
        Ok(Self {
            socket,
            state,
            everywhere,
        })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    async fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        from: &mut [RecvMeta],
    ) -> io::Result<usize> {
        let receive = || {
            self.state
                .recv(UdpSockRef::from(&self.socket), buffers, from)
        };
        self.socket.async_io(Interest::READABLE, receive).await
    }

    /// Sends one answer. What cannot be sent at once is lost, as datagrams may be: the client asks
    /// again.
    pub(crate) fn send_one(&self, reply: &[u8], client: SocketAddr, local: Option<IpAddr>) {
        let transmit = Transmit {
            destination: client,
            ecn: None,
            contents: reply,
            segment_size: None,
            src_ip: local.filter(|_| self.everywhere),
        };
        let send = || {
            self.state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
        };
        if let Err(error) = self.socket.try_io(Interest::WRITABLE, send) {
            debug!(%error, %client, "a DNS answer could not be sent");
        }
    }

    /// Sends answers. Those of one length to one client go through the network stack in one piece
    /// and are cut apart behind it; most of an answer's cost is that way. The others go with one
    /// system call.
    fn send(&self, replies: &mut Replies) {
        let Replies { all, used, piece } = replies;
        let all = all.get_mut(..std::mem::take(used)).unwrap_or_default();
        let most = self.state.max_gso_segments();
        for at in 0..all.len() {
            let (before, after) = all.split_at_mut(at + 1);
            let Some(first) = before.last_mut().filter(|first| !first.sent) else {
                continue;
            };
            let others = after
                .iter_mut()
                .filter(|other| !other.sent && other.goes_with(first));
            piece.clear();
            let mut count = 1;
            for other in others {
                if count == 1 {
                    piece.extend_from_slice(&first.bytes);
                }
                if count == most || piece.len() + other.bytes.len() > MAX_PIECE {
                    break;
                }
                piece.extend_from_slice(&other.bytes);
                other.sent = true;
                count += 1;
            }
            if count > 1 {
                first.sent = true;
                self.send_piece(piece, first);
            }
        }
        self.send_apart(all);
    }

    /// Sends answers of one length that stand in one piece.
    fn send_piece(&self, piece: &[u8], first: &Reply) {
        let transmit = Transmit {
            destination: first.client,
            ecn: None,
            contents: piece,
            segment_size: Some(first.bytes.len()),
            src_ip: first.local.filter(|_| self.everywhere),
        };
        let send = || {
            self.state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
        };
        if let Err(error) = self.socket.try_io(Interest::WRITABLE, send) {
            debug!(%error, "DNS answers are sent one by one");
            for bytes in piece.chunks(first.bytes.len()) {
                self.send_one(bytes, first.client, first.local);
            }
        }
    }

    /// Sends the answers that no other goes with.
    fn send_apart(&self, all: &[Reply]) {
        let rest = || all.iter().filter(|reply| !reply.sent);
        if self.everywhere || rest().nth(1).is_none() {
            for reply in rest() {
                self.send_one(&reply.bytes, reply.client, reply.local);
            }
            return;
        }
        let addresses: Vec<_> = rest().map(|r| r.client.as_any()).collect();
        let slices: Vec<_> = rest().map(|r| [IoSlice::new(&r.bytes)]).collect();
        let mut controls: Vec<_> = rest().map(|_| SendAncillaryBuffer::default()).collect();
        let parts = addresses.iter().zip(&slices).zip(&mut controls);
        let mut messages: Vec<MMsgHdr<'_>> = parts
            .map(|((address, slice), control)| MMsgHdr::new_with_addr(address, slice, control))
            .collect();
        let mut rest = &mut messages[..];
        while !rest.is_empty() {
            let send = || {
                Ok(rustix::net::sendmmsg(
                    &self.socket,
                    rest,
                    SendFlags::empty(),
                )?)
            };
            // An error is about the first message that is left.
            let sent = self.socket.try_io(Interest::WRITABLE, send).unwrap_or(1);
            let sent = sent.clamp(1, rest.len());
            rest = &mut rest[sent..];
        }
    }
}

/// An answer to be sent.
#[derive(Debug)]
struct Reply {
    bytes: Vec<u8>,
    client: SocketAddr,
    local: Option<IpAddr>,
    sent: bool,
}

impl Reply {
    /// Whether both are of one length and go the same way.
    fn goes_with(&self, other: &Self) -> bool {
        self.bytes.len() == other.bytes.len()
            && self.client.port() == other.client.port()
            && self.client == other.client
            && self.local == other.local
    }
}

/// Answers that wait to be sent together. Their memory is used again.
#[derive(Debug)]
struct Replies {
    all: Vec<Reply>,
    used: usize,
    piece: Vec<u8>,
}

impl Replies {
    fn new() -> Self {
        let reply = || Reply {
            bytes: Vec::with_capacity(MAX_UDP.into()),
            client: SocketAddr::from(([0, 0, 0, 0], 0)),
            local: None,
            sent: false,
        };
        Self {
            all: std::iter::repeat_with(reply).take(BATCH_SIZE).collect(),
            used: 0,
            piece: Vec::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.used == self.all.len()
    }

    /// The next free one.
    fn next(&mut self) -> Option<&mut Reply> {
        self.all.get_mut(self.used)
    }

    fn keep(&mut self) {
        self.used += 1;
    }
}

/// Serves until the socket fails.
pub(super) async fn serve(
    socket: Arc<Datagrams>,
    mut door: Door,
    mut current: Current,
) -> io::Result<()> {
    // Zeroed memory costs nothing until it is used, and few bytes of each piece are.
    let mut memory = vec![0; BATCH_SIZE * RECEIVE];
    let mut from = vec![RecvMeta::default(); BATCH_SIZE];
    let mut replies = Replies::new();
    let mut failures = 0;
    loop {
        let received = {
            let mut buffers: Vec<_> = memory.chunks_mut(RECEIVE).map(IoSliceMut::new).collect();
            socket.receive(&mut buffers, &mut from).await
        };
        let count = match received {
            Ok(count) => count,
            Err(error) if failures >= MAX_FAILURES => return Err(error),
            Err(error) => {
                failures += 1;
                debug!(%error, "no DNS query could be received");
                continue;
            }
        };
        failures = 0;
        let now = Instant::now();
        for (meta, piece) in from.iter().zip(memory.chunks(RECEIVE)).take(count) {
            let datagrams = piece.get(..meta.len).unwrap_or_default();
            for packet in datagrams.chunks(meta.stride.max(1)) {
                if replies.is_full() {
                    socket.send(&mut replies);
                }
                let packet = packet.get(..MAX_QUERY).unwrap_or(packet);
                if let Some(reply) = replies.next()
                    && answer(
                        &socket,
                        &mut door,
                        &mut current,
                        packet,
                        meta,
                        now,
                        &mut reply.bytes,
                    )
                {
                    reply.client = meta.addr;
                    reply.local = meta.dst_ip;
                    reply.sent = false;
                    replies.keep();
                }
            }
        }
        socket.send(&mut replies);
    }
}

/// Answers one packet; false when there is nothing to send now.
fn answer(
    socket: &Arc<Datagrams>,
    door: &mut Door,
    current: &mut Current,
    packet: &[u8],
    meta: &RecvMeta,
    now: Instant,
    reply: &mut Vec<u8>,
) -> bool {
    match door.meet(meta.addr, now) {
        Welcome::Ignored => return false,
        Welcome::Refused => return refuse(packet, reply),
        Welcome::Served => {}
    }
    let asked = match current.answer(packet, Transport::Udp, now, reply) {
        Answer::None => return false,
        Answer::Ready => return true,
        Answer::Ask(asked) => asked,
    };
    let back = Back::Datagram {
        socket: socket.clone(),
        client: meta.addr,
        local: meta.dst_ip,
    };
    let ip = meta.addr.ip().to_canonical();
    if current.forwarder().is_some_and(|f| f.ask(&asked, ip, back)) {
        return false;
    }
    current.fail(&asked, reply);
    true
}
