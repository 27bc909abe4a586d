//! The task that owns the swarm: one select, one short method per branch, no policy, no waiting.

mod requests;

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::NodeId;
use futures::StreamExt;
use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, Swarm, SwarmEvent};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::requests::Requests;
use super::gate::Gate;
use super::messages::MessagesEvent;
use super::peers::{Opener, Peers, Route, Waiting};
use super::seldom::Seldom;
use super::transport::{self, Behaviour, BehaviourEvent, Listen};
use super::{COMMANDS, Command, Control, ControlEvent, EVENTS, RpcError, StartError, identity};
use crate::net::counters::Counters;
use crate::net::trust::Trust;

pub(super) use self::requests::Request;

/// Events that could not be handed over yet; at as many the swarm is left alone.
const OUTBOX: usize = 256;

/// Time between looks for idle connections.
const SWEEP: Duration = Duration::from_secs(5);

/// Time for the last messages to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Time for peers to be told that this node closes its connections.
const FAREWELL: Duration = Duration::from_millis(500);

/// Time for the ports to be free after that.
const RELEASE: Duration = Duration::from_millis(1_500);

/// See the module.
pub(in crate::net) struct ControlTask {
    swarm: Swarm<Behaviour>,
    tasks: TaskTracker,
    listen: SocketAddr,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<ControlEvent>,
    outbox: VecDeque<ControlEvent>,
    peers: Peers,
    requests: Requests,
    counters: Arc<Counters>,
    warnings: Seldom,
}

impl ControlTask {
    /// Binds the ports after `membership` and is ready to run.
    pub(in crate::net) fn new(
        seed: [u8; 32],
        trust: Trust,
        membership: SocketAddr,
        transports: Listen,
        mdns: bool,
        counters: Arc<Counters>,
    ) -> Result<(Self, NodeId, Control, mpsc::Receiver<ControlEvent>), StartError> {
        let listen =
            identity::control_address(membership).ok_or(StartError::NoPort(membership.port()))?;
        let keypair = identity::keypair(seed);
        let node = super::node_of(seed);
        let gate = Gate::new(trust, Arc::clone(&counters));
        let tasks = TaskTracker::new();
        let behaviour = Behaviour::new(node, mdns, Arc::clone(&counters));
        let mut swarm = transport::swarm(&keypair, gate, behaviour, tasks.clone())?;
        transports.bind(&mut swarm, listen)?;
        let (command_sender, commands) = mpsc::channel(COMMANDS);
        let (events, event_receiver) = mpsc::channel(EVENTS);
        let control = Control {
            commands: command_sender,
            counters: Arc::clone(&counters),
        };
        let task = Self {
            swarm,
            tasks,
            listen,
            commands,
            events,
            outbox: VecDeque::new(),
            peers: Peers::new(node),
            requests: Requests::default(),
            counters,
            warnings: Seldom::default(),
        };
        Ok((task, node, control, event_receiver))
    }

