//! What a daemon costs while nothing happens: memory and processor time.

use std::fs;
use std::time::{Duration, Instant};

use super::{deploy, exactly, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab};

const SERVICES: usize = 10;
const MEASURED: Duration = Duration::from_secs(30);
/// Ticks a second in `/proc/<pid>/stat`, on every Linux that Rust supports.
const TICKS: f64 = 100.0;

pub(super) async fn run(lab: &mut Lab, _figures: &mut Figures) -> Result<(), LabError> {
    for number in 0..SERVICES {
        let name = format!("idle{number}");
        deploy(lab, number % lab.hosts.len(), &name, whoami(), 1).await?;
    }
    for number in 0..SERVICES {
        exactly(lab, &format!("idle{number}"), 1, 20).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pids: Vec<(String, u32)> = lab
        .hosts
        .iter()
        .filter_map(|h| Some((h.name(), daemon_pid(h.pid()?))))
        .collect();
    let before: Vec<f64> = pids.iter().map(|(_, pid)| cpu_seconds(*pid)).collect();
    let start = Instant::now();
    tokio::time::sleep(MEASURED).await;
    for ((name, pid), before) in pids.iter().zip(before) {
        let share = (cpu_seconds(*pid) - before) / start.elapsed().as_secs_f64() * 100.0;
        println!(
            "idle: {name} {:.1} MB resident, {share:.2} % of a core",
            resident_mb(*pid)
        );
    }
    for number in 0..SERVICES {
        super::remove(lab, &format!("idle{number}")).await?;
    }
    Ok(())
}

/// `nsenter` becomes the daemon, so the child is the daemon itself.
fn daemon_pid(child: u32) -> u32 {
    child
}

fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS
}

fn resident_mb(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kb = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kb.unwrap_or(0.0) / 1024.0
}
