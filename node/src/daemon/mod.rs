//! The composition root: builds a node in the order of its dependencies, binds before it serves,
//! and stops it in the reverse order.
//!
//! Everything that can be refused is refused before anything is started, with a text that says
//! what to do. Afterwards every task has an owner here; one that ends by itself ends the node.

pub(crate) mod clock;
mod driver;
pub(crate) mod handle;
mod joining;
mod measuring;
mod memory;
mod naming;
mod own;
mod peers;
mod publishing;
mod recovery;
mod setup;
mod strangers;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiServer, BindError, Context, TlsError};
use crate::cluster::{Belonging, ClusterError};
use crate::config::UpConfig;
use crate::handover::Handover;
use crate::host;
use crate::identity::{Identity, IdentityError};
use crate::runtime::{OpenError, RuntimesError};
use crate::secrets::{KeyKeeper, SecretVault};
use crate::store::{Store, StoreError};
use crate::vips::Vips;
pub use driver::DriverError;
use dunlin_gossip::net::{NetError, NetTasks};
use dunlin_lb::Publisher;
use dunlin_lb::proxy::hop::HopTask;
use dunlin_state::route::RouteTable;
use dunlin_trust::BadTicket;
use joining::Joining;
use measuring::Measuring;
use setup::Parts;
use trust::Keeper;

