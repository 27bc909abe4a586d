//! Deploys and lost hosts, with containers. Both are counted by the same engines, in the same way.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::results::{Comparison, OWN};
use super::swarm::{self, Swarm};
use super::{Bench, machine, single};
use crate::lab::{IMAGE, Lab, LabError, Workloads, eventually, within};

const HOSTS: usize = 3;
const SIZES: [u32; 3] = [1, 6, 30];
const FEW: u32 = 6;
const PEER: &str = "swarm";

/// Waiting longer for containers is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// Dunlin and Swarm on the same engines.
struct Pair {
    swarm: Swarm,
    lab: Lab,
    file: PathBuf,
    binary: PathBuf,
}

#[derive(Debug, Clone, Copy)]
enum Who {
    Own,
    Peer,
}

impl Who {
    /// Both, in turn: who began last time comes last.
    const fn in_turn(round: usize) -> [Self; 2] {
        if round.is_multiple_of(2) {
            [Self::Own, Self::Peer]
        } else {
            [Self::Peer, Self::Own]
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Own => OWN,
            Self::Peer => PEER,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Loss {
    Power,
    Cable,
    Frozen,
}

impl Loss {
    const fn name(self) -> &'static str {
        match self {
            Self::Power => "killed",
            Self::Cable => "cable pulled",
            Self::Frozen => "frozen",
        }
    }
}

/// From the command to the last container.
pub(super) async fn deploy(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    single::processes(bench, taken, &SIZES).await?;
    let Some(pair) = Pair::start(bench, taken).await? else {
        return Ok(());
    };
    for round in 0..bench.times(8, 1) {
        for size in SIZES {
            for who in Who::in_turn(round) {
                let start = Instant::now();
                pair.deploy(who, size)?;
                pair.wait_for(size as usize, &[]).await?;
                taken.add(
                    "from the command to the last container",
                    "s",
                    who.name(),
                    size,
                    start.elapsed().as_secs_f64(),
                );
                pair.remove(who).await?;
            }
        }
    }
    Ok(())
}

/// From the loss of a host to the last container elsewhere.
pub(super) async fn loss(bench: &Bench, taken: &mut Comparison) -> Result<(), LabError> {
    let Some(mut pair) = Pair::start(bench, taken).await? else {
        return Ok(());
    };
    // Swarm takes 20 s for each, and as long to be whole again.
    let all = [Loss::Cable, Loss::Power, Loss::Frozen];
    let losses = &all[..bench.times(3, 1)];
    for round in 0..bench.times(3, 1) {
        for kind in losses {
            for who in Who::in_turn(round) {
                let taken_s = pair.lose(who, *kind).await?;
                taken.add(
                    "from the loss to six containers elsewhere",
                    "s",
                    who.name(),
                    kind.name(),
                    taken_s,
                );
            }
        }
    }
    Ok(())
}

impl Pair {
    async fn start(bench: &Bench, taken: &mut Comparison) -> Result<Option<Self>, LabError> {
        if let Some(reason) = Workloads::Containers.impossible() {
            taken
                .skipped
                .push(format!("Docker Swarm, and containers at all: {reason}"));
            return Ok(None);
        }
        let lab = Lab::start(&bench.binary, HOSTS, Workloads::Containers).await?;
        let swarm = Swarm::form(&lab)?;
        let version = machine::version("dockerd".as_ref(), &["--version"]);
        taken.versions.insert("Docker".to_owned(), version);
        let file = lab.folder().join("compose.yaml");
        Ok(Some(Self {
            swarm,
            lab,
            file,
            binary: bench.binary.clone(),
        }))
    }

    fn deploy(&self, who: Who, replicas: u32) -> Result<(), LabError> {
        match who {
            Who::Own => {
                let text = format!(
                    "services:\n  t:\n    image: {IMAGE}\n    command: [sleep, '10000']\n    \
                     stop_grace_period: 1s\n    deploy: {{replicas: {replicas}}}\n"
                );
                fs::write(&self.file, text)
                    .map_err(|e| LabError::new("write a Compose file", e))?;
                let file = self.file.display().to_string();
                self.dunlin(&["deploy", "--detach", "--file", &file])
            }
            Who::Peer => self.swarm.deploy("t", replicas),
        }
    }

    /// Removes it and waits until no engine has any container left, dead ones included.
    async fn remove(&self, who: Who) -> Result<(), LabError> {
        match who {
            Who::Own => self.dunlin(&["rm", "t"])?,
            Who::Peer => self.swarm.remove("t")?,
        }
        within("the engines have no container left", PATIENCE, async || {
            let engines = self.lab.hosts.iter().filter_map(|h| h.engine_address());
            let left = engines.map(|engine| swarm::existing(&engine));
            Ok(left.sum::<Result<usize, _>>()? == 0)
        })
        .await?;
        // What one does after its containers are gone should not be a burden to the other: the
        // kernel takes networks and mounts apart for a while.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    fn dunlin(&self, words: &[&str]) -> Result<(), LabError> {
        let host = self.lab.hosts[0].api_address();
        let output = Command::new(&self.binary)
            .args(["--host", &host])
            .args(words)
            .output()
            .map_err(|e| LabError::new("run dunlin", e))?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(LabError::new(
            &format!("dunlin {}", words.join(" ")),
            complaint,
        ))
    }

    /// Waits until the engines run so many containers, not counting those of some hosts.
    async fn wait_for(&self, count: usize, without: &[usize]) -> Result<(), LabError> {
        let what = format!("the engines run {count} containers");
        within(&what, PATIENCE, async || {
            Ok(self.counts(without)?.iter().sum::<usize>() == count)
        })
        .await
        .map(|_| ())
    }

    fn counts(&self, without: &[usize]) -> Result<Vec<usize>, LabError> {
        let mut counts = Vec::with_capacity(self.lab.hosts.len());
        for (at, host) in self.lab.hosts.iter().enumerate() {
            counts.push(match host.engine_address() {
                Some(engine) if !without.contains(&at) => swarm::running(&engine)?,
                _ => 0,
            });
        }
        Ok(counts)
    }

    /// Has a host lost and found again; the time in between that containers were too few.
    async fn lose(&mut self, who: Who, kind: Loss) -> Result<f64, LabError> {
        self.deploy(who, FEW)?;
        self.wait_for(FEW as usize, &[]).await?;
        // Both know of their containers by now, and think of nothing else.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = self.counts(&[])?;
        let victim = (1..before.len()).rev().find(|host| before[*host] > 0);
        let victim = victim.ok_or_else(|| LabError::broken("one host runs all containers"))?;
        let start = Instant::now();
        match kind {
            Loss::Power => self.lab.hosts[victim].power_off(),
            Loss::Cable => self.lab.network.cable(victim, false)?,
            Loss::Frozen => self.lab.hosts[victim].signal_all("STOP")?,
        }
        self.wait_for(FEW as usize, &[victim]).await?;
        let lost_for = start.elapsed().as_secs_f64();
        match kind {
            Loss::Power => self.lab.hosts[victim].start(None)?,
            Loss::Cable => self.lab.network.cable(victim, true)?,
            Loss::Frozen => self.lab.hosts[victim].signal_all("CONT")?,
        }
        self.whole().await?;
        self.wait_for(FEW as usize, &[]).await?;
        self.remove(who).await?;
        Ok(lost_for)
    }

    /// Waits until everybody sees everybody.
    async fn whole(&self) -> Result<(), LabError> {
        for host in &self.lab.hosts {
            eventually("an engine answers again", 60, async || {
                Ok(host
                    .engine_address()
                    .is_some_and(|e| swarm::running(&e).is_ok()))
            })
            .await?;
            eventually("all nodes are back", 60, async || {
                Ok(host.alive().await? == HOSTS)
            })
            .await?;
        }
        self.swarm.whole().await
    }
}
