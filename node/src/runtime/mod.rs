//! Where replicas really run.
//!
//! [`Runtimes`] takes the engine's [`RuntimeCommand`]s and answers with [`RuntimeEvent`]s. Behind
//! it stands one trait with two implementations: `process` (supervised host processes, needs
//! nothing) and `docker` (Docker or Podman through their API). Each attempt to run a slot has one
//! task that does what is asked of it in order; attempts know nothing of each other.
//!
//! What is absent: policy. Nothing here restarts, places, or judges health; [`probe`] only tries
//! what it is asked to.
//!
//! Dropping [`Runtimes::run`] stops no replica. They outlive the daemon and are found again by
//! [`RuntimeCommand::Adopt`].
//!
//! [`RuntimeCommand`]: dunlin_core::io::RuntimeCommand
//! [`RuntimeCommand::Adopt`]: dunlin_core::io::RuntimeCommand::Adopt
//! [`RuntimeEvent`]: dunlin_core::io::RuntimeEvent

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dunlin_core::io::{Adopted, Running, RuntimeEvent, Workload, WorkloadId};
use dunlin_state::model::{BadOutputs, NodeId, Outputs, RuntimeKind, VolumeId};
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::secrets::SecretVault;

mod attempt;
mod deadline;
mod dispatch;
mod docker;
mod environment;
mod exec;
mod execute;
mod files;
mod logs;
mod origins;
mod outputs;
mod probe;
mod process;
mod select;
mod signal;
mod usage;
mod volumes;

pub(crate) use deadline::Deadline;
pub use exec::{ExecInput, ExecOrder, ExecOutput, Wires};
pub use logs::{LogChunk, LogError, LogLine, LogQuery, LogStream};

pub use usage::Usage;

use docker::DockerRuntime;
use execute::Executed;
use files::Files;
use outputs::OutputFiles;
use process::ProcessRuntime;
use select::Choice;
pub(crate) use volumes::VolumeRoot;

/// Bytes at which a replica's log file is put aside; two are kept, so that a chatty replica takes
/// at most twice this from the disk.
pub const LOG_FILE_BYTES: u64 = 5 * 1024 * 1024;

/// What the runtimes of a node need to know.
#[derive(Debug, Clone)]
pub struct RuntimesConfig {
    /// This node.
    pub node: NodeId,
    /// The cluster's id: with the node it marks the containers that are ours.
    pub cluster: String,
    /// Holds `workloads/` and `volumes/`.
    pub data_dir: PathBuf,
    /// Where peers reach the ports of this node's replicas.
    pub advertise: IpAddr,
    /// What is executed, with the attempt's directory added, to supervise a process: usually the
    /// daemon's own executable and [`crate::supervisor::SUBCOMMAND`]. Its first part is also what
    /// a replica's program name `dunlin` stands for.
    pub supervisor_command: Vec<OsString>,
    /// Restricts this node to one runtime; [`RuntimeKind::Auto`] offers all there are.
    pub allowed: RuntimeKind,
    /// Where containers find names, if that is possible for them.
    pub resolver: Option<Resolver>,
    /// Where processes find names, if they are answered.
    pub names: Option<Names>,
    /// Holds the secrets and configs of replicas; without it none that uses some is started.
    pub vault: Option<Arc<SecretVault>>,
    /// Socket of Docker or Podman; the usual places are tried when absent.
    pub docker_socket: Option<String>,
}

/// A DNS server for replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// Its address, as containers and processes reach it; it answers on port 53, for a resolv.conf
    /// holds no port.
    pub address: IpAddr,
    /// The domain of service names.
    pub suffix: String,
}

impl Resolver {
    /// Dots from which on a name is first tried as it is. Two: `web.shop` is a service and its
    /// namespace before it is somebody's site, and names below it, such as `tasks.web`, too. Names
    /// with one dot cost two denials more, which are answered on this host.
    pub const DOTS: &str = "ndots:2";

    /// The domains in which a replica in this namespace looks for names that are not whole.
    pub fn search(&self, namespace: &str) -> [String; 2] {
        [format!("{namespace}.{}", self.suffix), self.suffix.clone()]
    }
}

/// The node's DNS server, for programs of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Where it answers.
    pub server: SocketAddr,
    /// The domain of service names.
    pub suffix: String,
}

impl Names {
    /// The port that a resolv.conf cannot name another than.
    const PORT: u16 = 53;

    /// The resolv.conf of a replica in this namespace; none where it would not lead here.
    fn resolv_conf(&self, namespace: &str) -> Option<String> {
        if self.server.port() != Self::PORT {
            return None;
        }
        let resolver = self.resolver();
        let search = resolver.search(namespace).join(" ");
        let (address, dots) = (resolver.address, Resolver::DOTS);
        Some(format!(
            "# Written by Dunlin for this replica alone.\nnameserver {address}\nsearch {search}\n\
             options {dots}\n"
        ))
    }

