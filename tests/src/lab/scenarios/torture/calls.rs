//! Calls from within a host's namespace, and the replicas in its process table.

use std::fmt;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use dunlin_api::Replica;
use serde::Deserialize;

use crate::lab::Host;
use crate::lab::net::{LabError, inside};

/// For one call: others share the CPUs.
const PATIENCE: Duration = Duration::from_secs(3);

/// Who a replica says that it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Who {
    pub(super) service: String,
    pub(super) slot: u32,
    pub(super) node: String,
    pub(super) epoch: u64,
}

/// The program in a container that says who it is, as `dunlin whoami` does in a process.
pub(super) const SERVER: &str = "httpd";

impl Who {
    /// Who it should be.
    pub(super) fn of(replica: &Replica) -> Self {
        Self {
            service: replica.service.name().to_owned(),
            // Torture has no services with a replica on each node.
            slot: replica.slot.to_string().parse().unwrap_or(u32::MAX),
            node: replica.node_name.clone(),
            epoch: replica.epoch,
        }
    }

    /// The replica that a process is, unless it only watches over one, or is none.
    pub(super) fn of_process(pid: u32) -> Option<Self> {
        match program(pid)?.as_str() {
            "whoami" | SERVER => {
                let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
                Self::from_environment(&String::from_utf8_lossy(&bytes))
            }
            _other => None,
        }
    }

    fn from_environment(environment: &str) -> Option<Self> {
        let variable = |name: &str| {
            let mut all = environment.split('\0');
            all.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        };
        Some(Self {
            service: variable("DUNLIN_SERVICE")?.to_owned(),
            slot: variable("DUNLIN_SLOT")?.parse().ok()?,
            node: variable("DUNLIN_NODE")?.to_owned(),
            epoch: variable("DUNLIN_EPOCH")?.parse().ok()?,
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, slot, node, epoch) = (&self.service, self.slot, &self.node, self.epoch);
        write!(f, "{service} {slot} on {node} epoch {epoch}")
    }
}

/// Calls all addresses from a namespace at once, so that one that hangs holds up no other: who
/// answered, or what went wrong. They are few: replicas of six services.
pub(super) fn call(
    namespace: &str,
    addresses: Vec<SocketAddr>,
) -> Result<Vec<Result<Who, String>>, LabError> {
    inside(namespace, move || {
        // Threads begin in the namespace of the one that makes them.
        Ok(std::thread::scope(|scope| {
            let start = |address: &SocketAddr| {
                let address = *address;
                scope.spawn(move || one(address))
            };
            let callers: Vec<_> = addresses.iter().map(start).collect();
            let ends = callers.into_iter().map(|caller| caller.join());
            ends.map(|said| said.unwrap_or_else(|_panic| Err("a caller panicked".to_owned())))
                .collect()
        }))
    })
}

fn one(address: SocketAddr) -> Result<Who, String> {
    let text = exchange(address).map_err(|e| e.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{head:.60}"));
    }
    serde_json::from_str(body).map_err(|e| format!("{e}: {body:.200}"))
}

fn exchange(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Whether a process answers from within a container.
pub(super) fn contained(pid: u32) -> bool {
    program(pid).is_some_and(|name| name == SERVER)
}

/// The first argument of a process, which tells replicas from who watches over them.
fn program(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line);
    line.split('\0').nth(1).map(str::to_owned)
}

/// The replicas whose processes run on a host, in containers or not.
pub(super) fn running(host: &Host) -> Vec<Who> {
    let all = host.processes().into_iter();
    all.filter_map(Who::of_process).collect()
}
