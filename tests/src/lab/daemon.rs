//! A host of the lab and the daemon on it.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use dunlin_api::client::Client;
use dunlin_api::{NodeState, Replica, ReplicaQuery};

use super::engine::Engine;
use super::hardware::{Disk, WallClock};
use super::net::{LabError, Network};
use super::wait::eventually;

/// Where the API of every host is served over TLS.
pub(super) const API_PORT: u16 = 7_443;

/// What the replicas of a lab are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workloads {
    /// Processes of the hosts.
    Processes,
    /// Containers of an engine on each host.
    Containers,
    /// Processes, and containers too on the first hosts, where this machine can have engines.
    Both,
}

/// How many hosts have an engine besides processes: a majority of five, so that containers have
/// somewhere to go, and as few as that, for each engine is two busy programs.
const ENGINES: usize = 3;

impl Workloads {
    /// The daemon's name for it, on a host with an engine or without.
    const fn runtime(self, engine: bool) -> &'static str {
        match (self, engine) {
            (Self::Processes, _) | (Self::Both, false) => "process",
            (Self::Containers, _) => "docker",
            (Self::Both, true) => "auto",
        }
    }

    /// Whether this host has an engine.
    fn engine_on(self, index: usize) -> bool {
        match self {
            Self::Processes => false,
            Self::Containers => true,
            Self::Both => index < ENGINES && super::engine::missing().is_none(),
        }
    }

    /// Why a lab with them cannot run on this machine, or nothing.
    pub fn impossible(self) -> Option<String> {
        match self {
            Self::Processes | Self::Both => None,
            Self::Containers => super::engine::missing(),
        }
    }
}

/// One host.
#[derive(Debug)]
pub struct Host {
    index: usize,
    binary: PathBuf,
    folder: PathBuf,
    namespace: String,
    address: String,
    runtime: &'static str,
    /// Whether programs of the lab ask its daemon for names; containers can only be told of the
    /// usual port.
    asked: bool,
    /// Whether peers may be found by mDNS; labs otherwise use what a ticket says.
    mdns: bool,
    /// The container engine, in labs that have some.
    engine: Option<Engine>,
    /// A disk and a clock of its own, in labs that break them.
    disk: Option<Disk>,
    clock: Option<WallClock>,
    daemon: Option<Child>,
}

impl Host {
    pub(super) fn new(
        binary: &Path,
        folder: &Path,
        index: usize,
        workloads: Workloads,
        network: &Network,
    ) -> Self {
        let own = folder.join(format!("h{index}"));
        let has_engine = workloads.engine_on(index);
        // One that lets containers live where another one ends them, in labs that stop engines.
        let keeps = workloads == Workloads::Both && index == 1;
        let engine = || Engine::new(network.namespace(index), own.join("engine"), keeps);
        Self {
            index,
            binary: binary.to_owned(),
            engine: has_engine.then(engine),
            folder: own,
            namespace: network.namespace(index),
            address: network.address(index),
            runtime: workloads.runtime(has_engine),
            asked: workloads != Workloads::Containers,
            mdns: false,
            disk: None,
            clock: None,
            daemon: None,
        }
    }

    /// Gives it a small disk and, where that can be had, a clock of its own, from its next start:
    /// its daemon must not run.
    pub fn with_own_hardware(&mut self) -> Result<(), LabError> {
        self.disk = Some(Disk::over(&self.folder.join("data"))?);
        self.clock = WallClock::in_folder(&self.folder);
        Ok(())
    }

    /// Whether its clock can be set.
    pub fn has_clock(&self) -> bool {
        self.clock.is_some()
    }

    /// Fills its disk, or makes room on it again.
    pub fn fill_disk(&self, full: bool) -> Result<(), LabError> {
        match (&self.disk, full) {
            (Some(disk), true) => disk.fill(),
            (Some(disk), false) => disk.free(),
            (None, _) => Err(LabError::broken("the host has no disk of its own")),
        }
    }

    /// Sets its clock so many seconds fast or slow.
    pub fn set_clock(&self, seconds: i32) -> Result<(), LabError> {
        let clock = self.clock.as_ref();
        clock.map_or(Ok(()), |clock| clock.set(seconds))
    }

