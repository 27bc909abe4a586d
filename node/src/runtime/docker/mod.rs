//! Replicas as containers of Docker (20.10 or newer) or Podman, through the Docker API.
//!
//! The engine keeps the truth: each container carries labels that say which cluster, node and
//! attempt it belongs to, so nothing is stored here, and only containers with both our cluster's
//! and our node's label are ever touched. The engine restarts nothing (restart policy `no`):
//! when and where to restart is decided elsewhere.
//!
//! Ends are learnt from the engine's event stream. Whenever the stream is lost, all containers
//! are listed again once a new one is open, so that no end is missed. While the engine does not
//! answer, nothing is concluded: containers may well run on without it.
//!
//! What a replica sees: `PORT` and `DUNLIN_PORT_<port>` as with the process runtime (here they
//! are the ports of the specification themselves), and volumes mounted where it says. Networks are
//! bridges ([`walls`]), and addresses tell who connects ([`sources`]). Named volumes are directories
//! of ours ([`volumes`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::ListContainersOptions;
use dunlin_core::io::{Workload, WorkloadId};
use dunlin_state::model;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::{Semaphore, watch};

use super::exec::{ExecOrder, Wires};
use super::execute::Executed;
use super::files::Files;
use super::logs::{LogChunk, LogError, LogQuery};
use super::outputs::OutputFiles;
use super::select::Choice;
use super::usage::Usage;
use super::{Found, Live, Resolver, Runtime, RuntimesConfig, StartContext, StartError, VolumeRoot};

mod adopt;
mod connect;
mod create;
mod exec;
mod execute;
mod follow;
mod health;
mod naming;
mod networks;
mod read_log;
mod sources;
mod start;
mod stop;
mod usage;
mod volumes;
mod waiters;
mod walls;

use health::ImageChecks;
use naming::Owner;
use networks::Networks;
use sources::Sources;
use waiters::Waiters;
use walls::Walls;

/// Containers that are created and started at the same time, for each CPU and in all. Starting one
/// keeps a CPU busy for some 0.1 s, and now and then waits for a lock of the kernel. On a 2-core host
/// thirty took as long by fives as by eights and sixteens, and a fifth longer all at once; three
/// engines that shared it were 4 % faster by fives than by tens.
const STARTS_PER_CPU: usize = 2;
/// On one slow CPU too a start that hangs shall not be all that goes on.
const MIN_PARALLEL_STARTS: usize = 4;
const MAX_PARALLEL_STARTS: usize = 16;

/// Time between two questions about a container that is between two states: Podman takes part of a
/// second to clean up after one.
const BETWEEN_STATES: Duration = Duration::from_millis(100);
/// Questions about a container that is between two states; then it counts as a failure.
const BETWEEN_STATES_TRIES: usize = 50;

/// A container engine that answers.
#[derive(Debug, Clone)]
struct Engine {
    client: Docker,
    /// Such as `20.10.24`.
    version: String,
    /// Whether containers have no address that this host can reach.
    rootless: bool,
}

/// The docker runtime of a node; the engine itself may come and go.
pub(super) struct DockerRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    owner: Owner,
    socket: Option<String>,
    advertise: IpAddr,
    resolver: Option<Resolver>,
    files: Files,
    outputs: OutputFiles,
    volumes: VolumeRoot,
    networks: Networks,
    image_checks: ImageChecks,
    sources: Sources,
    walls: Walls,
    engine: watch::Sender<Option<Engine>>,
    waiters: Waiters,
    starts: Semaphore,
    pulls: start::Pulls,
}

impl Engine {
    /// What there is to know of a container. While one stops, Podman gives states that Docker does
    /// not have, and the answer cannot be read: that passes.
    async fn inspect(&self, container: &str) -> Result<ContainerInspectResponse, Error> {
        patiently(|| self.client.inspect_container(container, None)).await
    }

    /// All containers with these labels, dead or alive.
    async fn list(
        &self,
        filters: &HashMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>, Error> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters.clone()),
            ..ListContainersOptions::default()
        };
        patiently(|| self.client.list_containers(Some(options.clone()))).await
    }
}

async fn patiently<T, F>(ask: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for _ in 1..BETWEEN_STATES_TRIES {
        match ask().await {
            Err(Error::JsonDataError { .. }) => {
                tokio::time::sleep(BETWEEN_STATES).await;
            }
            answer => return answer,
        }
    }
    ask().await
}

fn parallel_starts() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    (STARTS_PER_CPU * cpus + 1).clamp(MIN_PARALLEL_STARTS, MAX_PARALLEL_STARTS)
}

