//! The transports and limits of the control plane.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::NodeId;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{self, NetworkBehaviour, Swarm};
use libp2p::{PeerId, mdns, noise, quic, tcp, yamux};
use tokio_util::task::TaskTracker;

use super::gate::Gate;
use super::rpc::{self, RpcBehaviour};
use super::{StartError, identity};
use super::{admission, messages, streams};
use crate::net::counters::Counters;

/// Time for a connection to be ready: handshake and gate.
const SETUP_TIME: Duration = Duration::from_secs(5);

/// Milliseconds of silence after which a QUIC connection is closed: three keep-alives.
const QUIC_IDLE_MS: u32 = 9_000;

/// Time between keep-alive packets on a quiet QUIC connection.
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Bytes in flight on one QUIC stream: 1 MB fills 100 Mbit/s at 80 ms.
const QUIC_STREAM_WINDOW: u32 = 1_000_000;

/// Bytes in flight on one QUIC connection; libp2p's default of 15 MB is what a peer could make this
/// node hold.
const QUIC_CONNECTION_WINDOW: u32 = 2_000_000;

/// Streams that a peer may have open: 64 requests, 16 probes, 32 streams, those of messages, and
/// slack.
const MAX_STREAMS: usize = 128;

/// Connections being accepted, of strangers too: bounds what a flood of them costs.
const MAX_PENDING_INCOMING: u32 = 64;

/// Connections being dialed.
const MAX_PENDING_OUTGOING: u32 = 64;

/// Connections that others have dialed. At some 130 kB each, 33 MB at the very worst.
const MAX_INCOMING: u32 = 256;

/// Connections with one peer: two when both dial at once, and one more when the peer has lost those
/// and dials again.
const MAX_PER_PEER: u32 = 3;

/// Everything that lives on a connection.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    admission: admission::Behaviour,
    pub(super) messages: messages::Behaviour,
    pub(super) rpc: RpcBehaviour,
    pub(super) probe: RpcBehaviour,
    pub(super) streams: streams::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(local: NodeId, with_mdns: bool, counters: Arc<Counters>) -> Self {
        Self {
            limits: connection_limits::Behaviour::new(limits()),
            admission: admission::Behaviour::default(),
            messages: messages::Behaviour::new(local, counters),
            rpc: rpc::rpc_behaviour(),
            probe: rpc::probe_behaviour(),
            streams: streams::Behaviour::new(local),
            mdns: discovery(with_mdns, identity::peer_id(&local)),
        }
    }
}

/// What to accept connections on. Both are dialed always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Listen {
    /// QUIC and TCP.
    Both,
    /// As if a firewall kept QUIC out.
    #[cfg(test)]
    TcpOnly,
}

impl Listen {
    /// Binds the ports at `address`.
    pub(super) fn bind(
        self,
        swarm: &mut Swarm<Behaviour>,
        address: SocketAddr,
    ) -> Result<(), StartError> {
        // UDP first: unlike libp2p's TCP it never shares a port, so a second daemon on the same
        // one gets its error here.
        let (quic, tcp) = (
            identity::quic_address(address),
            identity::tcp_address(address),
        );
        let addresses = match self {
            Self::Both => vec![quic, tcp],
            #[cfg(test)]
            Self::TcpOnly => vec![tcp],
        };
        for address in addresses {
            let listening = swarm.listen_on(address.clone());
            listening.map_err(|source| StartError::Listen {
                address: address.to_string(),
                source: io::Error::other(source),
            })?;
        }
        Ok(())
    }
}

/// Builds the swarm. Every task it spawns is in `tasks`.
pub(super) fn swarm(
    keypair: &Keypair,
    gate: Gate,
    behaviour: Behaviour,
    tasks: TaskTracker,
) -> Result<Swarm<Behaviour>, StartError> {
    let transport = transport(keypair, gate).map_err(StartError::Noise)?;
    let spawn = move |task| drop(tasks.spawn(task));
    let config = swarm::Config::with_executor(spawn)
        // The dialer knows what it wants and the listener speaks it: no round trip to agree.
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        .with_max_negotiating_inbound_streams(MAX_STREAMS)
        // QUIC first; TCP a moment later unless QUIC has answered.
        .with_smart_dial();
    let local = PeerId::from(keypair.public());
    Ok(Swarm::new(transport, behaviour, local, config))
}

fn transport(
    keypair: &Keypair,
    gate: Gate,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let gated = carriers(keypair)?
        .and_then(move |(peer, connection), point| Box::pin(gate.admit(peer, connection, point)));
    Ok(TransportTimeout::new(gated, SETUP_TIME).boxed())
}

/// QUIC and TCP, open to strangers.
pub(super) fn carriers(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut quic = quic::Config::new(keypair);
    quic.handshake_timeout = SETUP_TIME;
    quic.max_idle_timeout = QUIC_IDLE_MS;
    quic.keep_alive_interval = QUIC_KEEP_ALIVE;
    quic.max_concurrent_stream_limit = MAX_STREAMS as u32;
    quic.max_stream_data = QUIC_STREAM_WINDOW;
    quic.max_connection_data = QUIC_CONNECTION_WINDOW;
    let quic = quic::tokio::Transport::new(quic)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));

    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(yamux)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));

    let either = quic.or_transport(tcp);
    Ok(either.map(|connection, _| connection.into_inner()).boxed())
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_pending_outgoing(Some(MAX_PENDING_OUTGOING))
        .with_max_established_incoming(Some(MAX_INCOMING))
        .with_max_established_per_peer(Some(MAX_PER_PEER))
}

/// A network without multicast is no reason not to start: peers are then named by a ticket.
fn discovery(enabled: bool, local: PeerId) -> Toggle<mdns::tokio::Behaviour> {
    let start = || {
        mdns::tokio::Behaviour::new(mdns::Config::default(), local)
            .inspect_err(|error| tracing::warn!(%error, "no discovery on the local network"))
            .ok()
    };
    Toggle::from(enabled.then(start).flatten())
}
