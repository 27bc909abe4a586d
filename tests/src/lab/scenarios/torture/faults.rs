//! What is done to hosts, and how it is mended.

use std::process::Command;

use rand::RngExt as _;

use super::{Lab, Torture};
use crate::lab::net::LabError;

/// What every fault's line in the history begins with.
const FAULT: &str = "fault: ";

/// Seconds by which a clock is wrong at most: certificates stand skew of minutes.
const WRONG_BY_S: i32 = 240;

/// What this machine lets a lab do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Can {
    filter: bool,
    set_clocks: bool,
}

impl Can {
    /// Finds out; hosts have their own hardware already.
    pub(super) fn find_out(lab: &Lab) -> Self {
        let can = Self {
            filter: can_filter(&lab.network.namespace(0)),
            set_clocks: lab.hosts.iter().all(|host| host.has_clock()),
        };
        if !can.filter {
            println!(
                "lab: nft does not work here: no packet is lost, and no link cut in one direction"
            );
        }
        if !can.set_clocks {
            println!("lab: there is no libfaketime here: all clocks are right");
        }
        if !lab.hosts.iter().any(|host| host.has_engine()) {
            println!("lab: no container engine can be had here: no containers, and none restarts");
        }
        can
    }
}

/// What is wrong with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Its daemon was killed; its replicas go on.
    DaemonKilled,
    /// Everything on it was killed.
    PowerCut,
    /// Its daemon is stopped in its tracks.
    Frozen,
    /// Its cable is out.
    Unplugged,
    /// It is on the other side of a partition, with all others of whom this is so.
    Apart,
    /// It hears nobody.
    Deaf,
    /// Nobody hears it.
    Mute,
    /// So many of a hundred packets to it are lost.
    Lossy(u8),
    /// Its disk takes not a byte.
    DiskFull,
    /// Its wall clock is so many seconds fast, or slow.
    WrongClock(i32),
    /// Its container engine was killed; the containers go on, and nobody can reach them.
    EngineKilled,
    /// Its container engine was asked to end, and ends its containers first, unless it has been told
    /// to let them live.
    EngineStopped,
}

impl Trouble {
    fn inflict(self, lab: &mut Lab, host: usize) -> Result<(), LabError> {
        match self {
            Self::DaemonKilled => lab.hosts[host].kill_daemon(),
            Self::PowerCut => lab.hosts[host].power_off(),
            Self::Frozen => lab.hosts[host].signal("STOP")?,
            Self::Unplugged => lab.network.cable(host, false)?,
            Self::Apart => lab.network.split(&[host])?,
            Self::Deaf => filter(lab, host, "input iifname eth0 drop")?,
            Self::Mute => filter(lab, host, "output oifname eth0 drop")?,
            Self::Lossy(percent) => {
                let rule = format!("input iifname eth0 numgen random mod 100 < {percent} drop");
                filter(lab, host, &rule)?;
            }
            Self::DiskFull => lab.hosts[host].fill_disk(true)?,
            Self::WrongClock(seconds) => lab.hosts[host].set_clock(seconds)?,
            Self::EngineKilled => lab.hosts[host].stop_engine("KILL")?,
            Self::EngineStopped => lab.hosts[host].stop_engine("TERM")?,
        }
        Ok(())
    }

    fn mend(self, lab: &mut Lab, host: usize) -> Result<(), LabError> {
        match self {
            Self::DaemonKilled | Self::PowerCut => lab.hosts[host].start(None),
            Self::Frozen => lab.hosts[host].signal("CONT"),
            Self::Unplugged => lab.network.cable(host, true),
            Self::Apart => lab.network.join(&[host]),
            Self::Deaf | Self::Mute | Self::Lossy(_) => {
                nft(&lab.network.namespace(host), "delete table inet torture")
            }
            Self::DiskFull => lab.hosts[host].fill_disk(false),
            Self::WrongClock(_) => lab.hosts[host].set_clock(0),
            Self::EngineKilled | Self::EngineStopped => lab.hosts[host].restart_engine(),
        }
    }
}

impl Torture {
    /// Makes some trouble, or ends some.
    pub(super) fn fault(&mut self, lab: &mut Lab) -> Result<(), LabError> {
        let minority = (lab.hosts.len() - 1) / 2;
        let host = self.rng.random_range(0..lab.hosts.len());
        let trouble = self.draw(lab.hosts[host].has_engine());
        let full = self.troubles.len() >= minority;
        if let Some(old) = self.troubles.remove(&host) {
            self.story.note(&format!("mended: h{host} {old:?}"));
            return old.mend(lab, host);
        }
        if full {
            return Ok(());
        }
        self.story.note(&format!("{FAULT}h{host} {trouble:?}"));
        trouble.inflict(lab, host)?;
        self.troubles.insert(host, trouble);
        self.touched.insert(lab.hosts[host].name());
        Ok(())
    }

    /// Trouble that can be made here. Whatever that is, each draw takes as much from the seed.
    fn draw(&mut self, engine: bool) -> Trouble {
        let percent = self.rng.random_range(5..50);
        let seconds = self.rng.random_range(-WRONG_BY_S..WRONG_BY_S);
        let mut all = vec![
            Trouble::DaemonKilled,
            Trouble::PowerCut,
            Trouble::Frozen,
            Trouble::Unplugged,
            Trouble::Apart,
            Trouble::DiskFull,
        ];
        if self.can.filter {
            all.extend([Trouble::Deaf, Trouble::Mute, Trouble::Lossy(percent)]);
        }
        if self.can.set_clocks {
            all.push(Trouble::WrongClock(seconds));
        }
        if engine {
            all.extend([Trouble::EngineKilled, Trouble::EngineStopped]);
        }
        all[self.rng.random_range(0..all.len())]
    }

    /// Ends all trouble.
    pub(super) fn mend_all(&mut self, lab: &mut Lab) -> Result<(), LabError> {
        while let Some((host, trouble)) = self.troubles.pop_first() {
            self.story.note(&format!("mended: h{host} {trouble:?}"));
            trouble.mend(lab, host)?;
        }
        Ok(())
    }
}

/// How many faults a history tells of.
pub(super) fn count(lines: &[String]) -> usize {
    lines.iter().filter(|l| l.contains(FAULT)).count()
}

/// Whether packets can be filtered in a namespace.
fn can_filter(namespace: &str) -> bool {
    let rules = "add table inet torture; delete table inet torture";
    nft(namespace, rules).is_ok()
}

/// Adds one rule, named by its hook, to a host that has none.
fn filter(lab: &Lab, host: usize, rule: &str) -> Result<(), LabError> {
    let (hook, rule) = rule.split_once(' ').unwrap_or((rule, ""));
    let rules = format!(
        "add table inet torture; \
         add chain inet torture drops {{ type filter hook {hook} priority 0; }}; \
         add rule inet torture drops {rule}"
    );
    nft(&lab.network.namespace(host), &rules)
}

fn nft(namespace: &str, rules: &str) -> Result<(), LabError> {
    let space = format!("--net=/run/netns/{namespace}");
    // Debian has it where only root looks for programs.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("nsenter")
        .env("PATH", path)
        .args([&space, "nft", rules])
        .output()
        .map_err(|e| LabError::new("run nft", e))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::new(&format!("nft {rules}"), complaint))
}
