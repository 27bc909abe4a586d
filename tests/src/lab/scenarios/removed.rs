//! A host is removed for good: everybody cuts it off, its work moves, it learns why, and its disk
//! is worth nothing. Then a new node is made of it, which joins with a ticket.

use std::time::{Duration, Instant};

use dunlin_api::{NodeState, RemoveQuery};

use super::{answers, deploy, exactly, key, ready, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually, within};

const REPLICAS: usize = 9;

pub(super) async fn run(
    lab: &mut Lab,
    times: usize,
    figures: &mut Figures,
) -> Result<(), LabError> {
    deploy(lab, 0, "web", whoami(), REPLICAS as u32).await?;
    exactly(lab, "web", REPLICAS, 20).await?;
    // Always the same: what a removed admin has granted ends too, and the others shall stay admins.
    let victim = lab.hosts.len() - 1;
    for _ in 0..times {
        remove(lab, victim, figures).await?;
        learns(lab, victim).await?;
        lab.hosts[victim].power_off();
        lab.hosts[victim].wipe()?;
        let ticket = lab.ticket().await?;
        join(lab, victim, &ticket, figures).await?;
        exactly(lab, "web", REPLICAS, 40).await?;
    }
    super::remove(lab, "web").await
}

async fn remove(lab: &Lab, victim: usize, figures: &mut Figures) -> Result<(), LabError> {
    let (name, service) = (lab.hosts[victim].name(), key("web")?);
    let start = Instant::now();
    let query = RemoveQuery::default();
    let removed = lab.hosts[0].client().remove_node(&name, &query).await;
    removed.map_err(|e| LabError::new("remove a node", e))?;
    let bound = Duration::from_secs(15);
    within("the others have cut it off", bound, async || {
        for host in lab.hosts.iter().filter(|h| h.name() != name) {
            if host.state_of(&name).await == Some(NodeState::Alive) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    figures.add("remove: cut off by all other nodes", start.elapsed());
    within("all replicas answer elsewhere", bound, async || {
        let slots = ready(lab, 0, &service).await?;
        let elsewhere = slots.values().flatten().filter(|r| r.node_name != name);
        Ok(elsewhere.filter(|r| answers(r)).count() >= REPLICAS)
    })
    .await?;
    figures.add("remove: all replicas answer elsewhere", start.elapsed());
    Ok(())
}

async fn learns(lab: &Lab, victim: usize) -> Result<(), LabError> {
    let client = lab.hosts[victim].client();
    eventually("the removed node knows it", 30, async || {
        Ok(client.node().await.is_ok_and(|node| node.removed))
    })
    .await?;
    eventually("its replicas have ended", 30, async || {
        let status = client.node().await;
        Ok(status.is_ok_and(|node| node.counts.replicas_here == 0))
    })
    .await?;
    Ok(())
}

async fn join(
    lab: &mut Lab,
    newcomer: usize,
    ticket: &str,
    figures: &mut Figures,
) -> Result<(), LabError> {
    let (name, start) = (lab.hosts[newcomer].name(), Instant::now());
    lab.hosts[newcomer].start(Some(ticket))?;
    within(
        "it is a member at all",
        Duration::from_secs(30),
        async || {
            for host in &lab.hosts {
                if host.state_of(&name).await != Some(NodeState::Alive) {
                    return Ok(false);
                }
            }
            Ok(true)
        },
    )
    .await?;
    figures.add(
        "join: from `up --join` to a member on all nodes",
        start.elapsed(),
    );
    Ok(())
}
