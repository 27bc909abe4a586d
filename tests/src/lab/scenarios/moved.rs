//! All hosts come back from a power cut with other addresses, and one of them has lost its disk.
//! The addresses that they remember and that a ticket holds lead nowhere: only mDNS is left.

use super::{deploy, exactly, remove, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually};

pub(super) async fn run(lab: &mut Lab, figures: &mut Figures) -> Result<(), LabError> {
    deploy(lab, 0, "nomad", whoami(), 5).await?;
    exactly(lab, "nomad", 5, 20).await?;
    let ticket = lab.ticket().await?;
    lab.hosts.iter_mut().for_each(super::super::Host::power_off);
    lab.network.renumber()?;
    let all = lab.hosts.len();
    let last = all - 1;
    lab.hosts[last].wipe()?;
    for (index, host) in lab.hosts.iter_mut().enumerate() {
        host.has_moved(&lab.network);
        host.start((index == last).then_some(ticket.as_str()))?;
    }
    let start = std::time::Instant::now();
    for host in &lab.hosts {
        eventually("all nodes have found each other", 60, async || {
            Ok(host.alive().await? == all)
        })
        .await?;
    }
    figures.add("moved: all nodes see each other again", start.elapsed());
    exactly(lab, "nomad", 5, 60).await?;
    remove(lab, "nomad").await
}
