//! A node's runtimes with a data directory of their own, driven as the engine does.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a helper of tests, of which each target uses its part"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_core::io::{
    Adopted, Probe, ProbeId, ProbeOrder, Running, RuntimeCommand, RuntimeEvent, Workload,
    WorkloadId,
};
use dunlin_node::runtime::{
    LogChunk, LogQuery, LogStream, Names, Runtimes, RuntimesConfig, RuntimesHandle,
};
use dunlin_state::model::{NodeId, RuntimeKind, ServiceSpec, Slot, SlotId};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Longer than anything takes on a busy machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Lab {
    pub handle: RuntimesHandle,
    /// What runs and must be stopped at the end.
    pub live: Vec<WorkloadId>,
    /// The lease of what is started next.
    /// What jobs have told what is started next.
    pub given: BTreeMap<String, String>,
    /// Whether what is started next may tell something.
    pub tells: bool,
    lease_ms: Option<u64>,
    pub config: RuntimesConfig,
    commands: mpsc::Sender<RuntimeCommand>,
    events: mpsc::Receiver<RuntimeEvent>,
    task: JoinHandle<()>,
    pub directory: Arc<TempDir>,
}

/// A node of its own for each test: they run at the same time on one host.
pub fn node() -> NodeId {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let nth = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut hash = blake3::Hasher::new();
    hash.update(&std::process::id().to_le_bytes());
    hash.update(&nth.to_le_bytes());
    NodeId::from_bytes(*hash.finalize().as_bytes())
}

pub fn attempt(slot: u32, attempt: u32) -> WorkloadId {
    let service = "web".parse().unwrap();
    WorkloadId {
        slot: SlotId {
            service,
            slot: Slot::Replica(slot),
        },
        epoch: 7,
        attempt,
    }
}

pub fn id(slot: u32) -> WorkloadId {
    attempt(slot, 0)
}

pub fn shell(script: &str) -> ServiceSpec {
    ServiceSpec {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..ServiceSpec::default()
    }
}

pub fn text(chunk: &LogChunk, stream: LogStream) -> String {
    let lines = chunk.lines.iter().filter(|line| line.stream == stream);
    lines
        .map(|line| format!("{}\n", String::from_utf8_lossy(&line.text)))
        .collect()
}

/// The process id out of a process runtime's workload name.
pub fn pid(workload: &str) -> i32 {
    workload.strip_prefix("pid ").unwrap().parse().unwrap()
}

fn stat_field(pid: i32, field: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(field - 3).map(str::to_owned)
}

pub fn parent(pid: i32) -> i32 {
    stat_field(pid, 4).unwrap().parse().unwrap()
}

