//! What has no peer: thirty processes, and one daemon by itself.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dunlin_api::client::{Client, Host};

use super::Bench;
use super::results::{Comparison, OWN};
use crate::lab::scenarios::processes_ready;
use crate::lab::{Lab, LabError, Workloads};

/// Processes on three hosts, from the request until all are ready.
pub(super) async fn processes(
    bench: &Bench,
    taken: &mut Comparison,
    sizes: &[u32],
) -> Result<(), LabError> {
    let lab = Lab::start(&bench.binary, 3, Workloads::Processes).await?;
    for _ in 0..bench.times(10, 2) {
        for size in sizes {
            let ready = processes_ready(&lab, *size).await?;
            let what = "from the request to the last process ready";
            taken.add(what, "s", OWN, size, ready.as_secs_f64());
        }
    }
    Ok(())
}

/// A daemon, ended when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The binary's size, and how long a daemon takes to answer.
pub(super) async fn run(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    let size = fs::metadata(&bench.binary).map_err(|e| LabError::new("measure the binary", e))?;
    taken.add("the binary", "MB", OWN, "size", size.len() as f64 / 1e6);
    for _ in 0..bench.times(10, 3) {
        let folder = tempfile::tempdir().map_err(|e| LabError::new("make a folder", e))?;
        for at in ["new", "again"] {
            let start = Instant::now();
            let daemon = start_alone(bench, folder.path())?;
            let socket = folder.path().join("api.sock");
            let client = Client::new(Host::unix(socket)).with_timeout(Duration::from_secs(1));
            let patience = Duration::from_secs(30);
            // Looked at without pause: the pause would be a part of the figure.
            loop {
                if client.version().await.is_ok() {
                    break;
                }
                if start.elapsed() > patience {
                    return Err(LabError::broken("a daemon alone does not answer"));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            taken.add(
                "from the start until the API answers",
                "ms",
                OWN,
                at,
                start.elapsed().as_secs_f64() * 1e3,
            );
            drop(daemon);
        }
    }
    Ok(())
}

fn start_alone(bench: &Bench, folder: &std::path::Path) -> Result<Daemon, LabError> {
    let port = free_port()?;
    let child = Command::new(&bench.binary)
        .args([
            "up",
            "--name",
            "alone",
            "--advertise",
            "127.0.0.1",
            "--runtime",
            "process",
        ])
        .args([
            "--no-mdns",
            "--dns",
            "off",
            "--port",
            &port.to_string(),
            "--data-dir",
        ])
        .arg(folder)
        .arg("--api")
        .arg(format!("unix://{}", folder.join("api.sock").display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child
        .map(Daemon)
        .map_err(|e| LabError::new("start a daemon", e))
}

/// A port that nobody uses now.
fn free_port() -> Result<u16, LabError> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0");
    let address = socket.and_then(|s| s.local_addr());
    // The two after it are used too.
    address
        .map(|a| a.port().min(65_000))
        .map_err(|e| LabError::new("find a port", e))
}
