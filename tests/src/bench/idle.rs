//! What doing nothing costs.

use std::time::{Duration, Instant};

use super::results::{Comparison, OWN};
use super::serf::{self, Serf};
use super::swarm::Swarm;
use super::{Bench, machine};
use crate::lab::scenarios::deploy_services;
use crate::lab::{Lab, LabError, Workloads, cpu_seconds, resident_mb};

/// After the last deploy: what is still to be done is done by then.
const REST: Duration = Duration::from_secs(5);

/// Hosts and services.
const POINTS: [(usize, usize); 4] = [(3, 0), (3, 10), (3, 50), (9, 10)];

/// Daemons at rest.
pub(super) async fn run(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    let window = Duration::from_secs(if bench.quick { 5 } else { 15 });
    let points = if bench.quick {
        &POINTS[1..2]
    } else {
        &POINTS[..]
    };
    for (hosts, services) in points {
        let lab = Lab::start(&bench.binary, *hosts, Workloads::Processes).await?;
        deploy_services(&lab, *services).await?;
        let at = format!("{hosts} / {services}");
        measure(taken, OWN, &at, &daemons(&lab), window).await;
        if serf::missing().is_none() && *services == 10 {
            let agents = Serf::form(&lab).await?;
            let version = machine::version("serf".as_ref(), &["version"]);
            taken.versions.insert("serf".to_owned(), version);
            measure(taken, "serf (members only)", &at, &agents.pids(), window).await;
        }
    }
    engines(bench, taken, window).await
}

/// What Swarm adds to engines that do nothing.
async fn engines(bench: &Bench, taken: &mut Comparison, window: Duration) -> Result<(), LabError> {
    if let Some(reason) = Workloads::Containers.impossible() {
        taken
            .skipped
            .push(format!("dockerd, with and without Swarm: {reason}"));
        return Ok(());
    }
    let lab = Lab::start(&bench.binary, 3, Workloads::Containers).await?;
    let version = machine::version("dockerd".as_ref(), &["--version"]);
    taken.versions.insert("Docker".to_owned(), version);
    let pids: Vec<u32> = lab
        .hosts
        .iter()
        .filter_map(crate::lab::Host::engine_pid)
        .collect();
    measure(taken, "dockerd alone", "3 / 0", &pids, window).await;
    let _swarm = Swarm::form(&lab)?;
    measure(taken, "dockerd in a Swarm", "3 / 0", &pids, window).await;
    Ok(())
}

fn daemons(lab: &Lab) -> Vec<u32> {
    lab.hosts.iter().filter_map(crate::lab::Host::pid).collect()
}

/// Waits for rest, and adds a sample for each process.
async fn measure(taken: &mut Comparison, subject: &str, at: &str, pids: &[u32], window: Duration) {
    tokio::time::sleep(REST).await;
    let before: Vec<f64> = pids.iter().map(|pid| cpu_seconds(*pid)).collect();
    let start = Instant::now();
    tokio::time::sleep(window).await;
    let passed = start.elapsed().as_secs_f64();
    for (pid, before) in pids.iter().zip(before) {
        let share = (cpu_seconds(*pid) - before) / passed * 100.0;
        taken.add("resident memory", "MB", subject, at, resident_mb(*pid));
        taken.add("processor time", "% of a core", subject, at, share);
    }
}