pub fn is_alive(pid: i32) -> bool {
    stat_field(pid, 3).is_some_and(|state| state != "Z")
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

impl Lab {
    pub async fn new() -> Self {
        Self::with(RuntimeKind::Process, node()).await
    }

    pub async fn with(allowed: RuntimeKind, node: NodeId) -> Self {
        Self::with_socket(allowed, node, None).await
    }

    pub async fn with_socket(
        allowed: RuntimeKind,
        node: NodeId,
        docker_socket: Option<String>,
    ) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let config = RuntimesConfig {
            node,
            cluster: "test".into(),
            data_dir: directory.path().to_owned(),
            advertise: "127.0.0.1".parse().unwrap(),
            supervisor_command: vec![env!("CARGO_BIN_EXE_dunlin-test-supervisor").into()],
            allowed,
            resolver: None,
            names: None,
            vault: None,
            docker_socket,
        };
        Self::open(config, directory, Vec::new()).await
    }

    /// A node that answers names.
    pub async fn with_names(names: Names) -> Self {
        let lab = Self::new().await;
        let config = RuntimesConfig {
            names: Some(names),
            ..lab.config.clone()
        };
        let directory = lab.directory.clone();
        Self::open(config, directory, Vec::new()).await
    }

    /// A node whose replicas may have secrets.
    pub async fn with_vault(
        allowed: RuntimeKind,
        node: NodeId,
        vault: Arc<dunlin_node::SecretVault>,
    ) -> Self {
        let lab = Self::with(allowed, node).await;
        let config = RuntimesConfig {
            vault: Some(vault),
            ..lab.config.clone()
        };
        Self::open(config, lab.directory.clone(), Vec::new()).await
    }

    async fn open(config: RuntimesConfig, directory: Arc<TempDir>, live: Vec<WorkloadId>) -> Self {
        let (runtimes, handle) = Runtimes::open(config.clone()).await.unwrap();
        let (commands, orders) = mpsc::channel(16);
        let (news, events) = mpsc::channel(16);
        let task = tokio::spawn(async move { runtimes.run(orders, news).await.unwrap() });
        Self {
            handle,
            live,
            given: BTreeMap::new(),
            tells: false,
            lease_ms: None,
            config,
            commands,
            events,
            task,
            directory,
        }
    }

    /// The daemon ends as by `kill -9` and starts again.
    pub async fn restart(mut self) -> Self {
        self.task.abort();
        let _ = (&mut self.task).await;
        let live = std::mem::take(&mut self.live);
        Self::open(self.config.clone(), self.directory.clone(), live).await
    }

    /// The daemon ends as by `kill -9`; it starts again when, after something has happened, a replica is
    /// gone with its supervisor.
    pub async fn restart_after(mut self, what: impl FnOnce(), running: &Running) -> Self {
        self.task.abort();
        let _ = (&mut self.task).await;
        what();
        self.wait_until_dead(running).await;
        let live = std::mem::take(&mut self.live);
        Self::open(self.config.clone(), self.directory.clone(), live).await
    }

    pub async fn send(&self, command: RuntimeCommand) {
        self.commands.send(command).await.unwrap();
    }

    pub async fn next(&mut self) -> RuntimeEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event
            .expect("no event in time")
            .expect("the runtimes ended")
    }

    pub async fn send_start(&mut self, slot: u32, spec: ServiceSpec) -> WorkloadId {
        self.send_attempt(slot, 0, spec).await
    }

    async fn send_attempt(&mut self, slot: u32, number: u32, spec: ServiceSpec) -> WorkloadId {
        let id = attempt(slot, number);
        let workload = Workload {
            id: id.clone(),
            revision: "r1".into(),
            spec: Arc::new(spec),
            node_name: "here".into(),
            node: self.config.node,
            volumes: BTreeSet::new(),
            given: self.given.clone(),
            tells: self.tells,
            lease_ms: self.lease_ms.take(),
        };
        self.send(RuntimeCommand::Start(Box::new(workload))).await;
        id
    }

    pub async fn start(&mut self, slot: u32, spec: ServiceSpec) -> Running {
        self.start_attempt(slot, 0, spec).await
    }

    /// The same, with a lease.
    pub async fn start_leased(&mut self, slot: u32, spec: ServiceSpec, lease_ms: u64) -> Running {
        self.lease_ms = Some(lease_ms);
        self.start(slot, spec).await
    }

    pub async fn start_attempt(&mut self, slot: u32, number: u32, spec: ServiceSpec) -> Running {
        let id = self.send_attempt(slot, number, spec).await;
        loop {
            match self.next().await {
                RuntimeEvent::Started(running) => {
                    assert_eq!(running.id, id);
                    self.live.push(id);
                    return running;
                }
                RuntimeEvent::Preparing(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Tries whether a replica is well, once.
    pub async fn probe(&mut self, id: &WorkloadId, probe: Probe, ms: u64) -> Result<(), String> {
        let id = ProbeId {
            workload: id.clone(),
            check: 0,
            seq: 1,
        };
        self.send(RuntimeCommand::Probe(Box::new(ProbeOrder {
            id: id.clone(),
            probe,
            timeout_ms: ms,
        })))
        .await;
        match self.next().await {
            RuntimeEvent::Probed { id: found, result } => {
                assert_eq!(found, id);
                result
            }
            other => panic!("{other:?}"),
        }
    }

    pub async fn adopt(&mut self) -> Vec<Adopted> {
        self.send(RuntimeCommand::Adopt).await;
        match self.next().await {
            RuntimeEvent::Adopted(list) => list,
            other => panic!("{other:?}"),
        }
    }

    pub async fn expect_exit(&mut self, id: &WorkloadId, code: i32) {
        match self.next().await {
            RuntimeEvent::Exited {
                id: found,
                code: with,
                ..
            } => {
                assert_eq!((&found, with), (id, code));
                self.live.retain(|other| other != id);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Stops everything that the test has started.
    pub async fn stop_all(&mut self) {
        let live = std::mem::take(&mut self.live);
        for id in &live {
            let id = id.clone();
            self.send(RuntimeCommand::Stop {
                id,
                signal: None,
                grace_ms: 5_000,
            })
            .await;
        }
        for _ in &live {
            assert!(matches!(self.next().await, RuntimeEvent::Exited { .. }));
        }
    }

    /// Follows a log until a line contains this, and returns the line.
    pub async fn wait_for_line(&self, id: &WorkloadId, part: &str) -> String {
        let mut query = LogQuery::new(id.slot.clone());
        query.attempt = Some((id.epoch, id.attempt));
        query.max_bytes = 1 << 20;
        let search = async {
            loop {
                let chunk = self.handle.logs(&query).await.unwrap();
                for line in &chunk.lines {
                    let line = String::from_utf8_lossy(&line.text).into_owned();
                    if line.contains(part) {
                        return line;
                    }
                }
                assert!(!chunk.eof, "the log ended without '{part}'");
                query.cursor = Some(chunk.next);
                if chunk.lines.is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .expect("no such line in time")
    }

    pub async fn wait_until(&self, what: impl Fn(&Self) -> bool) {
        let wait = async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("it did not come to that");
    }

    /// Waits until a replica and its supervisor are gone.
    pub async fn wait_until_dead(&self, running: &Running) {
        let text = std::fs::read_to_string(self.attempt_file(&running.id, "run.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        let supervisor = i32::try_from(record["supervisor"]["pid"].as_i64().unwrap()).unwrap();
        let leader = pid(&running.workload);
        self.wait_until(|_| !is_alive(leader) && !is_alive(supervisor))
            .await;
    }

    pub fn attempt_file(&self, id: &WorkloadId, file: &str) -> PathBuf {
        let Slot::Replica(slot) = id.slot.slot else {
            panic!()
        };
        let name = format!("{slot}-{}-{}", id.epoch, id.attempt);
        self.directory
            .path()
            .join("workloads/default/web")
            .join(name)
            .join(file)
    }

    /// The attempts that have a directory.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory.path().join("workloads/default/web"));
        entries.map_or_else(
            |_| Vec::new(),
            |all| all.map(|e| e.unwrap().path()).collect(),
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A failed test leaves nothing running: supervisors die, and with them their replicas.
        for id in std::mem::take(&mut self.live) {
            let Ok(text) = std::fs::read_to_string(self.attempt_file(&id, "run.json")) else {
                continue;
            };
            let ended = self.attempt_file(&id, "exit.json").exists();
            let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let pid = record["supervisor"]["pid"].as_i64().unwrap_or(0);
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid.filter(|_| !ended) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