    /// What a replica is told in any case.
    fn variables(&self, namespace: &str) -> [(&'static str, String); 2] {
        let search = self.resolver().search(namespace).join(" ");
        [
            ("DUNLIN_DNS", self.server.to_string()),
            ("DUNLIN_DNS_SEARCH", search),
        ]
    }

    fn resolver(&self) -> Resolver {
        Resolver {
            address: self.server.ip(),
            suffix: self.suffix.clone(),
        }
    }
}

/// What a node can run right now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Offer {
    /// Of `process` and `docker`.
    pub runtimes: Vec<String>,
    /// Version of the container engine, if one answers.
    pub engine: Option<String>,
    /// What the operator should know, such as limits that cannot be enforced.
    pub notes: Vec<String>,
}

/// Why the runtimes of a node cannot be set up. Nothing was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The data directory is not usable.
    #[error("cannot use {path}: {source}; choose a data directory that this user may write to")]
    DataDir {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No supervisor was named.
    #[error("the supervisor command is empty: it must name the executable of the daemon")]
    NoSupervisor,
}

/// Why the runtimes stopped.
#[derive(Debug, Error)]
pub enum RuntimesError {
    /// A task panicked: a bug. Replicas go on running.
    #[error("a runtime task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// With this code; whether memory was the reason.
    Exited { code: i32, oom: bool },
    /// Nobody knows.
    Lost,
}

impl Ending {
    fn event(self, id: WorkloadId, outputs: Result<Outputs, BadOutputs>) -> RuntimeEvent {
        match self {
            Self::Exited { code, oom } => RuntimeEvent::Exited {
                id,
                code,
                oom,
                last_words: Vec::new(),
                outputs,
            },
            Self::Lost => RuntimeEvent::Lost(id),
        }
    }
}

/// An attempt that runs.
struct Live {
    running: Running,
    /// Completes when it has ended. Dropping it stops nothing.
    ended: BoxFuture<'static, Ending>,
}

/// An attempt from an earlier life of the daemon.
struct Found {
    adopted: Adopted,
    /// Absent when it has ended already.
    ended: Option<BoxFuture<'static, Ending>>,
}

/// Why an attempt was not started. Nothing of it runs.
#[derive(Debug, Error)]
enum StartError {
    /// It cannot be, or could not now.
    #[error("{reason}")]
    Failed {
        /// For a person.
        reason: String,
        /// Whether trying the same again on this node is pointless.
        hopeless: bool,
    },
    /// A stop came first.
    #[error("it was asked to stop before it had started")]
    Cancelled,
}

impl StartError {
    fn hopeless(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            hopeless: true,
        }
    }

    fn passing(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            hopeless: false,
        }
    }
}

/// What a start may report and must heed on its way.
struct StartContext<'a> {
    events: &'a mpsc::Sender<RuntimeEvent>,
    /// Set when the attempt is to stop before it has started.
    cancel: &'a CancellationToken,
    /// When it has to be dead at the latest.
    dead_by: Option<Deadline>,
}

/// One way to run replicas. Every operation may be repeated.
trait Runtime: Send + Sync {
    /// Which one it is.
    fn choice(&self) -> Choice;

    /// Finds what an earlier life of the daemon started.
    fn adopt(&self) -> BoxFuture<'_, Vec<Found>>;

    /// Starts an attempt, or takes it over when it runs already.
    fn start<'a>(
        &'a self,
        workload: &'a Workload,
        context: StartContext<'a>,
    ) -> BoxFuture<'a, Result<Live, StartError>>;

    /// Sends the signal, waits for the grace, kills. [`Live::ended`] tells when it worked, and the
    /// caller drops this future then.
    fn stop<'a>(
        &'a self,
        id: &'a WorkloadId,
        signal: Option<String>,
        grace_ms: u64,
    ) -> BoxFuture<'a, ()>;

    /// Sends a signal to a living attempt that is not asked to end.
    fn notify<'a>(&'a self, id: &'a WorkloadId, signal: &'a str) -> BoxFuture<'a, ()>;

    /// A living attempt may live until then. What keeps it while no daemon lives is told; otherwise
    /// only the daemon counts.
    fn extend<'a>(&'a self, _id: &'a WorkloadId, _dead_by: Deadline) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Deletes what a dead attempt left behind; leaves a living one alone.
    fn remove<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, ()>;

    /// The data of a volume is gone from this host: nothing needs to stand for it any more.
    fn forget_volume<'a>(&'a self, _volume: &'a VolumeId) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Runs a command beside an attempt that lives, for at most so long; then it is killed with all
    /// that it has started, and the error says so. `None` when no such attempt runs here.
    fn execute<'a>(
        &'a self,
        id: &'a WorkloadId,
        command: &'a [String],
        limit: Duration,
    ) -> BoxFuture<'a, Option<Result<Executed, String>>>;

    /// Runs a command beside an attempt that lives, with somebody at its wires, and returns its exit
    /// code; or says why it could not be run. When the wires are cut, it is ended with all that it
    /// has started. `None` when no such attempt runs here.
    fn exec<'a>(
        &'a self,
        id: &'a WorkloadId,
        order: &'a ExecOrder,
        wires: &'a mut Wires,
    ) -> BoxFuture<'a, Option<Result<i32, String>>>;

    /// What an attempt that lives has used. `None` when no such attempt runs here.
    fn usage<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Option<Result<Usage, String>>>;

    /// Reads the log of an attempt, living or dead. `None` when it knows no such attempt.
    fn logs<'a>(&'a self, query: &'a LogQuery)
    -> BoxFuture<'a, Result<Option<LogChunk>, LogError>>;
}

