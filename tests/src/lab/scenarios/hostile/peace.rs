//! What must stay as it was while somebody attacks: everybody sees everybody, what runs goes on
//! where it ran, API, DNS and the published port answer, and nobody grows.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use dunlin_api::NodeState;
use dunlin_state::model::{NodeId, SlotId};

use super::{PUBLISHED, get};
use crate::lab::net::LabError;
use crate::lab::resolve::{Asker, Said};
use crate::lab::{Lab, eventually};

/// Bytes that a daemon may grow by.
const GROWTH: u64 = 20 << 20;

/// Seconds for everything to be well again. Attacks take CPU from whoever runs beside them.
const PATIENCE: u64 = 60;

/// An honest node.
#[derive(Debug, Clone)]
pub(super) struct Honest {
    pub(super) node: NodeId,
    pub(super) boot: u64,
    pub(super) address: SocketAddr,
}

/// How things were.
pub(super) struct Peace {
    pub(super) honest: Vec<Honest>,
    askers: Vec<Asker>,
    memory: Vec<u64>,
    /// Who held what, and since which epoch.
    pub(super) held: BTreeMap<SlotId, (NodeId, u64)>,
}

impl Peace {
    /// Looks at a lab that is well.
    pub(super) async fn see(lab: &Lab) -> Result<Self, LabError> {
        let mut honest = Vec::new();
        let nodes = lab.hosts[0].client().nodes().await;
        let nodes = nodes.map_err(|e| LabError::new("list nodes", e))?;
        for host in &lab.hosts {
            let node = nodes.iter().find(|node| node.name == host.name());
            let node = node.ok_or_else(|| LabError::broken("a host is no node"))?;
            let Some(address) = node.address else {
                return Err(LabError::broken("a node has no address"));
            };
            honest.push(Honest {
                node: node.id,
                boot: node.boot,
                address,
            });
        }
        let askers = (0..lab.hosts.len()).map(|at| Asker::new(&lab.network.namespace(at)));
        let askers = askers.collect::<Result<Vec<_>, _>>()?;
        let memory = lab.hosts.iter();
        let memory = memory.map(|host| resident(host.pid(), "VmRSS:")).collect();
        let held = holders(lab).await?;
        Ok(Self {
            honest,
            askers,
            memory,
            held,
        })
    }

    /// As seen now, but for how large daemons were.
    pub(super) fn with_memory_of(mut self, earlier: &Self) -> Self {
        self.memory.clone_from(&earlier.memory);
        self
    }

    /// Everything is well, or will be in a moment.
    pub(super) async fn holds(&self, lab: &Lab, after: &str) -> Result<(), LabError> {
        for host in &lab.hosts {
            let what = format!("after {after}, {} sees all others alive", host.name());
            eventually(&what, PATIENCE, async || {
                let Ok(nodes) = host.client().nodes().await else {
                    return Ok(false);
                };
                let alive = |honest: &Honest| {
                    let mut nodes = nodes.iter();
                    nodes.any(|n| n.id == honest.node && n.state == NodeState::Alive)
                };
                Ok(self.honest.iter().all(alive))
            })
            .await?;
            let node = host.client().node().await;
            if node.is_ok_and(|node| node.removed) {
                return Err(LabError::broken(format!(
                    "{after} has removed {}",
                    host.name()
                )));
            }
        }
        let what = format!("after {after}, what ran runs");
        eventually(&what, PATIENCE, async || {
            Ok(holders(lab).await?.len() == self.held.len())
        })
        .await?;
        for (at, asker) in self.askers.iter().enumerate() {
            let what = format!("after {after}, h{at} answers for its service");
            let name = "web.default.dunlin.internal";
            eventually(&what, PATIENCE, async || {
                Ok(matches!(asker.ask(name), Said::Addresses(found) if !found.is_empty()))
            })
            .await?;
            let address = SocketAddr::new(self.honest[at].address.ip(), PUBLISHED);
            let what = format!("after {after}, {address} answers");
            eventually(&what, PATIENCE, async || {
                let body = get(address);
                Ok(body.is_some_and(|body| body.contains("200 OK")))
            })
            .await?;
        }
        Ok(())
    }

    /// Nothing has moved. Somebody may be held for gone for a moment on a host that is busy with
    /// other things, so what moved once is looked at again by who asks.
    pub(super) async fn moved(&self, lab: &Lab) -> Result<Vec<SlotId>, LabError> {
        let now = holders(lab).await?;
        let differ = self
            .held
            .iter()
            .filter(|(slot, held)| now.get(*slot) != Some(*held));
        Ok(differ.map(|(slot, _)| slot.clone()).collect())
    }

    /// No daemon has grown.
    pub(super) async fn nobody_grew(&self, lab: &Lab, after: &str) -> Result<u64, LabError> {
        let mut most = 0;
        for (host, before) in lab.hosts.iter().zip(&self.memory) {
            let mut grown = 0;
            let looked = eventually("memory is given back", PATIENCE, async || {
                grown = resident(host.pid(), "VmRSS:").saturating_sub(*before);
                Ok(grown <= GROWTH)
            })
            .await;
            looked.map_err(|_late| {
                let (name, mb) = (host.name(), grown >> 20);
                let own = resident(host.pid(), "RssAnon:") >> 20;
                LabError::broken(format!(
                    "{name} has grown by {mb} MB after {after}; {own} MB of it all are its own, the \
                     rest is its program"
                ))
            })?;
            most = most.max(grown);
        }
        Ok(most)
    }
}

async fn holders(lab: &Lab) -> Result<BTreeMap<SlotId, (NodeId, u64)>, LabError> {
    let replicas = lab.hosts[0].replicas().await?;
    // Whatever somebody else says that it holds.
    let ours = |name: &String| lab.hosts.iter().any(|host| host.name() == *name);
    let ready = replicas
        .into_iter()
        .filter(|r| r.ready && ours(&r.node_name));
    let slots = ready.map(|r| {
        let slot = SlotId {
            service: r.service,
            slot: r.slot,
        };
        (slot, (r.node, r.epoch))
    });
    Ok(slots.collect())
}

/// Resident memory of a process of this kind, in bytes.
fn resident(pid: Option<u32>, kind: &str) -> u64 {
    let status = pid.map(|pid| fs::read_to_string(format!("/proc/{pid}/status")));
    let status = status.and_then(Result::ok).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(kind));
    let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}