/// How long the parts may take to stop. Workloads are not stopped: they are adopted again.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Why a node did not start, or ended by itself.
#[derive(Debug, Error)]
pub enum UpError {
    /// The data directory or the key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ticket cannot be read from its file.
    #[error("cannot read the ticket from {path}: {source}")]
    TicketFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing says which cluster the node is of.
    #[error("this node neither belongs to a cluster nor has a ticket: join with a new ticket")]
    Nobody,
    /// The word after `--join` is neither a ticket nor a file.
    #[error(
        "--join: there is no file {0}, and it is no ticket either: a ticket starts with 'dunlin2-'; `dunlin ticket` on a member prints one"
    )]
    NoTicketFile(PathBuf),
    /// The ticket is none.
    #[error("--join: {0}")]
    Ticket(#[from] BadTicket),
    /// The cluster is unclear.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The node's name is no DNS label.
    #[error(transparent)]
    Name(#[from] dunlin_state::model::BadName),
    /// The membership port is taken.
    #[error("cannot listen on UDP {address}: {source}; choose another --port or --advertise")]
    Bind {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The API socket.
    #[error(transparent)]
    Api(#[from] BindError),
    /// The API for other hosts.
    #[error(transparent)]
    ApiTls(#[from] TlsError),
    /// The state file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The saved state inside an intact file.
    #[error(transparent)]
    State(#[from] dunlin_core::engine::StartError),
    /// The runtimes.
    #[error(transparent)]
    Runtimes(#[from] OpenError),
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The domain of service names.
    #[error("--dns-suffix: {0}")]
    Suffix(#[from] dunlin_dns::BadSuffix),
    /// The DNS port.
    #[error(transparent)]
    Dns(#[from] dunlin_dns::BindError),
    /// The DNS server failed.
    #[error(transparent)]
    DnsServe(#[from] dunlin_dns::ServeError),
    /// The virtual addresses.
    #[error(transparent)]
    Vips(#[from] crate::vips::VipError),
    /// The data plane's port is taken.
    #[error(
        "cannot listen on UDP {address} for connections to replicas: {source}; choose another --port"
    )]
    BindHop {
        /// Where.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data plane cannot be set up.
    #[error(transparent)]
    Hop(#[from] dunlin_lb::proxy::hop::HopSetupError),
    /// The proxy of a published port failed.
    #[error(transparent)]
    Publish(#[from] dunlin_lb::PublishError),
    /// A part of the running node failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// A runtime task failed.
    #[error(transparent)]
    RuntimeTask(#[from] RuntimesError),
    /// A task ended or panicked.
    #[error("{0}")]
    Task(String),
    /// Signals cannot be received.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// Runs a node until it is told to stop by SIGTERM or SIGINT, or has left its cluster. Workloads
/// go on running and are adopted at the next start, except after leaving.
pub async fn run(config: UpConfig) -> Result<(), UpError> {
    let started = Instant::now();
    host::raise_descriptors();
    let mut terminate = signal(SignalKind::terminate()).map_err(UpError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(UpError::Signals)?;
    let data_dir = config.data_dir.clone();
    let parts = setup::build(config, started).await?;
    let mut node = Node::start(parts);
    let left = node.context.left.clone();
    let result = tokio::select! {
        _ = terminate.recv() => Ok("asked to; workloads go on running"),
        _ = interrupt.recv() => Ok("interrupted; workloads go on running"),
        () = left.cancelled() => Ok("left the cluster"),
        error = node.failed() => Err(error),
    };
    match &result {
        Ok(reason) => tracing::info!("stopping: {reason}"),
        Err(error) => tracing::error!(%error, "stopping"),
    }
    node.shutdown().await;
    if left.is_cancelled() {
        // Nothing of this cluster may leak into the next one that this node joins.
        Store::forget(&data_dir)?;
        Belonging::forget(&data_dir)?;
        SecretVault::forget(&data_dir)?;
    }
    result.map(|_reason| ())
}

/// A running node: all its tasks.
struct Node {
    context: Context,
    tasks: JoinSet<Result<&'static str, UpError>>,
    net: NetTasks,
    stop_api: CancellationToken,
    stop_driver: CancellationToken,
    stop_rest: CancellationToken,
    vips: Vips,
    handover: Arc<Handover>,
    /// Keeps other daemons out of the data directory.
    _identity: Identity,
}

fn spawn_proxies(
    tasks: &mut JoinSet<Result<&'static str, UpError>>,
    publisher: Publisher,
    hop: HopTask,
    routes: watch::Receiver<Arc<RouteTable>>,
    stop: &CancellationToken,
) {
    let publishing = publisher.run(routes, stop.clone());
    let through = CancellationToken::new();
    let hop = hop.used_until(through.clone());
    tasks.spawn(async move {
        let _told_however_it_ends = through.drop_guard();
        publishing.await?;
        Ok("the publisher of ports")
    });
    let stop = stop.clone();
    tasks.spawn(async move {
        hop.run(stop, publishing::DRAIN).await;
        Ok("the way to other nodes' replicas")
    });
}

/// Runs what looks after the node until it stops.
async fn watch_and_keep(
    (joining, measuring): (Joining, Measuring),
    keeper: Keeper,
    key_keeper: KeyKeeper,
    stop: CancellationToken,
) {
    tokio::join!(
        joining.run(stop.clone()),
        measuring.run(stop.clone()),
        keeper.run(stop.clone()),
        key_keeper.run(stop.clone()),
        memory::give_back(stop),
    );
}

impl Node {
    fn start(parts: Parts) -> Self {
        let Parts {
            context,
            api,
            driver,
            first,
            runtimes,
            commands,
            events,
            desks: (peers, streams),
            joining,
            keeper,
            key_keeper,
            measuring,
            net,
            routes,
            dns,
            publisher,
            hop,
            vips,
            handover,
            identity,
        } = parts;
        let [stop_api, stop_driver, stop_rest] = std::array::from_fn(|_| CancellationToken::new());
        let mut tasks = JoinSet::new();
        if let Some((server, suffix)) = dns {
            let (routes, stop) = (routes.clone(), stop_rest.clone());
            tasks.spawn(async move {
                server.serve(routes, suffix, stop).await?;
                Ok("the DNS server")
            });
        }
        spawn_proxies(&mut tasks, publisher, hop, routes.clone(), &stop_rest);
        let stop = stop_driver.clone();
        tasks.spawn(async move {
            // Held here so that the table outlives a moment with no reader.
            let _routes = routes;
            driver.run(first, stop).await?;
            Ok("the engine")
        });
        // Ends when the engine drops its end of the commands.
        tasks.spawn(async move {
            runtimes.run(commands, events).await?;
            Ok("the runtimes")
        });
        let stop = stop_rest.clone();
        tasks.spawn(async move {
            tokio::join!(peers.run(stop.clone()), streams.run(stop));
            Ok("the answers to peers")
        });
        let stop = stop_rest.clone();
        tasks.spawn(async move {
            watch_and_keep((joining, measuring), keeper, key_keeper, stop).await;
            Ok("the watch for members or load, or a keeper of certificates, keys or memory")
        });
        let (stop, served) = (stop_api.clone(), context.clone());
        tasks.spawn(async move {
            ApiServer::serve(api, served, stop).await?;
            Ok("the API")
        });
        Self {
            context,
            tasks,
            net,
            stop_api,
            stop_driver,
            stop_rest,
            vips,
            handover,
            _identity: identity,
        }
    }

    /// Waits until a part fails; none ends by itself otherwise.
    async fn failed(&mut self) -> UpError {
        tokio::select! {
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Ok(part))) => UpError::Task(format!("{part} ended unexpectedly")),
                Some(Ok(Err(error))) => error,
                Some(Err(panic)) => UpError::Task(format!("a task of the node failed: {panic}")),
                None => UpError::Task("all tasks ended unexpectedly".to_owned()),
            },
            ended = self.net.ended() => match ended {
                Ok(part) => UpError::Task(format!("the {part} ended unexpectedly")),
                Err(panic) => UpError::Task(format!("a network task failed: {panic}")),
            },
        }
    }

    /// Stops in order: no new requests, then the engine with everything on disk, then what it
    /// spoke through.
    async fn shutdown(mut self) {
        self.stop_api.cancel();
        let leaving = self.context.left.is_cancelled();
        if leaving {
            // The goodbye travels in a few datagrams; without it peers would wait for silence.
            tokio::time::sleep(setup::GOODBYE).await;
        }
        self.stop_driver.cancel();
        self.stop_rest.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, ended).await.is_err() {
            tracing::warn!("some tasks did not stop in time and were cut off");
            self.tasks.shutdown().await;
        }
        if !self.net.shutdown().await {
            tracing::warn!("the network did not stop in time and was cut off");
        }
        // Else the holder does it, when nobody comes.
        if !self.handover.is_done() {
            self.vips.release().await;
        }
    }
}
