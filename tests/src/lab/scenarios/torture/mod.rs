//! Torture: a seeded mix of faults and of people's changes, again and again, each time followed by
//! peace, in which the cluster has to come to rest and is then judged from outside.
//!
//! The seed decides what is done and in which order; the machine decides how long each step takes,
//! so that a seed brings back the same plan and not the same run. At most a minority of the hosts
//! is in trouble at a time. Everything that was done stands in a history, which is told when
//! something is wrong.

mod calls;
mod check;
mod faults;
mod fixed;
mod ledger;
mod people;
mod view;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dunlin_api::AvailabilityRequest;
use dunlin_state::model::Availability;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Lab, Pace};
use crate::lab::net::LabError;
use crate::lab::{Figures, eventually};
use check::Judge;
use faults::{Can, Trouble};
use ledger::Ledger;
use watch::Watch;

/// How long trouble lasts before there is peace: long enough for a lost host's work to move and
/// come back, short enough for many rounds.
const TROUBLE: Duration = Duration::from_secs(20);
/// Within this the cluster has to come to rest after everything is mended.
const REST: Duration = Duration::from_secs(60);
/// The cluster is at rest when it looks so twice, this far apart.
const STILL: Duration = Duration::from_secs(1);
/// Between two looks at a cluster that is not at rest: each look is hundreds of requests.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Of a long history only so many lines are told, the newest.
const TOLD: usize = 500;

/// What was done, with times.
#[derive(Debug)]
struct Story {
    start: Instant,
    lines: Vec<String>,
}

impl Story {
    fn note(&mut self, what: &str) {
        let at = self.start.elapsed().as_secs_f64();
        self.lines.push(format!("{at:8.3} s  {what}"));
    }

    fn tell(&self) {
        eprintln!("--- what was done");
        let skipped = self.lines.len().saturating_sub(TOLD);
        for line in self.lines.iter().skip(skipped) {
            eprintln!("    {line}");
        }
    }
}

/// A run.
struct Torture {
    rng: ChaCha8Rng,
    story: Story,
    can: Can,
    /// The hosts in trouble.
    troubles: BTreeMap<usize, Trouble>,
    /// The hosts to which something was done since the cluster was last at rest.
    touched: BTreeSet<String>,
    ledger: Ledger,
}

pub(super) async fn run(lab: &mut Lab, pace: &Pace, figures: &mut Figures) -> Result<(), LabError> {
    settle(lab).await?;
    fixed::deploy_all(lab).await?;
    let mut torture = Torture {
        rng: ChaCha8Rng::seed_from_u64(pace.seed),
        story: Story {
            start: Instant::now(),
            lines: Vec::new(),
        },
        can: Can::find_out(lab),
        troubles: BTreeMap::new(),
        touched: BTreeSet::new(),
        ledger: Ledger::default(),
    };
    let (hosts, seed, seconds) = (lab.hosts.len(), pace.seed, pace.seconds);
    println!("lab: torture of {hosts} hosts for {seconds} s with seed {seed}");
    let result = torture.rounds(lab, seconds, figures).await;
    result.map_err(|error| {
        torture.story.tell();
        LabError::broken(format!(
            "{error}\nagain: scripts/torture --seconds {seconds} --seed {seed} --hosts {hosts}"
        ))
    })
}

/// Gives every host a disk and a clock of its own.
async fn settle(lab: &mut Lab) -> Result<(), LabError> {
    let all = lab.hosts.len();
    for host in &mut lab.hosts {
        host.power_off();
        host.with_own_hardware()?;
        host.start(None)?;
    }
    for host in &lab.hosts {
        eventually("everybody is back", 60, async || {
            Ok(host.knows_all(all).await)
        })
        .await?;
    }
    Ok(())
}

