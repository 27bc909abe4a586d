//! Replicas as supervised host processes: the runtime that every node has.
//!
//! Each attempt has a directory `workloads/<namespace>/<service>/<slot>-<epoch>-<attempt>/` below
//! the data directory and a supervisor process ([`crate::supervisor`]) that holds its lock. The
//! directory is the whole truth: what it says and whether its lock is held is all that a new life
//! of the daemon needs.
//!
//! What a replica sees of its host:
//! - Its ports. Replicas share the host's network, so a free host port stands for each port of
//!   the specification: `DUNLIN_PORT_<port>` for each, `PORT` for the one declared first. A port
//!   published in host mode is exactly the published one. `HOST` (unless the specification sets
//!   it) is the address at which peers reach this node; listening on it or on all addresses both
//!   work, listening on 127.0.0.1 only works where that is the node's address.
//! - Its volumes. Nothing is mounted: a named volume is the directory
//!   `volumes/<namespace>/<name>` below the data directory, told as `DUNLIN_VOLUME_<NAME>`. A
//!   bind mount's host path is visible to a process anyway.
//! - Names of the cluster: `/etc/resolv.conf` is its own where the daemon may make mounts (root) and
//!   answers DNS on port 53; `DUNLIN_DNS` and `DUNLIN_DNS_SEARCH` say in any case where names are
//!   answered and in which domains to look for short ones.
//! - A file for what it has to tell, if it is a part of a job ([`super::outputs`]).
//! - Its secrets and configs, as files in two directories ([`super::files`]).
//! - A working directory of its own that goes away with the attempt, unless the specification
//!   names one. With another user than the daemon's it is that user's home.
//! - Of the daemon's environment only `PATH`, `LANG`, `TZ` and `HOME`.
//!
//! Needs Linux 5.3 (`pidfd_open`).

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dunlin_core::io::{Running, Workload, WorkloadId};
use dunlin_lb::Peer;
use dunlin_state::model::{Endpoint, Networks};
use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::Semaphore;
use tracing::warn;

use self::sources::Sources;
use self::watch::Watched;
use super::exec::{ExecOrder, Wires};
use super::execute::{self, Executed};
use super::files::Files;
use super::logs::{LogChunk, LogError, LogQuery};
use super::outputs::OutputFiles;
use super::select::Choice;
use super::usage::Usage;
use super::{
    Ending, Found, Live, Names, OpenError, Runtime, RuntimesConfig, StartContext, StartError,
    signal,
};
use crate::runtime::{Deadline, VolumeRoot};
use crate::supervisor::cgroup::{CgroupPlan, Hierarchy};
use crate::supervisor::{Beside, Difference, Paths, RunRecord, beside};

mod adopt;
mod directory;
mod exec;
mod read_log;
mod sources;
mod spawn;
mod sys;
mod usage;
mod watch;

/// Supervisors that are started at the same time: more would only wait for the CPUs.
const PARALLEL_STARTS: usize = 16;

/// The process runtime of a node.
pub(super) struct ProcessRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    workloads: PathBuf,
    volumes: VolumeRoot,
    advertise: IpAddr,
    files: Files,
    outputs: OutputFiles,
    supervisor: Vec<OsString>,
    /// Where limits are set, or why none can be.
    cgroups: Result<Hierarchy, String>,
    sources: Sources,
    names: Option<Names>,
    starts: Semaphore,
}

impl ProcessRuntime {
    /// Prepares the directories and finds out about cgroups.
    pub(super) async fn open(config: &RuntimesConfig, files: Files) -> Result<Self, OpenError> {
        if config.supervisor_command.is_empty() {
            return Err(OpenError::NoSupervisor);
        }
        let workloads = config.data_dir.join("workloads");
        tokio::fs::create_dir_all(&workloads)
            .await
            .map_err(|source| OpenError::DataDir {
                path: workloads.clone(),
                source,
            })?;
        let volumes = VolumeRoot::below(&config.data_dir);
        volumes
            .prepare()
            .map_err(|(path, source)| OpenError::DataDir { path, source })?;
        let name = config.node.short();
        let cgroups = blocking(move || Hierarchy::detect(&name))
            .await
            .unwrap_or_else(|| Err("finding out failed".to_owned()));
        Ok(Self {
            inner: Arc::new(Inner {
                workloads,
                volumes,
                advertise: config.advertise,
                files,
                outputs: OutputFiles::below(&config.data_dir),
                supervisor: config.supervisor_command.clone(),
                cgroups,
                sources: Sources::default(),
                names: config.names.clone(),
                starts: Semaphore::new(PARALLEL_STARTS),
            }),
        })
    }

    /// Whether a replica here may not connect to services in these networks.
    pub(super) fn has_others(&self, networks: &Networks) -> bool {
        self.inner.sources.has_others(networks)
    }

    /// The networks of the replica that has opened a connection, if it is one of those.
    pub(super) async fn find_source(
        &self,
        peer: Peer,
        target: Arc<Networks>,
    ) -> Option<Arc<Networks>> {
        let inner = self.inner.clone();
        let pair = (peer.from, peer.to);
        blocking(move || inner.sources.find(peer.protocol, pair, &target)).await?
    }

    /// What the operator should know.
    pub(super) fn notes(&self) -> Option<String> {
        let reason = self.inner.cgroups.as_ref().err()?;
        Some(format!("limits of processes are not enforced: {reason}"))
    }
}