/// What the task and its handles share.
struct Shared {
    config: RuntimesConfig,
    process: Option<Arc<ProcessRuntime>>,
    docker: Option<Arc<DockerRuntime>>,
    files: Files,
    outputs: OutputFiles,
    offer: watch::Sender<Offer>,
}

/// The task that runs this node's replicas.
pub struct Runtimes {
    shared: Arc<Shared>,
}

/// Reads what the runtimes know, from anywhere in the daemon.
#[derive(Clone)]
pub struct RuntimesHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for RuntimesHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuntimesHandle({})", self.shared.config.node.short())
    }
}

impl Runtimes {
    /// Finds out what this node can run. Starts nothing.
    pub async fn open(config: RuntimesConfig) -> Result<(Self, RuntimesHandle), OpenError> {
        let files = Files::new(config.vault.clone(), config.node);
        let process = match config.allowed {
            RuntimeKind::Auto | RuntimeKind::Process => Some(Arc::new(
                ProcessRuntime::open(&config, files.clone()).await?,
            )),
            RuntimeKind::Docker => None,
        };
        let docker = match config.allowed {
            RuntimeKind::Auto | RuntimeKind::Docker => {
                Some(Arc::new(DockerRuntime::open(&config, files.clone()).await))
            }
            RuntimeKind::Process => None,
        };
        let shared = Arc::new(Shared {
            outputs: OutputFiles::below(&config.data_dir),
            config,
            process,
            docker,
            files,
            offer: watch::Sender::new(Offer::default()),
        });
        shared.refresh_offer();
        let handle = RuntimesHandle {
            shared: shared.clone(),
        };
        Ok((Self { shared }, handle))
    }
}

impl RuntimesHandle {
    /// What this node can run right now.
    pub fn offer(&self) -> Offer {
        self.shared.offer.borrow().clone()
    }

    /// The runtimes on offer, of `process` and `docker`.
    pub fn offered(&self) -> Vec<String> {
        self.offer().runtimes
    }

    /// Follows [`RuntimesHandle::offer`]: a container engine comes and goes.
    pub fn watch(&self) -> watch::Receiver<Offer> {
        self.shared.offer.subscribe()
    }

    /// Whether an address is that of a container of this host.
    pub fn has_container(&self, address: IpAddr) -> bool {
        let docker = self.shared.docker.as_ref();
        docker.is_some_and(|docker| docker.has_container(address))
    }

    /// Reads a piece of a replica's log, running or dead. For more, ask again with
    /// [`LogChunk::next`]; when nothing new is there and the replica lives, wait a moment first.
    pub async fn logs(&self, query: &LogQuery) -> Result<LogChunk, LogError> {
        for runtime in self.shared.all() {
            if let Some(chunk) = runtime.logs(query).await? {
                return Ok(chunk);
            }
        }
        Err(LogError::Unknown(query.slot.clone()))
    }
}

impl RuntimesHandle {
    /// Runs a command beside a replica, with somebody at its wires, and returns its exit code; or
    /// says why it could not be run.
    pub async fn exec(
        &self,
        id: &WorkloadId,
        order: &ExecOrder,
        mut wires: Wires,
    ) -> Result<i32, String> {
        for runtime in self.shared.all() {
            if let Some(ended) = runtime.exec(id, order, &mut wires).await {
                return ended;
            }
        }
        Err(format!("{} does not run any more", id.slot))
    }

    /// Lets go of what stands for a volume whose data was deleted.
    pub async fn forget_volume(&self, volume: &VolumeId) {
        for runtime in self.shared.all() {
            runtime.forget_volume(volume).await;
        }
    }

    /// What a replica has used; or says why that is not known.
    pub async fn usage(&self, id: &WorkloadId) -> Result<Usage, String> {
        for runtime in self.shared.all() {
            if let Some(used) = runtime.usage(id).await {
                return used;
            }
        }
        Err(format!("{} does not run any more", id.slot))
    }
}

impl Shared {
    fn all(&self) -> Vec<Arc<dyn Runtime>> {
        let process = self.process.clone().map(|r| r as Arc<dyn Runtime>);
        let docker = self.docker.clone().map(|r| r as Arc<dyn Runtime>);
        process.into_iter().chain(docker).collect()
    }

    /// Publishes what is on offer, if it has changed.
    fn refresh_offer(&self) {
        let engine = self.docker.as_ref().and_then(|docker| docker.version());
        let mut offer = Offer::default();
        offer.notes.extend(self.files.notes());
        if let Some(process) = &self.process {
            offer.runtimes.push("process".to_owned());
            offer.notes.extend(process.notes());
        }
        if engine.is_some() {
            offer.runtimes.push("docker".to_owned());
        }
        offer.engine = engine;
        self.offer.send_if_modified(|current| {
            let changed = *current != offer;
            *current = offer;
            changed
        });
    }
}
