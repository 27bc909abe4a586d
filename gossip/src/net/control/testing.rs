//! A bare connection to a node, for tests that misbehave.

use std::net::SocketAddr;
use std::sync::Arc;

use futures::{AsyncWriteExt, future};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{Boxed, DialOpts, PortUse};
use libp2p::core::{ConnectedPoint, Endpoint, Transport};

use super::gate::Gate;
use super::{identity, transport};
use crate::net::trust::Trust;
use dunlin_trust::Gatekeeper;

/// A QUIC connection without a swarm.
pub(in crate::net) struct Bare {
    peer: PeerId,
    connection: StreamMuxerBox,
    point: ConnectedPoint,
    /// Owns the socket.
    _transport: Boxed<(PeerId, StreamMuxerBox)>,
}

impl Bare {
    /// Connects as the node of `seed`, and does not speak.
    pub(in crate::net) async fn dial(seed: [u8; 32], membership: SocketAddr) -> Self {
        let keypair = identity::keypair(seed);
        let mut transport = transport::carriers(&keypair).unwrap();
        let address = identity::quic_address(identity::control_address(membership).unwrap());
        let (role, port_use) = (Endpoint::Dialer, PortUse::New);
        let dial = transport.dial(address.clone(), DialOpts { role, port_use });
        let (peer, connection) = dial.unwrap().await.unwrap();
        let point = ConnectedPoint::Dialer {
            address,
            role_override: role,
            port_use,
        };
        Self {
            peer,
            connection,
            point,
            _transport: transport,
        }
    }

    /// Passes the gate.
    pub(in crate::net) async fn prove(self, gatekeeper: Gatekeeper) -> Self {
        let gate = Gate::new(Trust::new(gatekeeper).0, Arc::default());
        let admitted = gate.admit(self.peer, self.connection, self.point.clone());
        let (peer, connection) = admitted.await.unwrap();
        Self {
            peer,
            connection,
            ..self
        }
    }

    /// Opens a stream and writes these bytes.
    pub(in crate::net) async fn write(&mut self, bytes: &[u8]) -> SubstreamBox {
        let open = future::poll_fn(|cx| self.connection.poll_outbound_unpin(cx));
        let mut stream = open.await.unwrap();
        // Fails when the other side has had enough.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        stream
    }

    /// Opens a stream of messages and writes these bytes.
    pub(in crate::net) async fn write_messages(&mut self, bytes: &[u8]) -> SubstreamBox {
        // multistream-select: each line with its length before it.
        let mut wire = b"\x13/multistream/1.0.0\n\x12/dunlin/control/1\n".to_vec();
        wire.extend_from_slice(bytes);
        self.write(&wire).await
    }
}