    /// Its name in the cluster.
    pub fn name(&self) -> String {
        format!("h{}", self.index)
    }

    /// From its next start it has the network's address of now, and looks for peers by mDNS.
    pub fn has_moved(&mut self, network: &Network) {
        self.address = network.address(self.index);
        self.mdns = true;
    }

    /// Forgets everything that its daemon knew.
    pub fn wipe(&self) -> Result<(), LabError> {
        fs::remove_dir_all(self.folder.join("data")).map_err(|e| LabError::new("wipe a host", e))
    }

    /// Starts the container engine, in labs that have some; waits until it has an image to run.
    pub(super) async fn start_engine(&mut self) -> Result<(), LabError> {
        let Some(engine) = &mut self.engine else {
            return Ok(());
        };
        engine.start()?;
        eventually("a container engine answers", 30, async || {
            Ok(engine.answers())
        })
        .await?;
        engine.load_image()
    }

    /// Starts the daemon, and the container engine if it does not run.
    pub fn start(&mut self, ticket: Option<&str>) -> Result<(), LabError> {
        let trouble = |e: std::io::Error| LabError::new("start a daemon", e);
        fs::create_dir_all(&self.folder).map_err(trouble)?;
        let log: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .map_err(trouble)?;
        let errors = log.try_clone().map_err(trouble)?;
        let mut command = Command::new("nsenter");
        if let Some(engine) = &mut self.engine {
            engine.start()?;
            command.env("DOCKER_HOST", engine.address());
        }
        if let Some(clock) = &self.clock {
            clock.shown_to(&mut command);
        }
        command
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg(&self.binary)
            .args(["up", "--name"])
            .args([&self.name(), "--advertise", &self.address])
            .args(["--runtime", self.runtime])
            .args(["--upstream-dns", super::resolve::OUTSIDE])
            .args(["--api-listen", &format!("{}:{API_PORT}", self.address)])
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .arg("--api")
            .arg(self.api_address());
        if self.asked {
            command.args(["--dns", super::resolve::SERVER]);
        }
        if !self.mdns {
            command.arg("--no-mdns");
        }
        if let Some(ticket) = ticket {
            command.args(["--join", ticket]);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.daemon = Some(command.spawn().map_err(trouble)?);
        Ok(())
    }

    /// Kills the daemon alone; its workloads go on.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself.
            let _ended = daemon.kill();
            let _reaped = daemon.wait();
        }
    }

    /// How many containers run, as the host's engine says.
    pub fn containers(&self) -> Result<usize, LabError> {
        let engine = self.engine.as_ref();
        engine.map_or(Ok(0), Engine::running)
    }

    /// Where its container engine listens, in labs that have some.
    pub fn engine_address(&self) -> Option<String> {
        self.engine.as_ref().map(Engine::address)
    }

    /// Ends its container engine, at once or as people do; what it runs may go on.
    pub fn stop_engine(&mut self, signal: &str) -> Result<(), LabError> {
        let engine = self.engine.as_mut();
        engine.map_or(Ok(()), |engine| engine.stop(signal))
    }

    /// Starts its container engine again, after the end of the one before.
    pub fn restart_engine(&mut self) -> Result<(), LabError> {
        let engine = self.engine.as_mut();
        engine.map_or(Ok(()), Engine::restart)
    }

    /// How its container engine ended, if it did so without having been asked to.
    pub fn engine_ended(&mut self) -> Option<String> {
        self.engine.as_mut().and_then(Engine::ended)
    }

    /// What its container engine says of its containers, for the story of a failure.
    pub fn engine_story(&self) -> Vec<String> {
        self.engine.as_ref().map(Engine::story).unwrap_or_default()
    }

    /// Whether containers can run on it.
    pub fn has_engine(&self) -> bool {
        self.engine.is_some()
    }

    /// The process of its container engine, if one runs.
    pub fn engine_pid(&self) -> Option<u32> {
        self.engine.as_ref().and_then(Engine::pid)
    }

    /// Where its daemon's API listens.
    pub fn api_address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Kills everything that runs on the host at once, as a power cut does.
    pub fn power_off(&mut self) {
        for _ in 0..5 {
            let found = self.processes();
            if found.is_empty() {
                break;
            }
            let list: Vec<String> = found.iter().map(u32::to_string).collect();
            let _gone_already = Command::new("kill").arg("-9").args(list).output();
        }
        self.kill_daemon();
        if let Some(engine) = &mut self.engine {
            engine.lost_power();
        }
    }

    /// Kills the daemon and what runs in the host's namespace, but ends an engine in peace.
    pub(super) fn retire(&mut self) {
        self.kill_daemon();
        if let Some(engine) = &mut self.engine {
            engine.retire();
        }
        // Also what an engine has left that was not there to end it.
        self.power_off();
        self.engine = None;
        // Its folder can be removed only without a disk on it.
        self.disk = None;
    }

    /// How the daemon ended, if it did so without having been killed by the lab.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut()?.try_wait().ok().flatten()
    }

    /// The line in its log that tells of a panic, if there is any.
    pub fn panic(&self) -> Option<String> {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let line = text.lines().find(|line| line.contains("panicked"))?;
        Some(line.to_owned())
    }

    /// Sends the daemon a signal, such as `STOP`.
    pub fn signal(&self, name: &str) -> Result<(), LabError> {
        let Some(pid) = self.pid() else {
            return Err(LabError::broken("there is no daemon to send a signal to"));
        };
        send(name, &[pid])
    }

    /// Sends everything that runs on the host a signal.
    pub fn signal_all(&self, name: &str) -> Result<(), LabError> {
        send(name, &self.processes())
    }

    /// Everything that runs in the host's namespace, or in a container of its engine.
    pub fn processes(&self) -> Vec<u32> {
        let space = format!("/run/netns/{}", self.namespace);
        let Ok(wanted) = fs::metadata(space).map(|m| m.ino()) else {
            return Vec::new();
        };
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| {
                fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|m| m.ino() == wanted)
                    || self.engine.as_ref().is_some_and(|e| e.owns(*pid))
            })
            .collect()
    }

    /// The process id of the daemon.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// A client of its API.
    pub fn client(&self) -> Client {
        let host = dunlin_api::client::Host::unix(self.socket());
        Client::new(host).with_timeout(Duration::from_secs(5))
    }

    /// How many nodes it believes to be alive, itself among them.
    pub async fn alive(&self) -> Result<usize, LabError> {
        let Ok(nodes) = self.client().nodes().await else {
            return Ok(0);
        };
        Ok(nodes.iter().filter(|n| n.state == NodeState::Alive).count())
    }

    /// Whether so many nodes are alive to it, and it has heard from each what that one says of itself.
    pub async fn knows_all(&self, hosts: usize) -> bool {
        let Ok(nodes) = self.client().nodes().await else {
            return false;
        };
        let known = |n: &&dunlin_api::Node| n.state == NodeState::Alive && !n.name.is_empty();
        nodes.iter().filter(known).count() == hosts
    }

    /// What it believes of the node with this name.
    pub async fn state_of(&self, name: &str) -> Option<NodeState> {
        let nodes = self.client().nodes().await.ok()?;
        nodes.iter().find(|n| n.name == name).map(|n| n.state)
    }

    /// All replicas that it knows of.
    pub async fn replicas(&self) -> Result<Vec<Replica>, LabError> {
        let list = self.client().replicas(&ReplicaQuery::default()).await;
        list.map(|l| l.replicas)
            .map_err(|e| LabError::new("list replicas", e))
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> Vec<String> {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.iter()
            .skip(all.len().saturating_sub(lines))
            .map(|l| (*l).to_owned())
            .collect()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }
}

fn send(signal: &str, pids: &[u32]) -> Result<(), LabError> {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    let sent = Command::new("kill")
        .arg(format!("-{signal}"))
        .args(&list)
        .status()
        .map_err(|e| LabError::new("run kill", e))?;
    match sent.success() {
        true => Ok(()),
        false => Err(LabError::broken(format!(
            "cannot send {signal} to {list:?}"
        ))),
    }
}
