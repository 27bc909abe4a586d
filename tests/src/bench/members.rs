//! How fast all members know something: that one is gone, or what one was told.

use std::time::{Duration, Instant};

use dunlin_api::NodeState;

use super::results::{Comparison, OWN};
use super::serf::{self, Serf};
use super::{Bench, machine};
use crate::lab::scenarios::write_seen;
use crate::lab::{Lab, LabError, Workloads, eventually, within};

const PEER: &str = "serf";

/// Longer than any of both takes.
const PATIENCE: Duration = Duration::from_secs(60);

const KILLED: &str = "killed: known to all others";
const BACK: &str = "started again: knows all others, and they it";
const CABLE: &str = "cable pulled: known to all others";

/// Deaths.
pub(super) async fn detection(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    for hosts in sizes(bench) {
        let mut lab = Lab::start(&bench.binary, *hosts, Workloads::Processes).await?;
        let mut serf = peer(&lab, taken).await?;
        for round in 0..bench.times(4, 2) {
            // Not the first: the others come back through it.
            let victim = 1 + round % (hosts - 1);
            let (known, back) = own_killed(&mut lab, victim).await?;
            taken.add(KILLED, "s", OWN, hosts, known);
            taken.add(BACK, "s", OWN, hosts, back);
            if let Some(serf) = &mut serf {
                let (known, back) = peer_killed(serf, victim).await?;
                taken.add(KILLED, "s", PEER, hosts, known);
                taken.add(BACK, "s", PEER, hosts, back);
            }
            let victim = 1 + (round + 1) % (hosts - 1);
            let (own, peer) = cable_pulled(&lab, serf.as_ref(), victim).await?;
            taken.add(CABLE, "s", OWN, hosts, own);
            if let Some(peer) = peer {
                taken.add(CABLE, "s", PEER, hosts, peer);
            }
        }
    }
    Ok(())
}

/// Writes and events.
pub(super) async fn spread(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    let what = "from the answer until all have it";
    for hosts in sizes(bench) {
        let lab = Lab::start(&bench.binary, *hosts, Workloads::Processes).await?;
        let serf = peer(&lab, taken).await?;
        for round in 0..bench.times(30, 5) {
            let at = round % hosts;
            let own = write_seen(&lab, at).await?;
            taken.add(what, "ms", OWN, hosts, own.as_secs_f64() * 1e3);
            let Some(serf) = &serf else { continue };
            let event = format!("bench-{round}");
            serf.tell(at, &event)?;
            let start = Instant::now();
            while serf.heard(&event) < *hosts {
                if start.elapsed() > PATIENCE {
                    return Err(LabError::broken("a serf event has not reached all"));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            taken.add(what, "ms", PEER, hosts, start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(())
}

fn sizes(bench: &Bench) -> &'static [usize] {
    if bench.quick { &[3] } else { &[3, 6, 12] }
}

async fn peer(lab: &Lab, taken: &mut Comparison) -> Result<Option<Serf>, LabError> {
    if let Some(reason) = serf::missing() {
        if taken.skipped.is_empty() {
            taken.skipped.push(reason);
        }
        return Ok(None);
    }
    let version = machine::version("serf".as_ref(), &["version"]);
    taken.versions.insert(PEER.to_owned(), version);
    Serf::form(lab).await.map(Some)
}

async fn own_killed(lab: &mut Lab, victim: usize) -> Result<(f64, f64), LabError> {
    let start = Instant::now();
    lab.hosts[victim].kill_daemon();
    within("the daemons know", PATIENCE, async || {
        Ok(all_know(lab, victim).await)
    })
    .await?;
    let known = start.elapsed().as_secs_f64();
    let again = Instant::now();
    lab.hosts[victim].start(None)?;
    whole(lab).await?;
    Ok((known, again.elapsed().as_secs_f64()))
}

async fn peer_killed(serf: &mut Serf, victim: usize) -> Result<(f64, f64), LabError> {
    let before = serf.failures(victim);
    let start = Instant::now();
    serf.kill(victim);
    within("the agents know", PATIENCE, async || {
        Ok(all_more(&before, &serf.failures(victim)))
    })
    .await?;
    let known = start.elapsed().as_secs_f64();
    let again = Instant::now();
    serf.start(victim).await?;
    serf.whole().await?;
    Ok((known, again.elapsed().as_secs_f64()))
}

/// Both have to notice the same loss.
async fn cable_pulled(
    lab: &Lab,
    serf: Option<&Serf>,
    victim: usize,
) -> Result<(f64, Option<f64>), LabError> {
    let before = serf.map(|s| s.failures(victim));
    let (mut own, mut peer) = (None, None);
    let start = Instant::now();
    lab.network.cable(victim, false)?;
    within("both know", PATIENCE, async || {
        if own.is_none() && all_know(lab, victim).await {
            own = Some(start.elapsed().as_secs_f64());
        }
        let Some((serf, before)) = serf.zip(before.as_ref()) else {
            return Ok(own.is_some());
        };
        if peer.is_none() && all_more(before, &serf.failures(victim)) {
            peer = Some(start.elapsed().as_secs_f64());
        }
        Ok(own.is_some() && peer.is_some())
    })
    .await?;
    lab.network.cable(victim, true)?;
    whole(lab).await?;
    if let Some(serf) = serf {
        serf.whole().await?;
    }
    own.map(|own| (own, peer))
        .ok_or_else(|| LabError::broken("nobody knows"))
}

async fn all_know(lab: &Lab, victim: usize) -> bool {
    let name = lab.hosts[victim].name();
    for (at, host) in lab.hosts.iter().enumerate() {
        if at != victim && host.state_of(&name).await != Some(NodeState::Down) {
            return false;
        }
    }
    true
}

fn all_more(before: &[usize], now: &[usize]) -> bool {
    before.iter().zip(now).all(|(before, now)| now > before)
}

/// Waits until each daemon shows each node as alive, by the name that only the node itself can tell.
async fn whole(lab: &Lab) -> Result<(), LabError> {
    for host in &lab.hosts {
        eventually("all nodes are back", 60, async || {
            Ok(host.knows_all(lab.hosts.len()).await)
        })
        .await?;
    }
    Ok(())
}