impl Torture {
    async fn rounds(
        &mut self,
        lab: &mut Lab,
        seconds: u64,
        figures: &mut Figures,
    ) -> Result<(), LabError> {
        let bound = Duration::from_secs(seconds);
        let mut rounds = 0;
        let watch = Watch::start(lab)?;
        while self.story.start.elapsed() < bound {
            self.trouble(lab).await?;
            self.mend_all(lab)?;
            let rest = self.rest(lab).await?;
            self.look_back(&watch)?;
            figures.add("torture: from the last mending to rest", rest);
            rounds += 1;
            println!(
                "lab: round {rounds}: at rest after {:.1} s",
                rest.as_secs_f64()
            );
        }
        self.remove_all(lab).await?;
        self.rest(lab).await?;
        self.look_back(&watch)?;
        if std::env::var_os("DUNLIN_LAB_KEEP").is_some() {
            self.story.tell();
        }
        println!(
            "lab: {rounds} rounds, {} faults, changes: {}",
            faults::count(&self.story.lines),
            self.ledger.summary()
        );
        Ok(())
    }

    /// Faults and changes for a while.
    async fn trouble(&mut self, lab: &mut Lab) -> Result<(), LabError> {
        let start = Instant::now();
        while start.elapsed() < TROUBLE {
            self.people(lab).await;
            if self.rng.random_ratio(1, 2) {
                self.fault(lab)?;
            }
            let pause = Duration::from_millis(self.rng.random_range(100..1_200));
            tokio::time::sleep(pause).await;
            self.nobody_died(lab)?;
        }
        Ok(())
    }

    /// What was seen on the way from the last rest to this one.
    fn look_back(&mut self, watch: &Watch) -> Result<(), LabError> {
        let found = watch.complaints(&std::mem::take(&mut self.touched));
        match found.is_empty() {
            true => Ok(()),
            false => Err(LabError::broken(found.join("\n    "))),
        }
    }

    /// Daemons end when they are killed, and only then.
    fn nobody_died(&mut self, lab: &mut Lab) -> Result<(), LabError> {
        for host in &mut lab.hosts {
            if let Some(status) = host.ended() {
                let name = host.name();
                return Err(LabError::broken(format!(
                    "the daemon of {name} has ended by itself: {status}"
                )));
            }
            if let Some(end) = host.engine_ended() {
                let name = host.name();
                return Err(LabError::broken(format!(
                    "the container engine of {name} has ended by itself, for which nobody here can \
                     answer: {end}"
                )));
            }
            if let Some(line) = host.panic() {
                let name = host.name();
                return Err(LabError::broken(format!(
                    "the daemon of {name} has panicked: {line}"
                )));
            }
        }
        Ok(())
    }

    /// Waits until the cluster is at rest and as it should be. How long it took.
    async fn rest(&mut self, lab: &mut Lab) -> Result<Duration, LabError> {
        let start = Instant::now();
        self.story.note("waiting for rest");
        self.wait(lab, async |lab, _ledger| view::apart(lab).await)
            .await?;
        self.activate_all(lab).await?;
        let mut judge = Judge::new(lab)?;
        self.wait(lab, async |lab, ledger| judge.complaints(lab, ledger).await)
            .await?;
        tokio::time::sleep(STILL).await;
        self.wait(lab, async |lab, ledger| judge.complaints(lab, ledger).await)
            .await?;
        self.ledger.settle(lab).await?;
        self.story.note("at rest, and as it should be");
        Ok(start.elapsed())
    }

    /// Waits until nobody complains.
    async fn wait(
        &mut self,
        lab: &mut Lab,
        mut complaints: impl AsyncFnMut(&Lab, &Ledger) -> Vec<String>,
    ) -> Result<(), LabError> {
        let start = Instant::now();
        let mut last = None;
        loop {
            self.nobody_died(lab)?;
            let found = complaints(lab, &self.ledger).await;
            let Some(first) = found.first() else {
                return Ok(());
            };
            // What keeps it from rest belongs to the story.
            if last.as_ref() != Some(first) {
                self.story.note(&format!("not at rest: {first}"));
                last = Some(first.clone());
            }
            if start.elapsed() > REST {
                return Err(LabError::broken(format!(
                    "{REST:?} after everything is mended:\n    {}",
                    found.join("\n    ")
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes back all drains, now that everybody has heard of them.
    async fn activate_all(&mut self, lab: &Lab) -> Result<(), LabError> {
        for host in &lab.hosts {
            let request = AvailabilityRequest {
                availability: Availability::Active,
            };
            let (client, name) = (lab.hosts[0].client(), host.name());
            eventually("a host is active again", 30, async || {
                Ok(client.set_availability(&name, request).await.is_ok())
            })
            .await?;
        }
        self.story.note("all hosts are active");
        Ok(())
    }
}
