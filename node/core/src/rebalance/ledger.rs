//! Who runs what, and what of it may be moved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{
    Claim, Mode, NodeId, Phase, ServiceKey, Slot, SlotId, Trial, VolumeMount,
};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::liveness::Standing;

/// Why no replica of a service is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stays {
    /// Its specification says so.
    OptedOut,
    /// It has volumes that it could begin anew elsewhere, and does not say that they may be left.
    Volumes,
    /// It has volumes that it can run with only where their data is.
    Data,
    /// There must never be two of it.
    Strict,
    /// Its specification is being replaced, or that is held.
    Rollout,
    /// Not every replica is ready and proven.
    Unready,
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OptedOut => "it says 'rebalance: false'",
            Self::Volumes => {
                "it has volumes, which stay on their nodes; 'rebalance: true' moves it all the same"
            }
            Self::Data => {
                "it runs where the data of its volumes is: `dunlin volume export` and `import \
                 --node` move that, or say 'allow_empty: true' and 'rebalance: true'"
            }
            Self::Strict => "it is a strict singleton",
            Self::Rollout => "its rollout is under way, or held",
            Self::Unready => "not all of its replicas are ready and proven",
        })
    }
}

/// Whether anything of a service could ever be moved: jobs end by themselves, and services for every
/// node are everywhere.
pub(super) fn is_placed(service: &Service) -> bool {
    service.spec.mode == Mode::Replicated
        && service.jobs.run.is_none()
        && service.wanted_replicas() > 0
}

/// The claims of the cluster by service.
pub(super) struct Ledger<'a> {
    held: BTreeMap<&'a ServiceKey, Vec<(NodeId, &'a Claim)>>,
    /// Nodes that take, or give away, a replica right now.
    pub(super) busy: BTreeSet<NodeId>,
    /// Replicas on their way.
    pub(super) moving: usize,
    /// When a replica was last moved, by the wall clock of its node.
    pub(super) last: Option<u64>,
    /// Whether a replica that was driven out waits for a place.
    pub(super) preempted: bool,
}

impl<'a> Ledger<'a> {
    pub(super) fn read(cluster: &'a Cluster) -> Self {
        let mut ledger = Self {
            held: BTreeMap::new(),
            busy: BTreeSet::new(),
            moving: 0,
            last: None,
            preempted: false,
        };
        let nodes = cluster.nodes().filter(|(_, n)| n.standing.holds_claims());
        for (node, known) in nodes {
            let Some(register) = &known.register else {
                continue;
            };
            ledger.preempted |= !register.report.preempted.is_empty();
            for claim in &register.report.claims {
                let service = ledger.held.entry(&claim.slot.service).or_default();
                service.push((node, claim));
            }
        }
        let moved = ledger.held.values().flatten();
        let moved = moved.filter_map(|(node, claim)| Some((*node, *claim, claim.moved_from?)));
        let moved: Vec<(NodeId, &Claim, NodeId)> = moved.collect();
        for (node, claim, from) in moved {
            ledger.last = ledger.last.max(Some(claim.since));
            if !claim.leaving && ledger.holds(from, &claim.slot) {
                ledger.moving += 1;
                ledger.busy.extend([node, from]);
            }
        }
        ledger
    }

    fn holds(&self, node: NodeId, slot: &SlotId) -> bool {
        let claims = self.held.get(&slot.service).into_iter().flatten();
        let mut claims = claims.filter(|(holder, _)| *holder == node);
        claims.any(|(_, claim)| claim.slot == *slot)
    }

    /// Who holds the slots of a service, if it may be moved at all.
    pub(super) fn holders(
        &self,
        key: &ServiceKey,
        service: &Service,
        cluster: &Cluster,
    ) -> Result<BTreeMap<u32, (NodeId, &'a Claim)>, Stays> {
        may_move(service)?;
        let mut holders = BTreeMap::new();
        for (node, claim) in self.held.get(key).into_iter().flatten() {
            let Slot::Replica(index) = claim.slot.slot else {
                return Err(Stays::Unready);
            };
            if claim.revision != service.revision {
                return Err(Stays::Rollout);
            }
            let well = claim.phase == Phase::Running
                && claim.ready
                && !claim.leaving
                && claim.trial == Trial::Proven
                && cluster.standing(*node) == Standing::Alive
                && cluster.is_trusted(*node);
            if !well || holders.insert(index, (*node, *claim)).is_some() {
                return Err(Stays::Unready);
            }
        }
        match holders.keys().copied().eq(0..service.wanted_replicas()) {
            true => Ok(holders),
            false => Err(Stays::Unready),
        }
    }
}

fn may_move(service: &Service) -> Result<(), Stays> {
    let spec = &service.spec;
    let bound = |mount: &VolumeMount| !mount.is_bind() && !mount.allow_empty;
    match spec.policy.rebalance {
        Some(false) => return Err(Stays::OptedOut),
        Some(true) | None if spec.volumes.iter().any(bound) => return Err(Stays::Data),
        None if !spec.volumes.is_empty() => return Err(Stays::Volumes),
        Some(true) | None => {}
    }
    if spec.policy.is_strict() {
        return Err(Stays::Strict);
    }
    match service.rollout.paused || service.rollout.canary.is_some() {
        true => Err(Stays::Rollout),
        false => Ok(()),
    }
}

/// All services that could be moved if they wanted, ordered.
pub(super) fn placed(desired: &Desired) -> impl Iterator<Item = (&ServiceKey, &Service)> {
    desired.services.iter().filter(|(_, s)| is_placed(s))
}
