//! The daemons of a demo: started, killed, and in the end gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use dunlin_api::client::{Client, Host};
use dunlin_state::model::RuntimeKind;

use super::layout::{Layout, Member, Ports, free_ports};
use super::watch::Watch;
use super::{DemoArgs, DemoError, containers, processes};

/// How long supervisors may take to tidy up after their workloads before they are killed too.
const TIDY: Duration = Duration::from_millis(1_500);

/// How long ending everything may take; a process stuck in the kernel must not hold a person up.
const SWEEP: Duration = Duration::from_secs(10);

/// Pause between looks at what still runs.
const PAUSE: Duration = Duration::from_millis(10);

/// Lines of a daemon's log that are shown when it ended by itself.
const LOG_LINES: usize = 20;

/// Bytes of that log that are read.
const LOG_BYTES: usize = 16 * 1024;

/// How long one question to a daemon may take: it is on this host.
const CALL: Duration = Duration::from_secs(5);

/// Labels that the Docker runtime puts on its containers.
const CLUSTER_LABEL: &str = "io.dunlin.cluster";
const NODE_LABEL: &str = "io.dunlin.node";

/// The daemons. Dropping it ends them and everything they started, and removes the directory.
pub(super) struct Flock {
    layout: Layout,
    ports: Ports,
    runtime: RuntimeKind,
    program: PathBuf,
    children: BTreeMap<Member, Child>,
    /// Cleans up should this process be killed.
    watch: Option<Watch>,
    /// The cluster's identity, once known, when it may have containers.
    cluster: Option<String>,
    kept: bool,
}

impl Flock {
    /// Prepares everything and starts nothing.
    pub(super) fn new(args: &DemoArgs) -> Result<Self, DemoError> {
        if args.runtime == RuntimeKind::Docker {
            containers::check()?;
        }
        let program = std::env::current_exe().map_err(|source| DemoError::Host {
            what: "cannot find this program's file".to_owned(),
            source,
        })?;
        let ports = free_ports(args.nodes, std::process::id()).map_err(DemoError::NoPorts)?;
        let layout = Layout::create().map_err(|source| DemoError::Host {
            what: "cannot make a directory for the demo".to_owned(),
            source,
        })?;
        let mut flock = Self::of(layout);
        flock.ports = ports;
        flock.runtime = args.runtime;
        flock.program = program;
        let watch = Watch::start(&flock.program, flock.layout.root());
        flock.watch = Some(watch.map_err(|source| DemoError::Host {
            what: "cannot start the process that cleans up after a demo that was killed".to_owned(),
            source,
        })?);
        Ok(flock)
    }

    /// What runs in a directory, whoever started it.
    pub(super) fn of(layout: Layout) -> Self {
        let cluster = fs::read_to_string(layout.root().join("cluster")).ok();
        Self {
            layout,
            ports: Ports(0),
            runtime: RuntimeKind::Process,
            program: PathBuf::new(),
            children: BTreeMap::new(),
            watch: None,
            cluster,
            kept: false,
        }
    }

    /// This program, as the daemons run it.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// The ports that each member listens on.
    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    /// The members that have been started and not killed.
    pub(super) fn members(&self) -> Vec<Member> {
        self.children.keys().copied().collect()
    }

    /// A client of a member's daemon.
    pub(super) fn client(&self, member: Member) -> Client {
        Client::new(Host::unix(self.layout.socket(member))).with_timeout(CALL)
    }

