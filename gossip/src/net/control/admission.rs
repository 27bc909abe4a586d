//! How many connections one address may be opening at once.
//!
//! Until a connection has passed the gate, anybody can have opened it. The limit on all such
//! connections bounds their cost; this one keeps a single host from using up all of it, and so from
//! keeping members out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::behaviour::FromSwarm;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use thiserror::Error;

use super::identity;

/// Connections that one address may be opening at once. Several nodes may share it, behind NAT or
/// in a demo on one host.
const MAX_OPENING: usize = 16;

/// The address is opening too many connections.
#[derive(Debug, Error)]
#[error("{0} is opening more than {MAX_OPENING} connections at once")]
struct TooMany(IpAddr);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Behaviour {
    opening: BTreeMap<ConnectionId, IpAddr>,
}

impl Behaviour {
    fn admit(&mut self, id: ConnectionId, from: IpAddr) -> Result<(), TooMany> {
        let from = site(from);
        let already = self.opening.values().filter(|other| **other == from);
        if already.count() >= MAX_OPENING {
            return Err(TooMany(from));
        }
        self.opening.insert(id, from);
        Ok(())
    }
}

/// One customer: an IPv4 address, or the first 64 bits of an IPv6 one, of which the rest is free to
/// choose.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        match identity::socket_address(remote) {
            Some((from, _)) => self.admit(id, from.ip()).map_err(ConnectionDenied::new),
            None => Ok(()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.opening.remove(&id);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _id: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(failed) = event {
            self.opening.remove(&failed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(
        &mut self,
        _cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn one_address_cannot_keep_the_others_out() {
        let mut behaviour = Behaviour::default();
        let flooder: IpAddr = "10.0.0.1".parse().unwrap();
        for n in 0..MAX_OPENING {
            assert!(behaviour.admit(id(n), flooder).is_ok());
        }
        assert!(behaviour.admit(id(100), flooder).is_err());
        assert!(
            behaviour
                .admit(id(101), "10.0.0.2".parse().unwrap())
                .is_ok()
        );
        behaviour.opening.remove(&id(0));
        assert!(behaviour.admit(id(102), flooder).is_ok());
    }

    #[test]
    fn addresses_of_one_customer_count_together() {
        let same = |a: &str, b: &str| site(a.parse().unwrap()) == site(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }
}
