//! A host is lost, with its power or its cable, and its work moves.

use std::time::{Duration, Instant};

use dunlin_api::NodeState;

use super::{answers, deploy, exactly, key, ready, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually, within};

const REPLICAS: usize = 6;

pub(super) async fn run(
    lab: &mut Lab,
    times: usize,
    figures: &mut Figures,
) -> Result<(), LabError> {
    deploy(lab, 0, "web", whoami(), REPLICAS as u32).await?;
    exactly(lab, "web", REPLICAS, 20).await?;
    for turn in 0..times {
        let victim = 1 + turn % (lab.hosts.len() - 1);
        if turn % 2 == 0 {
            lab.hosts[victim].power_off();
        } else {
            lab.network.cable(victim, false)?;
        }
        let names = if turn % 2 == 0 {
            (
                "kill: down at all other nodes",
                "kill: all replicas answer elsewhere",
            )
        } else {
            (
                "black hole: down at all other nodes",
                "black hole: all replicas answer elsewhere",
            )
        };
        lost(lab, victim, names, figures).await?;
        if turn % 2 == 0 {
            lab.hosts[victim].start(None)?;
        } else {
            lab.network.cable(victim, true)?;
        }
        back(lab).await?;
    }
    super::remove(lab, "web").await
}

async fn lost(
    lab: &Lab,
    victim: usize,
    names: (&'static str, &'static str),
    figures: &mut Figures,
) -> Result<(), LabError> {
    let start = Instant::now();
    let service = key("web")?;
    let name = lab.hosts[victim].name();
    let bound = Duration::from_secs(15);
    within("the others know", bound, async || {
        for host in lab.hosts.iter().filter(|h| h.name() != name) {
            if host.state_of(&name).await != Some(NodeState::Down) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    figures.add(names.0, start.elapsed());
    within("all replicas answer elsewhere", bound, async || {
        let slots = ready(lab, 0, &service).await?;
        let elsewhere = slots.values().flatten().filter(|r| r.node_name != name);
        Ok(elsewhere.filter(|r| answers(r)).count() >= REPLICAS)
    })
    .await?;
    figures.add(names.1, start.elapsed());
    Ok(())
}

async fn back(lab: &Lab) -> Result<(), LabError> {
    for host in &lab.hosts {
        eventually("all nodes are back", 30, async || {
            Ok(host.alive().await? == lab.hosts.len())
        })
        .await?;
    }
    exactly(lab, "web", REPLICAS, 40).await
}