    /// Starts a daemon.
    pub(super) fn start(&mut self, member: Member, joins: bool) -> Result<(), DemoError> {
        let failed = |source| DemoError::Host {
            what: format!("cannot start the daemon {}", member.name()),
            source,
        };
        let log = File::create(self.layout.log(member)).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        let words = self
            .layout
            .arguments(member, self.ports, self.runtime, joins);
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C on the terminal is for the demo, which then ends the daemons.
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            // Settings for the person's own daemon are none for these.
            if name.to_string_lossy().starts_with("DUNLIN_") {
                command.env_remove(name);
            }
        }
        let child = command.spawn().map_err(failed)?;
        self.children.insert(member, child);
        Ok(())
    }

    /// Keeps the ticket where only the daemons of this user read it.
    pub(super) fn save_ticket(&self, ticket: &str) -> Result<(), DemoError> {
        let failed = |source| DemoError::Host {
            what: "cannot write the ticket".to_owned(),
            source,
        };
        // The directory is closed to others.
        fs::write(self.layout.ticket(), ticket).map_err(failed)
    }

    /// Remembers which cluster it is, also for a later `--end`.
    pub(super) fn set_cluster(&mut self, cluster: &str) {
        if self.runtime == RuntimeKind::Process {
            return;
        }
        // When this fails, only a later `--end` misses the containers.
        let _ = fs::write(self.layout.root().join("cluster"), cluster);
        self.cluster = Some(cluster.to_owned());
    }

    /// A fault when a daemon that should run has ended.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        for (member, child) in &mut self.children {
            let ended = child.try_wait().map_err(|source| DemoError::Host {
                what: "cannot look after a daemon".to_owned(),
                source,
            })?;
            if let Some(status) = ended {
                return Err(DemoError::Ended {
                    name: member.name(),
                    status: in_words(status),
                    log: end_of(&self.layout.log(*member)),
                });
            }
        }
        Ok(())
    }

    /// Kills a daemon with everything that it runs, as a power cut would. Nothing is said to
    /// anyone. Returns when its daemon was gone.
    pub(super) fn kill(&mut self, member: Member, node: &str) -> Result<Instant, DemoError> {
        let Some(mut child) = self.children.remove(&member) else {
            return Ok(Instant::now());
        };
        let failed = |source| DemoError::Host {
            what: format!("cannot kill the daemon {}", member.name()),
            source,
        };
        child.kill().map_err(failed)?;
        let killed = Instant::now();
        child.wait().map_err(failed)?;
        let directory = self.layout.data_dir(member);
        let deadline = killed + SWEEP;
        loop {
            let left = processes::of(&directory);
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            left.iter().for_each(processes::kill);
            std::thread::sleep(PAUSE);
        }
        if self.runtime == RuntimeKind::Docker {
            containers::remove(NODE_LABEL, node)?;
        }
        Ok(killed)
    }

    /// Resident memory of each daemon that runs, in bytes.
    pub(super) fn resident(&self) -> Vec<u64> {
        let pids = self.children.values().map(Child::id);
        pids.filter_map(processes::resident).collect()
    }

    /// Leaves everything running. Returns where it is.
    pub(super) fn keep(mut self) -> Layout {
        self.kept = true;
        self.layout.clone()
    }

    /// Ends all processes. Daemons first, else they would start again what is ended; then the
    /// workloads, so that their supervisors tidy up and end; then whatever is left.
    fn sweep(&mut self) {
        for child in self.children.values_mut() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        let start = Instant::now();
        while start.elapsed() < SWEEP {
            let left = processes::of(self.layout.root());
            if left.is_empty() {
                return;
            }
            let supervised = left.iter().any(|p| p.supervisor);
            let spare = supervised && start.elapsed() < TIDY;
            left.iter()
                .filter(|p| !(spare && p.supervisor))
                .for_each(processes::kill);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Flock {
    fn drop(&mut self) {
        if self.kept {
            if let Some(watch) = self.watch.take() {
                watch.dismiss();
            }
            return;
        }
        self.sweep();
        if let Some(cluster) = &self.cluster {
            // Without Docker there is nothing to remove, and nobody to tell.
            let _ = containers::remove(CLUSTER_LABEL, cluster);
        }
        remove_groups(self.layout.root());
        // What cannot be removed is in the directory for temporary files, at least.
        let _ = fs::remove_dir_all(self.layout.root());
    }
}

/// Removes the control groups of attempts whose supervisor was killed. Those that end in order
/// remove their own. The kernel removes only groups that are empty.
fn remove_groups(root: &Path) {
    let mut found = Vec::new();
    find_specs(root, 0, &mut found);
    for spec in found {
        let Ok(text) = fs::read(&spec) else {
            continue;
        };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&text) else {
            continue;
        };
        let mut groups = Vec::new();
        strings(&value["cgroup"]["group"], &mut groups);
        for group in groups {
            let group = Path::new(group);
            let ours = |p: &Path| {
                p.file_name()
                    .is_some_and(|n| n.to_string_lossy().starts_with("dunlin-"))
            };
            if let Some(parent) = group.parent().filter(|p| ours(p)) {
                let _ = fs::remove_dir(group);
                let _ = fs::remove_dir(parent);
            }
        }
    }
}

/// Depth of `<node>/workloads/<namespace>/<service>/<attempt>/spec.json`, the root not counted.
const SPEC_DEPTH: usize = 5;

fn find_specs(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let is_directory = entry.file_type().is_ok_and(|t| t.is_dir());
        if is_directory && depth < SPEC_DEPTH {
            find_specs(&entry.path(), depth + 1, found);
        } else if depth == SPEC_DEPTH && entry.file_name() == "spec.json" {
            found.push(entry.path());
        }
    }
}

fn strings<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
    match value {
        serde_json::Value::String(text) => found.push(text),
        serde_json::Value::Array(items) => items.iter().for_each(|v| strings(v, found)),
        serde_json::Value::Object(fields) => fields.values().for_each(|v| strings(v, found)),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no one knows how".to_owned(),
    }
}

fn end_of(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let bytes = fs::read(log)?;
        let from = bytes.len().saturating_sub(LOG_BYTES);
        Ok(String::from_utf8_lossy(&bytes[from..]).into_owned())
    };
    let text = read().unwrap_or_else(|error| format!("(cannot read {}: {error})", log.display()));
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    lines[from..].join("\n")
}
