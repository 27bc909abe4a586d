//! The shell that carries the pure machines: membership over sealed UDP datagrams, everything else
//! over libp2p.
//!
//! It decides nothing. It seals and opens, connects and accepts, bounds and counts. Whoever is not
//! a member of the cluster meets closed doors: an unsealed datagram is dropped, an unproven
//! connection is closed before any protocol sees it. What belonging means is decided in
//! `dunlin-trust`.
//!
//! [`Net::start`] is given the bound membership socket and binds the port after it for the control
//! plane, UDP and TCP. It spawns tasks only into [`NetTasks`], which whoever starts it supervises
//! and shuts down.

mod control;
mod counters;
mod datagram;
pub mod seal;
#[cfg(test)]
mod tests;
mod trust;

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use dunlin_state::model::NodeId;
use dunlin_trust::{Gatekeeper, SecretKey};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use self::control::{
    Control, ControlEvent, MAX_MESSAGE, MAX_REQUEST, MAX_RESPONSE, MAX_RPC_TIME, PROBE_TIME,
    PeerStream, RpcError, StartError, reread_frames,
};
pub use self::counters::{CounterValues, Counters};
pub use self::datagram::{Datagram, DatagramSender};
pub use self::trust::{Trust, TrustEvent};

use self::control::{ControlTask, Listen};
use self::datagram::DatagramTask;

/// Time for all tasks of the shell to end; beyond, they are cut off.
const SHUTDOWN: Duration = Duration::from_secs(4);

/// What the shell needs to start.
pub struct NetConfig {
    /// Seed of the node's ed25519 key (RFC 8032).
    pub seed: NodeSeed,
    /// Which life of the node this is: greater than all before it.
    pub boot: u64,
    /// What makes it a member, or will.
    pub gatekeeper: Gatekeeper,
    /// The membership socket, bound. The control plane listens on the same address and the next
    /// port.
    pub membership: UdpSocket,
    /// Whether to look for other nodes on the local network, and to be seen there.
    pub mdns: bool,
}

/// The seed of a node's key. Not to be printed.
#[derive(Clone)]
pub struct NodeSeed(pub [u8; 32]);

impl NodeSeed {
    /// The node that has this seed.
    pub fn node(&self) -> NodeId {
        control::node_of(self.0)
    }
}

impl fmt::Debug for NodeSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSeed(..)")
    }
}

/// Why the shell did not start. Nothing is left bound or running.
#[derive(Debug, Error)]
pub enum NetError {
    /// The membership socket cannot be used.
    #[error("cannot use the membership socket: {0}")]
    Socket(#[source] io::Error),
    /// The control plane did not start.
    #[error(transparent)]
    Control(#[from] StartError),
}

/// The shell, running.
#[derive(Debug)]
pub struct Net {
    /// This node.
    pub node: NodeId,
    /// Sends membership datagrams.
    pub datagrams: DatagramSender,
    /// Opened membership datagrams.
    pub received: mpsc::Receiver<Datagram>,
    /// The control plane.
    pub control: Control,
    /// What it has to tell.
    pub events: mpsc::Receiver<ControlEvent>,
    /// Who is let in.
    pub trust: Trust,
    /// What happened at the gate.
    pub gate: mpsc::Receiver<TrustEvent>,
    /// What was dropped or refused.
    pub counters: Arc<Counters>,
    /// To be supervised and shut down.
    pub tasks: NetTasks,
}

impl Net {
    /// Binds the control ports and spawns the tasks. Must be called within a tokio runtime.
    pub fn start(config: NetConfig) -> Result<Self, NetError> {
        Self::start_on(config, Listen::Both)
    }

    fn start_on(config: NetConfig, listen: Listen) -> Result<Self, NetError> {
        let socket = config.membership;
        let address = socket.local_addr().map_err(NetError::Socket)?;
        socket.set_nonblocking(true).map_err(NetError::Socket)?;
        let socket = tokio::net::UdpSocket::from_std(socket).map_err(NetError::Socket)?;
        let counters = Arc::new(Counters::default());
        let key = SecretKey::from_seed(config.seed.0);
        let (trust, gate) = Trust::new(config.gatekeeper);
        let (control_task, node, control, events) = ControlTask::new(
            config.seed.0,
            trust.clone(),
            address,
            listen,
            config.mdns,
            Arc::clone(&counters),
        )?;
        let sealer = seal::Sealer::new(key, config.boot);
        let (datagram_task, datagrams, received) =
            DatagramTask::new(socket, sealer, trust.keys(), Arc::clone(&counters));
        Ok(Self {
            node,
            datagrams,
            received,
            control,
            events,
            trust,
            gate,
            counters,
            tasks: NetTasks::spawn(control_task, datagram_task),
        })
    }
}

/// The tasks of the shell. Dropping it cuts them off.
#[derive(Debug)]
pub struct NetTasks {
    set: JoinSet<&'static str>,
    stop_control: CancellationToken,
    stop_datagrams: CancellationToken,
}

impl NetTasks {
    fn spawn(control: ControlTask, datagrams: DatagramTask) -> Self {
        let (stop_control, stop_datagrams) = (CancellationToken::new(), CancellationToken::new());
        let mut set = JoinSet::new();
        let stop = stop_control.clone();
        set.spawn(async move {
            control.run(stop).await;
            "control plane"
        });
        let stop = stop_datagrams.clone();
        set.spawn(async move {
            datagrams.run(stop).await;
            "membership socket"
        });
        Self {
            set,
            stop_control,
            stop_datagrams,
        }
    }

    /// Waits until a task ends, which none does by itself: the node must stop then. Returns the
    /// task's name, or its panic. Cancel safe.
    pub async fn ended(&mut self) -> Result<&'static str, JoinError> {
        self.set.join_next().await.unwrap_or(Ok("all tasks"))
    }

    /// Ends all tasks: first the control plane, so that peers see its connections close, then the
    /// membership socket, after what is still in its queue (a goodbye) has been sent. Afterwards
    /// the ports can be bound again. False when a task had to be cut off.
    pub async fn shutdown(mut self) -> bool {
        let in_order = async {
            self.stop_control.cancel();
            let _ = self.set.join_next().await;
            self.stop_datagrams.cancel();
            while self.set.join_next().await.is_some() {}
        };
        let ended = timeout(SHUTDOWN, in_order).await.is_ok();
        self.set.shutdown().await;
        ended
    }
}
