//! How fast the names of all nodes follow a change, and that they come back by themselves after a
//! host has lost its network for a while.

use std::time::{Duration, Instant};

use dunlin_state::model::Slot;

use super::{deploy, exactly, key, remove, whoami};
use crate::lab::net::LabError;
use crate::lab::resolve::{Asker, Outside, Said};
use crate::lab::{Figures, Lab, eventually};

/// How long the host is cut off: longer than it takes to be held for gone and have its work moved.
const DROP: Duration = Duration::from_secs(15);

/// How long all nodes may take to agree before something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// A name that is asked of the lab's own resolver.
const ELSEWHERE: &str = "elsewhere.example.com";

pub(super) async fn run(
    lab: &mut Lab,
    times: usize,
    figures: &mut Figures,
) -> Result<(), LabError> {
    let _outside = Outside::start()?;
    let askers = (0..lab.hosts.len())
        .map(|host| Asker::new(&lab.network.namespace(host)))
        .collect::<Result<Vec<_>, _>>()?;
    changes(lab, times, &askers, figures).await?;
    cut_off(lab, &askers, figures).await
}

/// From an accepted change until the last node's DNS has it. The nodes are asked in turn, so that
/// the figure contains a question to each.
async fn changes(
    lab: &Lab,
    times: usize,
    askers: &[Asker],
    figures: &mut Figures,
) -> Result<(), LabError> {
    for turn in 0..times * 5 {
        let name = format!("named{turn}");
        let full = format!("{name}.default.dunlin.internal");
        agree(askers, &full, |said| *said == Said::NoSuchName)?;
        deploy(lab, turn % lab.hosts.len(), &name, whoami(), 0).await?;
        let there = agree(askers, &full, |said| matches!(said, Said::Addresses(_)))?;
        figures.add("names: an accepted service is named on all nodes", there);
        let scaled = lab.hosts[0].client().scale(&key(&name)?, 2).await;
        scaled.map_err(|e| LabError::new("scale", e))?;
        exactly(lab, &name, 2, 30).await?;
        let tasks = format!("tasks.{full}");
        agree(askers, &tasks, |said| *said == askers[0].ask(&tasks))?;
        let second = format!("1.{full}");
        let stopped = lab.hosts[0].client().scale(&key(&name)?, 1).await;
        stopped.map_err(|e| LabError::new("scale", e))?;
        let gone = agree(askers, &second, |said| *said == Said::NoSuchName)?;
        figures.add("names: a replica to be stopped is named nowhere", gone);
        let removed = lab.hosts[0].client().remove(&key(&name)?).await;
        removed.map_err(|e| LabError::new("remove", e))?;
        let denied = agree(askers, &full, |said| *said == Said::NoSuchName)?;
        figures.add("names: an accepted removal is denied on all nodes", denied);
    }
    Ok(())
}

/// Waits until every node says what it should; how long that took.
fn agree(
    askers: &[Asker],
    name: &str,
    right: impl Fn(&Said) -> bool,
) -> Result<Duration, LabError> {
    let start = Instant::now();
    for (host, asker) in askers.iter().enumerate() {
        loop {
            let said = asker.ask(name);
            if right(&said) {
                break;
            }
            if start.elapsed() > PATIENCE {
                return Err(LabError::broken(format!(
                    "h{host} still says {said:?} of {name}"
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(start.elapsed())
}

/// A host loses its network for a while.
async fn cut_off(lab: &Lab, askers: &[Asker], figures: &mut Figures) -> Result<(), LabError> {
    let (all, lost) = (lab.hosts.len(), lab.hosts.len() - 1);
    let replicas = u32::try_from(all).unwrap_or(u32::MAX);
    deploy(lab, 0, "kept", whoami(), replicas).await?;
    exactly(lab, "kept", all, 30).await?;
    let tasks = "tasks.kept.default.dunlin.internal";
    agree(askers, tasks, |said| said.count() == all)?;
    let given = askers[0].ask(tasks);
    agree(askers, tasks, |said| *said == given)?;
    let there = slots_on(lab, "kept", lost).await?;
    agree(askers, ELSEWHERE, |said| {
        *said == Said::these([Outside::GIVES])
    })?;

    lab.network.cable(lost, false)?;
    let cut = Instant::now();
    let mut withdrawn = Duration::ZERO;
    for slot in there {
        let name = format!("{slot}.kept.default.dunlin.internal");
        withdrawn = withdrawn.max(agree(&askers[..lost], &name, |said| said.count() == 0)?);
    }
    figures.add("names: a lost host's replicas are named nowhere", withdrawn);
    while cut.elapsed() < DROP {
        // It goes on answering from what it knows, and never denies what exists.
        let said = askers[lost].ask(tasks);
        if !matches!(&said, Said::Addresses(_)) {
            return Err(LabError::broken(format!(
                "the lost host says {said:?} of {tasks}"
            )));
        }
        if askers[lost].ask_once(ELSEWHERE) == Said::NoSuchName {
            return Err(LabError::broken(
                "the lost host denies names that it cannot ask about",
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    lab.network.cable(lost, true)?;
    let back = Instant::now();
    agree(askers, ELSEWHERE, |said| {
        *said == Said::these([Outside::GIVES])
    })?;
    figures.add("names: other names are back after the drop", back.elapsed());
    eventually(
        "all nodes name the same replicas, the lost one's too",
        60,
        async || {
            let first = askers[0].ask(tasks);
            let same = askers.iter().all(|asker| asker.ask(tasks) == first);
            Ok(same && matches!(&first, Said::Addresses(list) if !list.is_empty()))
        },
    )
    .await?;
    figures.add(
        "names: all nodes agree again after the drop",
        back.elapsed(),
    );
    exactly(lab, "kept", all, 60).await?;
    remove(lab, "kept").await
}

/// The slots whose replicas a host runs.
async fn slots_on(lab: &Lab, name: &str, host: usize) -> Result<Vec<Slot>, LabError> {
    let detail = lab.hosts[0].client().inspect(&key(name)?).await;
    let detail = detail.map_err(|e| LabError::new("inspect", e))?;
    let there = lab.hosts[host].name();
    let held = detail.replicas.iter().filter(|r| r.node_name == there);
    Ok(held.map(|r| r.slot).collect())
}
