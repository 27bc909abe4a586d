//! Docker Swarm on the engines of a lab: the first is the manager, the others are workers.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{IMAGE, Lab, LabError, eventually};

/// A Swarm; its nodes leave it when it is dropped.
#[derive(Debug)]
pub(super) struct Swarm {
    engines: Vec<String>,
}

impl Swarm {
    /// Makes the lab's engines a Swarm.
    pub(super) fn form(lab: &Lab) -> Result<Self, LabError> {
        let engines = lab.hosts.iter().filter_map(|host| host.engine_address());
        let swarm = Self {
            engines: engines.collect(),
        };
        let first = lab.network.address(0);
        swarm.docker(0, &["swarm", "init", "--advertise-addr", &first])?;
        let token = swarm.docker(0, &["swarm", "join-token", "-q", "worker"])?;
        for host in 1..swarm.engines.len() {
            let own = lab.network.address(host);
            let at = format!("{first}:2377");
            let words = [
                "swarm",
                "join",
                "--token",
                token.trim(),
                "--advertise-addr",
                &own,
                &at,
            ];
            swarm.docker(host, &words)?;
        }
        Ok(swarm)
    }

    /// Has so many replicas started, and returns before they are.
    pub(super) fn deploy(&self, name: &str, replicas: u32) -> Result<(), LabError> {
        let count = replicas.to_string();
        let words = [
            "service",
            "create",
            "--detach",
            "--quiet",
            "--no-resolve-image",
            "--stop-grace-period",
            "1s",
            "--name",
            name,
            "--replicas",
            &count,
            IMAGE,
            "sleep",
            "10000",
        ];
        self.docker(0, &words).map(|_id| ())
    }

    /// Has them removed.
    pub(super) fn remove(&self, name: &str) -> Result<(), LabError> {
        self.docker(0, &["service", "rm", name]).map(|_name| ())
    }

    /// Waits until the manager holds all nodes for ready.
    pub(super) async fn whole(&self) -> Result<(), LabError> {
        eventually("Swarm has all nodes again", 90, async || {
            let list = self.docker(0, &["node", "ls", "--format", "{{.Status}}"])?;
            Ok(list.lines().filter(|l| *l == "Ready").count() == self.engines.len())
        })
        .await
        .map(|_| ())
    }

    fn docker(&self, host: usize, arguments: &[&str]) -> Result<String, LabError> {
        let Some(engine) = self.engines.get(host) else {
            return Err(LabError::broken("the host has no engine"));
        };
        let what = format!("docker {}", arguments.join(" "));
        let output = Command::new("docker")
            .args(["--host", engine])
            .args(arguments)
            .output()
            .map_err(|e| LabError::new(&what, e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LabError::new(&what, complaint))
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        for host in (0..self.engines.len()).rev() {
            if let Err(error) = self.docker(host, &["swarm", "leave", "--force"]) {
                eprintln!("note: a Swarm's node has not left: {error}");
            }
        }
    }
}

/// How many containers of anybody an engine runs.
pub(super) fn running(engine: &str) -> Result<usize, LabError> {
    count(engine, "/containers/json")
}

/// How many containers of anybody an engine has, also such as do not run.
pub(super) fn existing(engine: &str) -> Result<usize, LabError> {
    count(engine, "/containers/json?all=1")
}

/// Asked over the engine's socket: starting a client for each look would take longer than the looks
/// are apart.
fn count(engine: &str, list: &str) -> Result<usize, LabError> {
    let trouble = |e: std::io::Error| LabError::new("ask a container engine", e);
    let path = engine.trim_start_matches("unix://");
    let mut stream = UnixStream::connect(Path::new(path)).map_err(trouble)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .map_err(trouble)?;
    let request = format!("GET {list} HTTP/1.0\r\nHost: engine\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(trouble)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(trouble)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map_or("", |(_head, body)| body);
    match serde_json::from_str::<Value>(body) {
        Ok(Value::Array(list)) => Ok(list.len()),
        Ok(other) => Err(LabError::new("count containers", other)),
        Err(error) => Err(LabError::new("count containers", error)),
    }
}
