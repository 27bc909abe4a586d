//! Containers: thirty at once, and those of a host that is lost. What counts is what the engines
//! say, not what the daemons do.

use std::time::{Duration, Instant};

use dunlin_state::model::{Resources, RuntimeKind, ServiceSpec};

use super::{deploy, exactly, key, ready, remove};
use crate::lab::engine::IMAGE;
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually, within};

const MANY: u32 = 30;
const FEW: u32 = 6;

/// A container that does nothing, without ports: it is ready as soon as it runs.
fn sleeper() -> ServiceSpec {
    ServiceSpec {
        image: IMAGE.to_owned(),
        command: vec!["sleep".to_owned(), "10000".to_owned()],
        runtime: RuntimeKind::Docker,
        reservation: Resources {
            cpu_millis: 10,
            memory: 8 << 20,
            disk: 0,
        },
        stop_grace_ms: Some(1_000),
        ..ServiceSpec::default()
    }
}

/// Thirty replicas on engines that have the image.
pub(super) async fn deploy_many(
    lab: &mut Lab,
    times: usize,
    figures: &mut Figures,
) -> Result<(), LabError> {
    let service = key("many")?;
    for _ in 0..times {
        let start = Instant::now();
        deploy(lab, 0, "many", sleeper(), MANY).await?;
        eventually("30 containers are ready", 60, async || {
            Ok(ready(lab, 0, &service).await?.len() == MANY as usize)
        })
        .await?;
        figures.add("docker-deploy: 30 containers ready", start.elapsed());
        let each = per_host(lab)?;
        if each.iter().sum::<usize>() != MANY as usize || each.contains(&0) {
            return Err(LabError::broken(format!(
                "30 replicas are ready, and the engines run {each:?} containers"
            )));
        }
        gone(lab, "many").await?;
    }
    Ok(())
}

/// A host loses its power, or its cable, in turn; its containers move.
pub(super) async fn kill(
    lab: &mut Lab,
    times: usize,
    figures: &mut Figures,
) -> Result<(), LabError> {
    for turn in 0..times {
        deploy(lab, 0, "few", sleeper(), FEW).await?;
        exactly(lab, "few", FEW as usize, 60).await?;
        // Not the first, which is asked; and a host whose engine is just back may run none.
        let before = per_host(lab)?;
        let victim = (1..before.len()).rev().find(|host| before[*host] > 0);
        let victim = victim.ok_or_else(|| LabError::broken("one host runs all containers"))?;
        let power = turn % 2 == 0;
        let start = Instant::now();
        if power {
            lab.hosts[victim].power_off();
        } else {
            lab.network.cable(victim, false)?;
        }
        within("the others run all", Duration::from_secs(30), async || {
            let mut counts = per_host(lab)?;
            counts[victim] = 0;
            Ok(counts.iter().sum::<usize>() >= FEW as usize)
        })
        .await?;
        let name = if power {
            "docker-kill: power lost, all containers run elsewhere"
        } else {
            "docker-kill: cable lost, all containers run elsewhere"
        };
        figures.add(name, start.elapsed());
        if power {
            lab.hosts[victim].start(None)?;
        } else {
            lab.network.cable(victim, true)?;
        }
        for host in &lab.hosts {
            eventually("all nodes are back", 40, async || {
                Ok(host.alive().await? == lab.hosts.len())
            })
            .await?;
        }
        exactly(lab, "few", FEW as usize, 60).await?;
        gone(lab, "few").await?;
    }
    Ok(())
}

/// Containers that run on each host. A host without power has none.
fn per_host(lab: &Lab) -> Result<Vec<usize>, LabError> {
    lab.hosts.iter().map(|host| host.containers()).collect()
}

/// Removes a service and waits until no engine runs anything of it.
async fn gone(lab: &Lab, name: &str) -> Result<(), LabError> {
    remove(lab, name).await?;
    eventually("no container is left", 30, async || {
        Ok(per_host(lab)?.iter().all(|count| *count == 0))
    })
    .await
    .map(|_| ())
}
