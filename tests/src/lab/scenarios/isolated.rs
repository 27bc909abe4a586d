//! A host reboots while it is cut off, and starts its own work with nobody's help.

use super::{deploy, exactly, key, ready, remove, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually};

pub(super) async fn run(lab: &mut Lab, figures: &mut Figures) -> Result<(), LabError> {
    // Two for each host and no more on any, so that the last one holds some although it may still be
    // doubted after the partition before.
    let replicas = lab.hosts.len() * 2;
    let mut spec = whoami();
    spec.placement.max_per_node = Some(2);
    let last = lab.hosts.len() - 1;
    let service = key("alone")?;
    deploy(lab, 0, "alone", spec, replicas as u32).await?;
    exactly(lab, "alone", replicas, 20).await?;
    let name = lab.hosts[last].name();
    let slots = ready(lab, 0, &service).await?;
    let own: Vec<_> = slots
        .values()
        .flatten()
        .filter(|r| r.node_name == name)
        .map(|r| r.slot)
        .collect();
    if own.is_empty() {
        return Err(LabError::broken(
            "the last host holds no replica before its reboot",
        ));
    }
    lab.network.cable(last, false)?;
    lab.hosts[last].power_off();
    lab.hosts[last].start(None)?;
    eventually("the isolated daemon answers", 10, async || {
        Ok(lab.hosts[last].client().version().await.is_ok())
    })
    .await?;
    let restarted = eventually("it runs its own slots again", 20, async || {
        let slots = ready(lab, last, &service).await?;
        Ok(own.iter().all(|slot| slots.contains_key(slot)))
    })
    .await?;
    figures.add(
        "isolated reboot: own slots ready after the API answers",
        restarted,
    );
    lab.network.cable(last, true)?;
    exactly(lab, "alone", replicas, 60).await?;
    remove(lab, "alone").await
}
