//! Thirty replicas, from the command to all of them running.

use std::time::{Duration, Instant};

use super::{answers, deploy, key, ready, remove, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually};

const REPLICAS: u32 = 30;

pub(super) async fn run(
    lab: &mut Lab,
    times: usize,
    figures: &mut Figures,
) -> Result<(), LabError> {
    for _ in 0..times {
        once(lab, figures).await?;
    }
    Ok(())
}

async fn once(lab: &Lab, figures: &mut Figures) -> Result<(), LabError> {
    let service = key("many")?;
    let taken = until_ready(lab, REPLICAS).await?;
    figures.add("deploy: 30 replicas ready (process runtime)", taken);
    let slots = ready(lab, 0, &service).await?;
    let mute: Vec<_> = slots.values().flatten().filter(|r| !answers(r)).collect();
    if let Some(replica) = mute.first() {
        return Err(LabError::broken(format!(
            "{} of {REPLICAS} ready replicas do not answer, such as {} at {:?}",
            mute.len(),
            replica.slot,
            replica.endpoints
        )));
    }
    let mut used: Vec<_> = slots.values().flatten().map(|r| r.node).collect();
    used.sort();
    used.dedup();
    if used.len() != lab.hosts.len() {
        return Err(LabError::broken(format!(
            "30 replicas use {} hosts only",
            used.len()
        )));
    }
    remove(lab, "many").await
}

/// Has so many processes started and removed; the time from the request until all were ready.
pub async fn processes_ready(lab: &Lab, replicas: u32) -> Result<Duration, LabError> {
    let taken = until_ready(lab, replicas).await?;
    remove(lab, "many").await?;
    Ok(taken)
}

async fn until_ready(lab: &Lab, replicas: u32) -> Result<Duration, LabError> {
    let service = key("many")?;
    let start = Instant::now();
    deploy(lab, 0, "many", whoami(), replicas).await?;
    eventually("all replicas are ready", 30, async || {
        Ok(ready(lab, 0, &service).await?.len() == replicas as usize)
    })
    .await?;
    Ok(start.elapsed())
}