impl DockerRuntime {
    /// Looks for an engine once.
    pub(super) async fn open(config: &RuntimesConfig, files: Files) -> Self {
        let engine = connect::connect(config.docker_socket.as_deref()).await;
        let opened = Self {
            inner: Arc::new(Inner {
                owner: Owner::new(&config.cluster, config.node),
                socket: config.docker_socket.clone(),
                advertise: config.advertise,
                resolver: config.resolver.clone(),
                files,
                outputs: OutputFiles::below(&config.data_dir),
                volumes: VolumeRoot::below(&config.data_dir),
                networks: Networks::default(),
                image_checks: ImageChecks::default(),
                sources: Sources::default(),
                walls: Walls::default(),
                engine: watch::Sender::new(engine),
                waiters: Waiters::default(),
                starts: Semaphore::new(parallel_starts()),
                pulls: start::Pulls::default(),
            }),
        };
        // Before anything connects: who it is must be known.
        if let Some(engine) = opened.inner.client() {
            opened.inner.networks.list(&engine).await;
        }
        opened
    }

    /// Version of the engine that answers now.
    pub(super) fn version(&self) -> Option<String> {
        let engine = self.inner.engine.borrow();
        engine.as_ref().map(|engine| engine.version.clone())
    }

    /// Whether an address is that of a container of this host.
    pub(super) fn has_container(&self, address: IpAddr) -> bool {
        self.inner.networks.contain(address)
    }

    /// The networks of the replica whose container has this address, if it was noted.
    pub(super) fn source(&self, address: IpAddr) -> Option<Arc<model::Networks>> {
        self.inner.sources.get(address)
    }

    /// The same, for an address of a container that nobody has noted.
    pub(super) fn find_source(
        &self,
        address: IpAddr,
    ) -> BoxFuture<'_, Option<Arc<model::Networks>>> {
        self.inner.source(address).boxed()
    }

    /// Returns when an engine has come or gone.
    pub(super) fn changes(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut engine = self.inner.engine.subscribe();
        async move {
            // The sender lives as long as the runtime does.
            let _ = engine.changed().await;
        }
    }

    /// Follows the engine for ever: its events, its going and coming back.
    pub(super) fn follow(&self) -> impl Future<Output = ()> + Send + 'static {
        self.inner.clone().follow()
    }
}

impl Inner {
    /// The client of the engine that answers now.
    fn client(&self) -> Option<Engine> {
        self.engine.borrow().clone()
    }
}

impl Runtime for DockerRuntime {
    fn choice(&self) -> Choice {
        Choice::Docker
    }

    fn adopt(&self) -> BoxFuture<'_, Vec<Found>> {
        self.inner.clone().adopt().boxed()
    }

    fn start<'a>(
        &'a self,
        workload: &'a Workload,
        context: StartContext<'a>,
    ) -> BoxFuture<'a, Result<Live, StartError>> {
        self.inner.clone().start(workload, context).boxed()
    }

    fn stop<'a>(
        &'a self,
        id: &'a WorkloadId,
        signal: Option<String>,
        grace_ms: u64,
    ) -> BoxFuture<'a, ()> {
        self.inner.clone().stop(id, signal, grace_ms).boxed()
    }

    fn notify<'a>(&'a self, id: &'a WorkloadId, signal: &'a str) -> BoxFuture<'a, ()> {
        self.inner.notify(id, signal).boxed()
    }

    fn remove<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, ()> {
        self.inner.clone().remove(id).boxed()
    }

    fn execute<'a>(
        &'a self,
        id: &'a WorkloadId,
        command: &'a [String],
        limit: Duration,
    ) -> BoxFuture<'a, Option<Result<Executed, String>>> {
        self.inner.execute(id, command, limit).boxed()
    }

    fn forget_volume<'a>(&'a self, volume: &'a model::VolumeId) -> BoxFuture<'a, ()> {
        self.inner.forget_volume(volume).boxed()
    }

    fn exec<'a>(
        &'a self,
        id: &'a WorkloadId,
        order: &'a ExecOrder,
        wires: &'a mut Wires,
    ) -> BoxFuture<'a, Option<Result<i32, String>>> {
        self.inner.exec(id, order, wires).boxed()
    }

    fn usage<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Option<Result<Usage, String>>> {
        self.inner.usage(id).boxed()
    }

    fn logs<'a>(
        &'a self,
        query: &'a LogQuery,
    ) -> BoxFuture<'a, Result<Option<LogChunk>, LogError>> {
        self.inner.clone().read_log(query).boxed()
    }
}
