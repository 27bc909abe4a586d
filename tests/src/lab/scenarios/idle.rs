//! What a daemon costs while nothing happens: memory and processor time.

use std::time::{Duration, Instant};

use super::{deploy, exactly, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, cpu_seconds, resident_mb};

const SERVICES: usize = 10;
const MEASURED: Duration = Duration::from_secs(30);

pub(super) async fn run(lab: &mut Lab, _figures: &mut Figures) -> Result<(), LabError> {
    deploy_services(lab, SERVICES).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let pids: Vec<(String, u32)> = lab
        .hosts
        .iter()
        .filter_map(|h| Some((h.name(), h.pid()?)))
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

/// Services of one replica each; all hosts see them when this returns.
pub async fn deploy_services(lab: &Lab, services: usize) -> Result<(), LabError> {
    for number in 0..services {
        let name = format!("idle{number}");
        deploy(lab, number % lab.hosts.len(), &name, whoami(), 1).await?;
    }
    for number in 0..services {
        exactly(lab, &format!("idle{number}"), 1, 20).await?;
    }
    Ok(())
}