    /// Runs until `stop`, or until nobody reads events any more; then closes all connections and
    /// waits until the ports are free.
    pub(in crate::net) async fn run(mut self, stop: CancellationToken) {
        let events = self.events.clone();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                permit = events.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { break };
                    if let Some(event) = self.outbox.pop_front() {
                        permit.send(event);
                    }
                }
                Some(command) = self.commands.recv() => self.on_command(command),
                Some(answer) = self.requests.answers.next() => self.on_answer(answer),
                event = self.swarm.select_next_some(), if self.outbox.len() < OUTBOX => {
                    self.on_swarm_event(event);
                }
                now = sweep.tick() => self.on_sweep(now),
            }
        }
        self.close().await;
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Send {
                node,
                address,
                bytes,
            } => self.submit(node, address, Waiting::Message(bytes)),
            Command::Connect { node, address } => {
                if self.peers.want(node, Instant::now()) {
                    self.dial(node, address);
                }
            }
            Command::Knock(address) => self.knock(address),
            Command::Expel(node) => {
                // Fails when there is no connection, which is as well.
                let _ = self.swarm.disconnect_peer_id(identity::peer_id(&node));
            }
            Command::Disconnect(node) => {
                let ids = self.peers.unwant(node);
                self.close_unless_busy(ids);
            }
            Command::Probe {
                node,
                address,
                reply,
            } => {
                let probe = Request::Probe {
                    address,
                    reply,
                    retry: true,
                };
                self.submit(node, address, Waiting::Request(probe));
            }
            Command::Rpc {
                node,
                address,
                bytes,
                reply,
            } => {
                let rpc = Request::Rpc { bytes, reply };
                self.submit(node, address, Waiting::Request(rpc));
            }
            Command::Open {
                node,
                address,
                reply,
            } => self.submit(node, address, Waiting::Request(Request::Stream(reply))),
        }
    }

    fn submit(&mut self, node: NodeId, address: SocketAddr, what: Waiting) {
        match self.peers.route(node, what, Instant::now()) {
            Route::Now(what) => self.deliver(node, what),
            Route::Dial => self.dial(node, address),
            Route::Waits => {}
            Route::Dropped(what) => self.give_up(what, "too much waits for a connection with it"),
        }
    }

    /// Sends over a connection that is up.
    fn deliver(&mut self, node: NodeId, what: Waiting) {
        match what {
            Waiting::Message(bytes) => {
                if self.swarm.behaviour().messages.send(&node, bytes) {
                    self.counters.messages_sent.add_one();
                } else {
                    self.counters.messages_dropped.add_one();
                }
            }
            Waiting::Request(request) => self.ask(node, request),
        }
    }

    fn give_up(&mut self, what: Waiting, reason: &str) {
        match what {
            Waiting::Message(_) => self.counters.messages_dropped.add_one(),
            Waiting::Request(request) => request.fail(RpcError::Unreachable(reason.to_owned())),
        }
    }

    fn dial(&mut self, node: NodeId, membership: SocketAddr) {
        let now = Instant::now();
        let addresses = identity::control_address(membership).map(|control| {
            vec![
                identity::quic_address(control),
                identity::tcp_address(control),
            ]
        });
        let dial = DialOpts::peer_id(identity::peer_id(&node))
            // Whether to dial was decided when this was called.
            .condition(PeerCondition::Always)
            .addresses(addresses.unwrap_or_default())
            .build();
        let id = dial.connection_id();
        self.peers.dialing(node, id, now);
        if let Err(error) = self.swarm.dial(dial) {
            self.on_dial_failed(node, id, &dial_reason(&error));
        }
    }

    /// Dials whoever lives there: over QUIC, and over TCP in case that does not pass.
    fn knock(&mut self, membership: SocketAddr) {
        let Some(control) = identity::control_address(membership) else {
            return;
        };
        for address in [
            identity::quic_address(control),
            identity::tcp_address(control),
        ] {
            let dial = DialOpts::unknown_peer_id().address(address).build();
            if let Err(error) = self.swarm.dial(dial) {
                tracing::debug!(%membership, "cannot knock: {}", dial_reason(&error));
            }
        }
    }

    /// Nothing is retried: whoever wants the node hears of it and decides.
    fn on_dial_failed(&mut self, node: NodeId, id: ConnectionId, reason: &str) {
        let Some(waited) = self.peers.dial_failed(node, id, Instant::now()) else {
            return;
        };
        tracing::debug!(%node, reason, "no control connection");
        for what in waited {
            self.give_up(what, reason);
        }
        // Unlike everything else in the outbox this can come from commands, which go on while the
        // node reads no events.
        if self.outbox.len() < OUTBOX {
            self.outbox.push_back(ControlEvent::Unreachable {
                node,
                reason: reason.to_owned(),
            });
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.on_connected(&peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                ..
            } => {
                if let Some(node) = identity::node_id(&peer_id) {
                    self.on_disconnected(node, connection_id);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                self.counters.connections_failed.add_one();
                if let Some(node) = peer_id.as_ref().and_then(identity::node_id) {
                    self.on_dial_failed(node, connection_id, &dial_reason(&error));
                }
            }
            SwarmEvent::IncomingConnectionError {
                error,
                send_back_addr,
                ..
            } => {
                self.counters.connections_failed.add_one();
                tracing::debug!(from = %send_back_addr, %error, "connection not accepted");
            }
            // Whoever sends bytes that are no handshake causes one.
            SwarmEvent::ListenerError { error, .. } if self.warnings.may_warn(Instant::now()) => {
                tracing::warn!(%error, "control listener");
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "control listener"),
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => tracing::error!(?addresses, ?reason, "control listener closed"),
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: &PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(node) = identity::node_id(peer) else {
            return;
        };
        let opener = if endpoint.is_dialer() {
            Opener::Us
        } else {
            Opener::Them
        };
        tracing::debug!(%node, address = %endpoint.get_remote_address(), "control connection up");
        let up = self.peers.connected(node, id, opener, Instant::now());
        for old in &up.replaced {
            tracing::debug!(%node, "its older connection is dead: it has opened another");
            self.swarm.behaviour_mut().messages.forget(node, *old);
            self.swarm.close_connection(*old);
        }
        if up.first && !up.replaced.is_empty() {
            // What was sent lately may not have arrived.
            self.outbox.push_back(ControlEvent::Disconnected(node));
        }
        if up.first {
            self.outbox.push_back(ControlEvent::Connected(node));
        }
        for what in up.waited {
            self.deliver(node, what);
        }
    }

    fn on_disconnected(&mut self, node: NodeId, id: ConnectionId) {
        if self.peers.disconnected(node, id) {
            self.outbox.push_back(ControlEvent::Disconnected(node));
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Limits(never) | BehaviourEvent::Admission(never) => match never {},
            BehaviourEvent::Messages(MessagesEvent::Received(from, bytes)) => {
                self.peers.used(&from, Instant::now());
                self.outbox.push_back(ControlEvent::Message { from, bytes });
            }
            BehaviourEvent::Messages(MessagesEvent::Finished) => {}
            BehaviourEvent::Messages(MessagesEvent::Dead(node, id)) => {
                self.on_disconnected(node, id);
            }
            BehaviourEvent::Rpc(event) => self.on_rpc_event(event),
            BehaviourEvent::Probe(event) => self.on_probe_event(event),
            BehaviourEvent::Streams((from, stream)) => {
                self.peers.used(&from, Instant::now());
                self.outbox.push_back(ControlEvent::Stream { from, stream });
            }
            BehaviourEvent::Mdns(libp2p::mdns::Event::Discovered(found)) => {
                self.on_discovered(&found);
            }
            BehaviourEvent::Mdns(libp2p::mdns::Event::Expired(_)) => {}
        }
    }

    fn on_discovered(&mut self, found: &[(PeerId, libp2p::Multiaddr)]) {
        for (peer, address) in found {
            let node = identity::node_id(peer).filter(|_| peer != self.swarm.local_peer_id());
            // Both transports listen on the same number: one address tells everything.
            let quic = identity::socket_address(address).filter(|(_, tcp)| !tcp);
            let (Some(node), Some((control, _))) = (node, quic) else {
                continue;
            };
            if self.outbox.len() < OUTBOX / 2 {
                let seen = ControlEvent::Discovered { node, control };
                self.outbox.push_back(seen);
            } else {
                self.counters.discoveries_dropped.add_one();
            }
        }
    }

    fn on_sweep(&mut self, now: Instant) {
        let ids = self.peers.sweep(now);
        self.close_unless_busy(ids);
    }

    /// Those that carry streams stay until a later sweep.
    fn close_unless_busy(&mut self, ids: Vec<ConnectionId>) {
        let busy = self.swarm.behaviour().streams.busy();
        for id in ids.into_iter().filter(|id| !busy.contains(id)) {
            self.swarm.close_connection(id);
        }
    }

    /// Sends what has been handed over, and waits until it has been read: closing a QUIC connection
    /// discards what is under way.
    async fn say_last_words(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.on_command(command);
        }
        self.swarm.behaviour_mut().messages.finish();
        while !self.swarm.behaviour().messages.is_finished() {
            let _ = self.swarm.next().await;
        }
    }

    async fn close(mut self) {
        if timeout(LAST_WORDS, self.say_last_words()).await.is_err() {
            tracing::debug!("the last messages may not have arrived");
        }
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Fails when it has just gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let farewell = async {
            while self.swarm.connected_peers().next().is_some() {
                let _ = self.swarm.next().await;
            }
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            tracing::debug!("some peers were not told that this node closes its connections");
        }
        drop(self.swarm);
        self.tasks.close();
        let released = async {
            self.tasks.wait().await;
            // The QUIC endpoint's own task cannot be waited for; it ends when its connections have
            // drained. The port tells.
            while UdpSocket::bind(self.listen).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(RELEASE, released).await.is_err() {
            tracing::warn!(address = %self.listen, "the control port is still in use");
        }
    }
}

/// In words for a person: libp2p's own text repeats itself at every layer.
fn dial_reason(error: &DialError) -> String {
    let attempts = match error {
        DialError::Transport(attempts) => attempts,
        DialError::WrongPeerId { obtained, address } => {
            let found = identity::node_id(obtained).map_or("another".to_owned(), |n| n.short());
            return format!("another node, {found}, answers at {address}");
        }
        DialError::LocalPeerId { address } => return format!("{address} is this node itself"),
        DialError::NoAddresses => return "its membership address has no next port".to_owned(),
        other => return other.to_string(),
    };
    let mut reasons: Vec<String> = Vec::new();
    for (address, error) in attempts {
        let mut root: &dyn std::error::Error = error;
        while let Some(source) = root.source() {
            root = source;
        }
        let root = root.to_string();
        if reasons.iter().all(|reason| !reason.ends_with(&root)) {
            let address = identity::without_peer(address);
            reasons.push(format!("{address}: {root}"));
        }
    }
    reasons.join("; ")
}
