//! serf on the hosts of a lab: the one program that Debian packages that does nothing but know who is there.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::lab::{Lab, LabError, eventually};

/// Agents, ended when dropped.
#[derive(Debug)]
pub(super) struct Serf {
    agents: Vec<Agent>,
}

#[derive(Debug)]
struct Agent {
    name: String,
    namespace: String,
    address: String,
    log: PathBuf,
    child: Option<Child>,
}

/// Why there can be no serf, or nothing.
pub(super) fn missing() -> Option<String> {
    let there = Command::new("serf").arg("version").output();
    there
        .err()
        .map(|e| format!("serf does not run ({e}); on Debian: apt-get install serf"))
}

impl Serf {
    /// An agent on each host; all are members when this returns.
    pub(super) async fn form(lab: &Lab) -> Result<Self, LabError> {
        let mut serf = Self { agents: Vec::new() };
        for (at, host) in lab.hosts.iter().enumerate() {
            serf.agents.push(Agent {
                name: host.name(),
                namespace: lab.network.namespace(at),
                address: lab.network.address(at),
                log: lab.folder().join(format!("serf{at}.log")),
                child: None,
            });
            serf.start(at).await?;
        }
        serf.whole().await?;
        Ok(serf)
    }

    /// Starts an agent that does not run.
    pub(super) async fn start(&mut self, at: usize) -> Result<(), LabError> {
        let first = self
            .agents
            .first()
            .map(|a| a.address.clone())
            .unwrap_or_default();
        let agent = &mut self.agents[at];
        let log = File::create(&agent.log).map_err(|e| LabError::new("make a log", e))?;
        let mut command = agent.inside();
        command.args(["agent", "-node", &agent.name, "-profile", "lan", "-bind"]);
        command.arg(format!("{}:7946", agent.address));
        if at > 0 {
            command.args(["-join", &first]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn();
        agent.child = Some(child.map_err(|e| LabError::new("start serf", e))?);
        eventually("a serf agent runs", 20, async || {
            Ok(agent.logged("Serf agent starting") > 0 && agent.alive().is_ok())
        })
        .await
        .map(|_| ())
    }

    /// Waits until all agents have all members.
    pub(super) async fn whole(&self) -> Result<(), LabError> {
        for agent in &self.agents {
            eventually("all serf agents are members", 60, async || {
                Ok(agent.alive().unwrap_or(0) == self.agents.len())
            })
            .await?;
        }
        Ok(())
    }

    /// Kills an agent.
    pub(super) fn kill(&mut self, at: usize) {
        if let Some(mut child) = self.agents[at].child.take() {
            // It may have ended by itself.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }

    /// The process of each agent.
    pub(super) fn pids(&self) -> Vec<u32> {
        let children = self.agents.iter().filter_map(|a| a.child.as_ref());
        children.map(Child::id).collect()
    }

    /// How often each of the others has logged that a member failed.
    pub(super) fn failures(&self, victim: usize) -> Vec<usize> {
        let line = format!("EventMemberFailed: {} ", self.agents[victim].name);
        let others = self
            .agents
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != victim);
        others.map(|(_, agent)| agent.logged(&line)).collect()
    }

    /// Tells all members something.
    pub(super) fn tell(&self, at: usize, event: &str) -> Result<(), LabError> {
        let mut command = self.agents[at].inside();
        let told = command.args(["event", "-coalesce=false", event]).output();
        let told = told.map_err(|e| LabError::new("run serf event", e))?;
        match told.status.success() {
            true => Ok(()),
            false => Err(LabError::new(
                "tell serf",
                String::from_utf8_lossy(&told.stdout),
            )),
        }
    }

    /// How many agents have heard it.
    pub(super) fn heard(&self, event: &str) -> usize {
        let line = format!("user-event: {event}\n");
        self.agents
            .iter()
            .filter(|agent| agent.logged(&line) > 0)
            .count()
    }
}

impl Agent {
    /// A command in the host's namespace.
    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .arg("serf");
        command
    }

    fn logged(&self, line: &str) -> usize {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text).matches(line).count()
    }

    fn alive(&self) -> Result<usize, LabError> {
        let list = self.inside().args(["members", "-status", "alive"]).output();
        let list = list.map_err(|e| LabError::new("run serf members", e))?;
        match list.status.success() {
            true => Ok(String::from_utf8_lossy(&list.stdout).lines().count()),
            false => Err(LabError::broken("serf does not answer")),
        }
    }
}

impl Drop for Serf {
    fn drop(&mut self) {
        for at in 0..self.agents.len() {
            self.kill(at);
        }
    }
}
