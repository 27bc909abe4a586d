//! Daemons of the built binary on loopback addresses, and what commands answer.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest wait for something that should take a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest wait for workloads to end before their daemon is killed.
const CLEANING: Duration = Duration::from_secs(5);

/// What a command said, and its exit code.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Said {
    /// Ended with this code and said all of this.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        for part in parts {
            assert!(self.text.contains(part), "no '{part}' in:\n{}", self.text);
        }
        self
    }
}

/// Runs a command to its end.
pub(crate) fn dunlin(words: &[&str]) -> Said {
    said(base(words))
}

pub(crate) fn base(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    for name in [
        "DUNLIN_HOST",
        "DUNLIN_CONTEXT",
        "DUNLIN_TICKET",
        "DUNLIN_DATA_DIR",
        "DUNLIN_LOG",
    ] {
        command.env_remove(name);
    }
    command.args(words).stdin(Stdio::null());
    command
}

pub(crate) fn said(mut command: Command) -> Said {
    let output = command.output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    Said {
        code: output.status.code(),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// Repeats until it holds; every look is a whole process, so that this does not spin.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// A port of this test process: several of them may run on one host.
fn port() -> u16 {
    40_000 + u16::try_from(std::process::id() % 10_000).expect("small") * 2
}

/// An address that no other daemon of this process has, nor one of a test process beside it: the
/// ports of two daemons may overlap. Nodes take virtual addresses from 127.64 to 127.191.
pub(crate) fn address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let (high, low) = (200 + (process >> 8) % 50, process % 256);
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{high}.{low}.{own}")
}

/// Arguments of a daemon.
pub(crate) fn up(directory: &Path, name: &str, address: &str) -> Vec<String> {
    let directory = directory.display().to_string();
    let port = port().to_string();
    let words = [
        "up",
        "--data-dir",
        &directory,
        "--name",
        name,
        "--advertise",
        address,
        "--port",
        &port,
        "--profile",
        "local",
        "--no-mdns",
        "--runtime",
        "process",
    ];
    words.map(str::to_owned).to_vec()
}

/// Runs a daemon that should refuse to start.
pub(crate) fn refused(words: &[String], more: &[&str]) -> Said {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    dunlin(&[&words[..], more].concat())
}

/// A running daemon; killed, with its workloads, when dropped.
pub(crate) struct Daemon {
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
    pub(crate) address: String,
    child: Child,
    /// Removed last.
    _home: Option<TempDir>,
}

impl Daemon {
    /// A daemon with a directory of its own that answers.
    pub(crate) fn start(name: &str, more: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let directory = home.path().join("d");
        Self::start_in(directory, Some(home), name, &address(), more)
    }

    pub(crate) fn start_in(
        directory: PathBuf,
        home: Option<TempDir>,
        name: &str,
        address: &str,
        more: &[&str],
    ) -> Self {
        fs::create_dir_all(&directory).expect("a directory");
        let child = spawn(&directory, name, address, more);
        let mut daemon = Self {
            directory,
            name: name.to_owned(),
            address: address.to_owned(),
            child,
            _home: home,
        };
        daemon.wait_until_it_answers();
        daemon
    }

    /// Ends it, and starts it again in the same place.
    pub(crate) fn restart(&mut self, between: impl FnOnce(&Path), more: &[&str]) {
        self.end();
        between(&self.directory);
        self.child = spawn(&self.directory, &self.name, &self.address, more);
        self.wait_until_it_answers();
    }

    /// Asks it to stop, and starts it again in the same place, as an upgrade does.
    pub(crate) fn upgrade(&mut self, more: &[&str]) {
        self.stop();
        self.child = spawn(&self.directory, &self.name, &self.address, more);
        self.wait_until_it_answers();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a number"), Signal::TERM).expect("it runs");
        let ended = self.child.wait().expect("it ends");
        assert!(ended.success(), "{ended:?}: {}", self.log());
    }

    /// Ends the daemon as a crash would; its workloads go on.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("it ends");
    }

    fn wait_until_it_answers(&mut self) {
        until("the daemon's first answer", || {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "{ended:?}: {}", self.log());
            self.ask(&["nodes"]).code == Some(0)
        });
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_of(&self.directory)).unwrap_or_default()
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}/api.sock", self.directory.display())
    }

    pub(crate) fn ask(&self, words: &[&str]) -> Said {
        dunlin(&[&["-H", &self.host()], words].concat())
    }

    /// Deploys a Compose file with this text.
    pub(crate) fn deploy(&self, text: &str, more: &[&str]) -> Said {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("it is written");
        let path = file.path().display().to_string();
        self.ask(&[&["deploy", "-p", "p", &path], more].concat())
    }

    pub(crate) fn ticket(&self) -> String {
        // Any of them is asked to change things.
        let said = self
            .ask(&["ticket", "--role", "operator"])
            .expect(0, &["dunlin2-"]);
        let ticket = said
            .text
            .split_whitespace()
            .find(|w| w.starts_with("dunlin2-"));
        ticket.expect("a ticket").to_owned()
    }

    pub(crate) fn sees(&self, alive: usize) -> bool {
        self.ask(&["nodes"]).text.matches(" alive ").count() == alive
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Workloads outlive their daemon: only removing the services ends them.
        let listed = self.ask(&["ls", "-q"]);
        let names: Vec<&str> = listed.text.lines().collect();
        if listed.code == Some(0) && !names.is_empty() {
            self.ask(&[&["rm"][..], &names].concat());
            let start = Instant::now();
            let here = ["ps", "-q", "--node", &self.name];
            while !self.ask(&here).text.is_empty() && start.elapsed() < CLEANING {
                std::thread::yield_now();
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        end_supervisors(&self.directory);
    }
}

/// A daemon that a test has killed cannot be asked to remove its services: ends the supervisors that
/// it leaves, which take their replicas along.
fn end_supervisors(directory: &Path) {
    let directory = directory.display().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        let pid = entry.file_name().to_string_lossy().parse().ok();
        let own = words.contains("__supervise") || words.contains("__hold");
        let is_left = own && words.contains(&directory);
        if let Some(pid) = pid.filter(|_| is_left).and_then(Pid::from_raw) {
            let _ended_meanwhile = kill_process(pid, Signal::KILL);
        }
    }
}

fn log_of(directory: &Path) -> PathBuf {
    directory.with_extension("log")
}

fn spawn(directory: &Path, name: &str, address: &str, more: &[&str]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_of(directory))
        .expect("a log");
    let words = up(directory, name, address);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    base(&[&words[..], more].concat())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("it starts")
}
