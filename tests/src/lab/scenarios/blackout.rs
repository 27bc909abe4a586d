//! All hosts lose power at once, and come back with nothing lost.

use super::{deploy, exactly, remove, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually};

pub(super) async fn run(lab: &mut Lab, figures: &mut Figures) -> Result<(), LabError> {
    deploy(lab, 0, "survivor", whoami(), 5).await?;
    exactly(lab, "survivor", 5, 20).await?;
    // Accepted by one node a moment before the lights go out.
    deploy(lab, 1, "latest", whoami(), 1).await?;
    lab.hosts.iter_mut().for_each(super::super::Host::power_off);
    for host in &mut lab.hosts {
        host.start(None)?;
    }
    let all = lab.hosts.len();
    for host in &lab.hosts {
        eventually("all nodes are back", 30, async || {
            Ok(host.alive().await? == all)
        })
        .await?;
    }
    let start = std::time::Instant::now();
    exactly(lab, "survivor", 5, 60).await?;
    exactly(lab, "latest", 1, 60).await?;
    figures.add(
        "blackout: all replicas ready after all nodes are back",
        start.elapsed(),
    );
    remove(lab, "latest").await?;
    remove(lab, "survivor").await
}
