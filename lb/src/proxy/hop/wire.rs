//! What is said at the beginning of a stream between two nodes.
//!
//! | bytes | meaning |
//! |---|---|
//! | 2 | length of the rest, big-endian, at most [`MAX_REQUEST`] |
//! | 1 | version, 1 |
//! | 1 | 0: the stream carries a TCP connection, 1: it stands for a UDP session |
//! | 1 + n | namespace and name of the service, as text |
//! | 5 or 33 | slot: 0 and its number, or 1 and the node |
//! | 8 | epoch of the claim |
//! | 2 | the port, as the specification calls it |
//! | 7 or 19 | the client's address: 4 or 6, the address, the port |
//! | 7 or 19 | the address that it connected to |
//!
//! The answer is one byte, an [`Answer`]. After [`Answer::Ready`] come the bytes of the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dunlin_state::model::{NodeId, Protocol, ServiceKey, Slot};
use thiserror::Error;

/// The longest request: the longest name (127 bytes), the longest slot and two IPv6 addresses.
pub(super) const MAX_REQUEST: usize = 2 + 1 + 127 + 33 + 8 + 2 + 19 + 19;

const VERSION: u8 = 1;

/// Which replica a stream is for, and on whose behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) protocol: Protocol,
    pub(super) service: ServiceKey,
    pub(super) slot: Slot,
    pub(super) epoch: u64,
    pub(super) target: u16,
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The replica has taken the connection.
    Ready,
    /// No such replica is ready there.
    Gone,
    /// It did not take the connection.
    Refused,
    /// The node has as many connections as it may have.
    Busy,
    /// The node is stopping.
    Stopping,
}

/// A request or an answer that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Malformed {
    /// From a newer version.
    #[error("it is of version {0}; upgrade the older node")]
    Version(u8),
    /// Anything else.
    #[error("it cannot be read")]
    Garbled,
}

impl Answer {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Ready => 0,
            Self::Gone => 1,
            Self::Refused => 2,
            Self::Busy => 3,
            Self::Stopping => 4,
        }
    }

    pub(super) fn read(byte: u8) -> Option<Self> {
        let all = [
            Self::Ready,
            Self::Gone,
            Self::Refused,
            Self::Busy,
            Self::Stopping,
        ];
        all.into_iter().find(|a| a.byte() == byte)
    }
}

impl Request {
    /// As sent, with its length.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, 0, VERSION, u8::from(self.protocol == Protocol::Udp)];
        let service = self.service.to_string();
        // A service's name has two labels of at most 63 bytes.
        out.push(u8::try_from(service.len()).unwrap_or(0));
        out.extend_from_slice(service.as_bytes());
        match self.slot {
            Slot::Replica(number) => {
                out.push(0);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Slot::Node(node) => {
                out.push(1);
                out.extend_from_slice(node.as_bytes());
            }
        }
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.target.to_be_bytes());
        put_address(&mut out, self.client);
        put_address(&mut out, self.server);
        let length = u16::try_from(out.len() - 2).unwrap_or(u16::MAX);
        out[..2].copy_from_slice(&length.to_be_bytes());
        out
    }

    /// Reads what follows the length.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        match reader.byte() {
            Some(VERSION) => {}
            Some(other) => return Err(Malformed::Version(other)),
            None => return Err(Malformed::Garbled),
        }
        reader.request().ok_or(Malformed::Garbled)
    }
}

fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(a) => {
            out.push(4);
            out.extend_from_slice(&a.octets());
        }
        IpAddr::V6(a) => {
            out.push(6);
            out.extend_from_slice(&a.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn request(&mut self) -> Option<Request> {
        let protocol = match self.byte()? {
            0 => Protocol::Tcp,
            1 => Protocol::Udp,
            _other => return None,
        };
        let length = usize::from(self.byte()?);
        // Both parts are written out: a request has one form only, whatever people may leave out.
        let service = std::str::from_utf8(self.take(length)?).ok()?;
        let (namespace, name) = service.split_once('/')?;
        let service = ServiceKey::new(namespace, name).ok()?;
        let slot = match self.byte()? {
            0 => Slot::Replica(u32::from_be_bytes(self.array()?)),
            1 => Slot::Node(NodeId::from_bytes(self.array()?)),
            _other => return None,
        };
        let request = Request {
            protocol,
            service,
            slot,
            epoch: u64::from_be_bytes(self.array()?),
            target: u16::from_be_bytes(self.array()?),
            client: self.address()?,
            server: self.address()?,
        };
        self.0.is_empty().then_some(request)
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.byte()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _other => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.array()?)))
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = SocketAddr> {
        let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from);
        let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from);
        prop_oneof![v4, v6]
    }

    fn request() -> impl Strategy<Value = Request> {
        let slot = prop_oneof![
            any::<u32>().prop_map(Slot::Replica),
            any::<[u8; 32]>().prop_map(|b| Slot::Node(NodeId::from_bytes(b))),
        ];
        let name = "[a-z][a-z0-9]{0,62}";
        (
            name,
            name,
            slot,
            any::<(bool, u64, u16)>(),
            address(),
            address(),
        )
            .prop_map(
                |(namespace, name, slot, (udp, epoch, target), client, server)| Request {
                    protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                    service: ServiceKey::new(&namespace, &name).unwrap(),
                    slot,
                    epoch,
                    target,
                    client,
                    server,
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(request in request()) {
            let bytes = request.encode();
            let (length, rest) = bytes.split_at(2);
            prop_assert_eq!(usize::from(u16::from_be_bytes(length.try_into().unwrap())), rest.len());
            prop_assert!(rest.len() <= MAX_REQUEST);
            prop_assert_eq!(Request::decode(rest), Ok(request));
        }

        #[test]
        fn what_is_cut_or_changed_is_refused_or_another_request(
            request in request(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let bytes = request.encode();
            let cut = at.index(bytes.len() - 2);
            prop_assert!(Request::decode(&bytes[2..2 + cut]).is_err());
            let mut changed = bytes[2..].to_vec();
            changed[cut] ^= byte;
            if let Ok(other) = Request::decode(&changed) {
                prop_assert_eq!(&other.encode()[2..], &changed[..]);
            }
        }

        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _refused = Request::decode(&bytes);
        }
    }

    #[test]
    fn a_service_without_its_namespace_is_refused() {
        let request = Request {
            protocol: Protocol::Tcp,
            service: "default/web".parse().unwrap(),
            slot: Slot::Replica(0),
            epoch: 1,
            target: 80,
            client: SocketAddr::from(([192, 0, 2, 1], 4_000)),
            server: SocketAddr::from(([192, 0, 2, 2], 80)),
        };
        let mut bytes = request.encode().split_off(2);
        assert_eq!(Request::decode(&bytes), Ok(request));
        let slash = bytes.iter().position(|b| *b == b'/').unwrap();
        bytes[slash] = b'o';
        assert_eq!(Request::decode(&bytes), Err(Malformed::Garbled));
    }

    #[test]
    fn answers_are_told_apart_and_versions_named() {
        for byte in 0..=255 {
            assert!(Answer::read(byte).is_none_or(|a| a.byte() == byte));
        }
        assert_eq!(Request::decode(&[9, 0]), Err(Malformed::Version(9)));
    }
}