impl Runtime for ProcessRuntime {
    fn choice(&self) -> Choice {
        Choice::Process
    }

    fn adopt(&self) -> BoxFuture<'_, Vec<Found>> {
        self.inner.clone().adopt().boxed()
    }

    fn start<'a>(
        &'a self,
        workload: &'a Workload,
        context: StartContext<'a>,
    ) -> BoxFuture<'a, Result<Live, StartError>> {
        async move {
            let permit = tokio::select! {
                permit = self.inner.starts.acquire() => permit,
                () = context.cancel.cancelled() => return Err(StartError::Cancelled),
            };
            let _permit = permit.map_err(|_closed| StartError::Cancelled)?;
            self.inner.clone().start(workload, context.dead_by).await
        }
        .boxed()
    }

    fn stop<'a>(
        &'a self,
        id: &'a WorkloadId,
        signal: Option<String>,
        grace_ms: u64,
    ) -> BoxFuture<'a, ()> {
        let signal = signal.as_deref().and_then(|name| {
            let signal = signal::parse(name);
            if signal.is_none() {
                warn!(slot = %id.slot, signal = name, "unknown stop signal; SIGTERM is sent");
            }
            signal
        });
        let paths = self.inner.paths(id);
        watch::stop(paths, signal, grace_ms).boxed()
    }

    fn extend<'a>(&'a self, id: &'a WorkloadId, dead_by: Deadline) -> BoxFuture<'a, ()> {
        watch::extend(self.inner.paths(id), dead_by).boxed()
    }

    fn notify<'a>(&'a self, id: &'a WorkloadId, signal: &'a str) -> BoxFuture<'a, ()> {
        let (paths, name) = (self.inner.paths(id), signal.to_owned());
        async move {
            blocking(move || watch::notify(&paths, &name)).await;
        }
        .boxed()
    }

    fn remove<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, ()> {
        let (inner, id) = (self.inner.clone(), id.clone());
        async move {
            blocking(move || inner.remove(&id)).await;
        }
        .boxed()
    }

    fn execute<'a>(
        &'a self,
        id: &'a WorkloadId,
        command: &'a [String],
        limit: Duration,
    ) -> BoxFuture<'a, Option<Result<Executed, String>>> {
        self.inner.execute(id, command, limit).boxed()
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
        let (inner, query) = (self.inner.clone(), query.clone());
        async move {
            let slot = query.slot.clone();
            let unreadable = |reason: String| LogError::Unreadable { slot, reason };
            match blocking(move || inner.read_log(&query)).await {
                Some(Ok(chunk)) => Ok(chunk),
                Some(Err(error)) => Err(unreadable(error.to_string())),
                None => Err(unreadable("reading it failed".to_owned())),
            }
        }
        .boxed()
    }
}

impl Inner {
    /// Runs a command with the environment of an attempt, in its cgroup where it has one.
    async fn execute(
        &self,
        id: &WorkloadId,
        words: &[String],
        limit: Duration,
    ) -> Option<Result<Executed, String>> {
        let (paths, words) = (self.paths(id), words.to_vec());
        let prepared = blocking(move || {
            let runs = paths.directory().exists() && matches!(is_held(&paths), Ok(true));
            runs.then(|| beside(&paths, &words, Difference::default()))
        });
        let Beside {
            command, cgroup, ..
        } = match prepared.await?? {
            Ok(prepared) => prepared,
            Err(reason) => return Some(Err(reason)),
        };
        // It ends with the workload then, and counts against the workload's limits, as in a
        // container. Where it cannot enter, only that is lost.
        let enter = move |pid: u32| {
            for mut procs in cgroup.iter().flat_map(CgroupPlan::open_procs) {
                let _ = procs.write_all(pid.to_string().as_bytes());
            }
        };
        Some(execute::run(command, limit, enter).await)
    }

    /// Waits for the end of an attempt, whose connections are nobody's then.
    fn ended(self: &Arc<Self>, watched: Watched, paths: Paths) -> BoxFuture<'static, Ending> {
        let inner = self.clone();
        async move {
            let directory = paths.directory().to_owned();
            let ending = watched.ended(paths).await;
            inner.sources.forget(&directory);
            ending
        }
        .boxed()
    }

    /// What the engine is told of an attempt that runs.
    fn running(&self, id: &WorkloadId, record: &RunRecord) -> Running {
        let endpoints = record
            .ports
            .iter()
            .map(|given| Endpoint {
                target: given.target,
                protocol: given.protocol,
                address: (self.advertise, given.port).into(),
            })
            .collect();
        Running {
            id: id.clone(),
            workload: format!("pid {}", record.workload.pid),
            endpoints,
            image_health: None,
        }
    }

    fn paths(&self, id: &WorkloadId) -> Paths {
        Paths::new(&self.directory(id))
    }
}

/// Runs file system work off the reactor. `None` when it panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, "a file system task failed");
            None
        }
    }
}

/// Whether a supervisor holds this attempt.
fn is_held(paths: &Paths) -> io::Result<bool> {
    Ok(take_lock(&paths.lock())?.is_none())
}

/// Takes an attempt's lock; `None` while a supervisor has it.
fn take_lock(path: &Path) -> io::Result<Option<std::fs::File>> {
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
