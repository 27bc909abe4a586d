//! A cluster splits, people change different things on both sides, and it comes together again.

use std::collections::BTreeMap;

use super::{deploy, exactly, key, ready, remove, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab, eventually};

pub(super) async fn run(lab: &mut Lab, figures: &mut Figures) -> Result<(), LabError> {
    deploy(lab, 0, "split", whoami(), 4).await?;
    exactly(lab, "split", 4, 20).await?;
    let last = lab.hosts.len() - 1;
    lab.network.split(&[last])?;
    let all = lab.hosts.len();
    let apart = eventually("both sides know that they are alone", 20, async || {
        Ok(lab.hosts[0].alive().await? == all - 1 && lab.hosts[last].alive().await? == 1)
    })
    .await?;
    figures.add("partition: both sides know", apart);
    edit_both(lab, last).await?;
    lab.network.heal()?;
    let healed = eventually("all nodes see each other", 30, async || {
        for host in &lab.hosts {
            if host.alive().await? != all {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    figures.add("partition: all see each other after the heal", healed);
    exactly(lab, "split", 6, 60).await?;
    let service = key("split")?;
    for host in &lab.hosts {
        let detail = host.client().inspect(&service).await;
        let detail = detail.map_err(|e| LabError::new("inspect", e))?;
        if detail.scale != 6 || detail.spec.environment.get("SIDE").map(String::as_str) != Some("b")
        {
            return Err(LabError::broken(format!(
                "{} has lost an edit",
                host.name()
            )));
        }
    }
    exactly(lab, "minority", 2, 40).await?;
    remove(lab, "minority").await?;
    remove(lab, "split").await
}

/// The majority scales; the minority changes the specification, and deploys something of its own.
async fn edit_both(lab: &Lab, last: usize) -> Result<(), LabError> {
    let service = key("split")?;
    let scaled = lab.hosts[0].client().scale(&service, 6).await;
    scaled.map_err(|e| LabError::new("scale", e))?;
    let mut spec = whoami();
    spec.environment = BTreeMap::from([("SIDE".to_owned(), "b".to_owned())]);
    deploy(lab, last, "split", spec, 4).await?;
    deploy(lab, last, "minority", whoami(), 2).await?;
    eventually("the majority has six", 30, async || {
        Ok(ready(lab, 0, &service).await?.len() == 6)
    })
    .await?;
    eventually("the minority has all by itself", 30, async || {
        let own = ready(lab, last, &service).await?;
        let minority = ready(lab, last, &key("minority")?).await?;
        Ok(own.len() == 4 && minority.len() == 2)
    })
    .await?;
    Ok(())
}
