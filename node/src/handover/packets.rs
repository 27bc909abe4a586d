//! Packets with sockets and their names, over Unix sockets that keep packets apart.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use dunlin_lb::publish::Sockets;
use dunlin_state::model::VipRange;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use serde::{Deserialize, Serialize};

/// The version of these packets. A daemon that meets another one begins without sockets.
const VERSION: u32 = 1;

/// Sockets in one packet; the kernel allows 253.
const PER_PACKET: usize = 64;

/// Bytes of a packet: names have at most a hundred each.
const MAX_PACKET: usize = 32 * 1024;

/// Packets that are read: four times as many as listeners need.
const MAX_PACKETS: usize = 2_048;

/// What the holder has to know besides the sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Milliseconds for which they are held after the daemon has ended.
    pub(super) hold_ms: u64,
    /// The range of virtual addresses.
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    /// Whether there are routes for them.
    pub(super) has_routes: bool,
}

/// The text of a packet; its sockets come beside it.
#[derive(Debug, Serialize, Deserialize)]
struct Packet {
    version: u32,
    head: Head,
    /// Of the sockets in this packet, in their order.
    names: Vec<String>,
    /// Whether it is the last one.
    last: bool,
}

impl Head {
    pub(super) fn new(hold: Duration, range: VipRange, has_routes: bool) -> Self {
        Self {
            hold_ms: u64::try_from(hold.as_millis()).unwrap_or(u64::MAX),
            v4: range.v4(),
            v6: range.v6(),
            has_routes,
        }
    }

    pub(super) fn range(&self) -> VipRange {
        VipRange::new(self.v4, self.v6)
    }
}

/// Waits at most so long for each packet.
pub(super) fn patient(socket: &OwnedFd, limit: Duration) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(limit))?;
    set_socket_timeout(socket, Timeout::Send, Some(limit))?;
    Ok(())
}

/// Sends all of them.
pub(super) fn send_all(to: &OwnedFd, head: &Head, sockets: &Sockets) -> io::Result<()> {
    let all: Vec<(&String, &OwnedFd)> = sockets.iter().collect();
    let mut chunks = all.chunks(PER_PACKET).peekable();
    while let Some(chunk) = chunks.next() {
        let packet = Packet {
            version: VERSION,
            head: head.clone(),
            names: chunk.iter().map(|(name, _)| (*name).clone()).collect(),
            last: chunks.peek().is_none(),
        };
        let fds: Vec<BorrowedFd<'_>> = chunk.iter().map(|(_, fd)| fd.as_fd()).collect();
        let text = serde_json::to_vec(&packet).map_err(io::Error::other)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_PACKET))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !beside.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("too many sockets for a packet"));
        }
        sendmsg(to, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives all of them.
pub(super) fn receive_all(from: &OwnedFd) -> io::Result<(Head, Sockets)> {
    let mut sockets = BTreeMap::new();
    for _ in 0..MAX_PACKETS {
        let (text, fds) = receive(from)?;
        let packet: Packet = serde_json::from_slice(&text).map_err(|_other| strange())?;
        if packet.version != VERSION || packet.names.len() != fds.len() {
            return Err(strange());
        }
        sockets.extend(packet.names.into_iter().zip(fds));
        if packet.last {
            return Ok((packet.head, sockets));
        }
    }
    Err(strange())
}

fn strange() -> io::Error {
    io::Error::other("what was sent is of another version of this program")
}

/// Receives one packet. The end of the other side is an error.
pub(super) fn receive(from: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PER_PACKET))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut text)];
    let received = recvmsg(from, &mut slices, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = message {
            fds.extend(sockets);
        }
    }
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    text.truncate(received.bytes);
    Ok((text, fds))
}

/// Says that everything has arrived.
pub(super) fn acknowledge(to: &OwnedFd) -> io::Result<()> {
    send(to, b"taken", SendFlags::NOSIGNAL)?;
    Ok(())
}
