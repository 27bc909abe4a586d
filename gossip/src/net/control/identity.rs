//! Between Dunlin's names and libp2p's: node ids and peer ids, socket addresses and multiaddrs.

use std::net::{IpAddr, SocketAddr};

use dunlin_state::model::NodeId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::behaviour::FromSwarm;
use libp2p::{Multiaddr, PeerId};

/// A libp2p peer id of an ed25519 key is that key after this prefix: the identity multihash (0x00)
/// of 36 bytes, which are the key's protobuf: field 1 (type) = 1 (ed25519), field 2 = 32 bytes.
/// <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>
const ED25519_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The key pair of the ed25519 seed `seed`.
pub(crate) fn keypair(mut seed: [u8; 32]) -> Keypair {
    // The seed's copy is wiped on the way.
    Keypair::ed25519_from_bytes(&mut seed).expect("any 32 bytes are an ed25519 seed")
}

/// The node of a peer; `None` when its key is no ed25519 key.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&ED25519_PREFIX)?;
    Some(NodeId::from_bytes(key.try_into().ok()?))
}

/// The connection that this event ends, and whose it was. One that a limit refuses after its handler
/// was made ends too.
pub(super) fn ended(event: &FromSwarm<'_>) -> Option<(NodeId, ConnectionId)> {
    let (peer, id) = match event {
        FromSwarm::ConnectionClosed(closed) => (Some(closed.peer_id), closed.connection_id),
        FromSwarm::DialFailure(failed) => (failed.peer_id, failed.connection_id),
        FromSwarm::ListenFailure(failed) => (failed.peer_id, failed.connection_id),
        _ => return None,
    };
    Some((node_id(&peer?)?, id))
}

/// The peer of a node. Total: whether the key is a point on the curve shows in the handshake.
pub(crate) fn peer_id(node: &NodeId) -> PeerId {
    let mut bytes = ED25519_PREFIX.to_vec();
    bytes.extend_from_slice(node.as_bytes());
    PeerId::from_bytes(&bytes).expect("36 bytes are an identity multihash")
}

/// Where the control plane of a node listens that has this membership address: the next port.
/// `None` for port 65535, which has no next. An IPv4 address that came through an IPv6 socket
/// becomes IPv4 again, as the transports know it.
pub(crate) fn control_address(membership: SocketAddr) -> Option<SocketAddr> {
    let port = membership.port().checked_add(1)?;
    Some(SocketAddr::new(membership.ip().to_canonical(), port))
}

/// QUIC at a control address.
pub(crate) fn quic_address(control: SocketAddr) -> Multiaddr {
    Multiaddr::from(control.ip())
        .with(Protocol::Udp(control.port()))
        .with(Protocol::QuicV1)
}

/// TCP at a control address.
pub(crate) fn tcp_address(control: SocketAddr) -> Multiaddr {
    Multiaddr::from(control.ip()).with(Protocol::Tcp(control.port()))
}

/// The socket address at the start of a multiaddr, and whether TCP is spoken there.
pub(crate) fn socket_address(address: &Multiaddr) -> Option<(SocketAddr, bool)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Udp(port) => Some((SocketAddr::new(ip, port), false)),
        Protocol::Tcp(port) => Some((SocketAddr::new(ip, port), true)),
        _ => None,
    }
}

/// A multiaddr without the peer id at its end, for a person to read.
pub(crate) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let parts = address.iter();
    parts
        .filter(|part| !matches!(part, Protocol::P2p(_)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_has_the_same_name_in_both_worlds() {
        let keypair = keypair([5; 32]);
        let peer = PeerId::from(keypair.public());
        let key = keypair.public().try_into_ed25519().unwrap().to_bytes();
        assert_eq!(node_id(&peer), Some(NodeId::from_bytes(key)));
        assert_eq!(peer_id(&NodeId::from_bytes(key)), peer);
    }

    #[test]
    fn a_peer_with_another_kind_of_key_is_no_node() {
        let sha256 = [[0x12, 0x20].as_slice(), &[7; 32]].concat();
        assert_eq!(node_id(&PeerId::from_bytes(&sha256).unwrap()), None);
        let secp256k1 = [[0x00, 0x25, 0x08, 0x02, 0x12, 0x21].as_slice(), &[2; 33]].concat();
        assert_eq!(node_id(&PeerId::from_bytes(&secp256k1).unwrap()), None);
    }

    #[test]
    fn the_last_port_has_no_control_port() {
        assert_eq!(control_address("10.0.0.1:65535".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn node_ids_survive_the_round_trip(key: [u8; 32]) {
            let node = NodeId::from_bytes(key);
            prop_assert_eq!(node_id(&peer_id(&node)), Some(node));
        }

        #[test]
        fn addresses_survive_the_round_trip(ip: IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(socket_address(&quic_address(address)), Some((address, false)));
            prop_assert_eq!(socket_address(&tcp_address(address)), Some((address, true)));
        }
    }
}
