//! The immutable view of desired state that every decision reads.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::items::Items;
use super::jobs::Jobs;
use super::trust::TrustRecords;
use super::vips::Assigned;
use crate::model::{
    Availability, Hook, Hooks, Job, NodeId, PortSpec, PublishMode, Quota, Rebalancing, RunId,
    ServiceKey, ServiceSpec, Slot, UpdatePolicy, Window,
};

/// Desired state at one moment. Cheap to clone and never changed in place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// Every service that exists.
    pub services: BTreeMap<ServiceKey, Service>,
    /// What people said about nodes; a node nobody spoke of is absent.
    pub nodes: BTreeMap<NodeId, NodeIntent>,
    /// The number of each service among the virtual addresses; no two have the same.
    pub vips: Arc<BTreeMap<ServiceKey, Assigned>>,
    /// Secrets and configs.
    pub items: Arc<Items>,
    /// What the services of a namespace may reserve together, where somebody said so.
    pub quotas: Arc<BTreeMap<String, Quota>>,
    /// Whether replicas are moved to even out nodes.
    pub rebalancing: Rebalancing,
    /// Who belongs to the cluster.
    pub trust: Arc<TrustRecords>,
}

impl Desired {
    /// Another service that publishes a port which `spec` of `service` publishes as well, and the
    /// port. Published ports are answered on every node, so each belongs to one service; only two
    /// sides of a partition can give one away twice. Two services may publish the same port in host
    /// mode: placement keeps them on different nodes.
    pub fn port_clash<'a>(
        &'a self,
        service: &ServiceKey,
        spec: &'a ServiceSpec,
    ) -> Option<(&'a PortSpec, &'a ServiceKey)> {
        let published = spec.ports.iter().filter(|port| port.published.is_some());
        published.into_iter().find_map(|wanted| {
            let others = self.services.iter();
            let mut others = others.filter(|(key, _)| *key != service);
            let held = |held: &PortSpec| clash(wanted, held);
            let holder = others.find(|(_, other)| other.spec.ports.iter().any(held));
            holder.map(|(holder, _)| (wanted, holder))
        })
    }
}

fn clash(a: &PortSpec, b: &PortSpec) -> bool {
    let both_host = a.publish_mode == PublishMode::Host && b.publish_mode == PublishMode::Host;
    // Written differently, "all addresses" is the same, and holds every other one.
    let particular = |ip: &Option<String>| {
        let ip = ip.as_ref()?.parse::<IpAddr>().ok()?;
        (!ip.is_unspecified()).then_some(ip)
    };
    let same_address = match (particular(&a.host_ip), particular(&b.host_ip)) {
        (Some(a), Some(b)) => a == b,
        (None, _) | (_, None) => true,
    };
    a.published == b.published && a.protocol == b.protocol && same_address && !both_host
}

/// A service as wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its specification, with the image register folded in.
    pub spec: Arc<ServiceSpec>,
    /// Hash of `spec`: replicas of another revision are replaced.
    pub revision: String,
    /// How many replicas a replicated service has.
    pub replicas: u32,
    /// Whether it runs at all.
    pub running: bool,
    /// What is said of the rollout of this revision.
    pub rollout: Arc<Rollout>,
    /// Of a job, what is known of its runs; of a service that stands for a run, which one it is.
    pub jobs: Arc<Jobs>,
}

/// What people, or the failure action of an update, say of a rollout. How far it is, only the
/// claims tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollout {
    /// What it replaces; `None` for a first specification.
    pub previous: Option<Previous>,
    /// Whether it goes no further.
    pub paused: bool,
    /// Only so many slots, the lowest, get the new specification.
    pub canary: Option<u32>,
    /// Whether it undoes another one.
    pub is_rollback: bool,
    /// Counts how often it was resumed: failures of earlier rounds are forgiven.
    pub round: u32,
    /// Why it is as it is.
    pub reason: Option<String>,
}

/// A specification that is being replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The specification, with its image.
    pub spec: Arc<ServiceSpec>,
    /// Its hash.
    pub revision: String,
}

impl Service {
    /// The specification of a revision, if it is this one's or the one before.
    pub fn spec_of(&self, revision: &str) -> Option<&Arc<ServiceSpec>> {
        if self.revision == revision {
            return Some(&self.spec);
        }
        let previous = self.rollout.previous.as_ref()?;
        (previous.revision == revision).then_some(&previous.spec)
    }

    /// The specification that a slot should have if it is filled now: while a rollout is paused or
    /// a canary, slots that it has not reached stay with the one before.
    pub fn target(&self, slot: Slot) -> (&str, &Arc<ServiceSpec>) {
        let held = match (self.rollout.canary, slot) {
            (Some(canary), Slot::Replica(index)) => index >= canary,
            (Some(_) | None, Slot::Replica(_) | Slot::Node(_)) => self.rollout.paused,
        };
        match &self.rollout.previous {
            Some(previous) if held => (&previous.revision, &previous.spec),
            Some(_) | None => (&self.revision, &self.spec),
        }
    }

    /// Whether a slot may keep this revision: that of its target, or, unless it is outside a canary,
    /// the newest.
    ///
    /// A run goes on with what it has begun with.
    pub fn allows(&self, slot: Slot, revision: &str) -> bool {
        if self.jobs.run.is_some() {
            return true;
        }
        let (target, _) = self.target(slot);
        let outside = match (self.rollout.canary, slot) {
            (Some(canary), Slot::Replica(index)) => index >= canary,
            (Some(_) | None, Slot::Replica(_) | Slot::Node(_)) => false,
        };
        target == revision || (!outside && self.revision == revision)
    }

    /// How the replicas move to this revision.
    pub fn update(&self) -> &UpdatePolicy {
        let rollback = self.spec.rollback.as_ref();
        rollback
            .filter(|_| self.rollout.is_rollback)
            .unwrap_or(&self.spec.update)
    }

    /// Whether it is a job, which has no replicas itself: its runs have.
    pub fn is_job(&self) -> bool {
        self.spec.job.is_some() && self.jobs.run.is_none()
    }

    /// Whether it has runs: it is a job, or has hooks.
    pub fn has_runs(&self) -> bool {
        self.jobs.run.is_none() && (self.spec.job.is_some() || self.spec.hooks.is_some())
    }

    /// The run of its hook before the deploy, if there is one: not for what is being undone.
    pub fn pre_hook(&self) -> Option<RunId> {
        let hooks = self.spec.hooks.as_deref()?;
        let due = hooks.pre_deploy.is_some() && !self.rollout.is_rollback && self.has_runs();
        due.then(|| RunId::Pre(self.revision.clone(), self.rollout.round))
    }

    /// The run of its hook after the deploy.
    pub fn post_hook(&self) -> Option<RunId> {
        let hooks = self.spec.hooks.as_deref()?;
        let due = hooks.post_deploy.is_some() && !self.rollout.is_rollback && self.has_runs();
        due.then(|| RunId::Post(self.revision.clone()))
    }

    /// The job that a run is one of.
    pub fn job_of(&self, run: &RunId) -> Option<Job> {
        let hook = |hook: fn(&Hooks) -> &Option<Hook>| {
            let hooks = self.spec.hooks.as_deref()?;
            hook(hooks).as_ref().map(Hook::job)
        };
        match run {
            RunId::Pre(..) => hook(|hooks| &hooks.pre_deploy),
            RunId::Post(_) => hook(|hooks| &hooks.post_deploy),
            RunId::Revision(_) | RunId::Instant(_) | RunId::Asked(_) => {
                self.spec.job.as_deref().cloned()
            }
        }
    }

    /// Whether it has no replica when nobody connects, and one again when somebody does.
    pub fn wakes(&self) -> bool {
        let autoscale = self.spec.autoscale.as_deref();
        self.running && autoscale.is_some_and(|autoscale| autoscale.min == 0)
    }

    /// Replicas that there may be without anybody asking: of a service that follows its load, its
    /// maximum.
    pub fn most_replicas(&self) -> u32 {
        let autoscale = self.spec.autoscale.as_deref();
        let most = autoscale.map_or(0, |autoscale| autoscale.max);
        match self.wanted_replicas() {
            0 if !self.running => 0,
            wanted => wanted.max(most),
        }
    }

    /// Replicas that should exist now: none while stopped. Daemon services do not use it.
    pub fn wanted_replicas(&self) -> u32 {
        if self.running && !self.is_job() {
            self.replicas
        } else {
            0
        }
    }
}

/// What people said about a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeIntent {
    /// Whether it takes replicas.
    pub availability: Availability,
    /// Labels that add to, and win over, those of its command line.
    pub labels: BTreeMap<String, String>,
    /// When it is to be worked on.
    pub windows: Vec<Window>,
    /// While a window is open, until when: nobody says that, it follows from the clock. See
    /// [`crate::windows`].
    pub maintenance: Option<u64>,
    /// When the next window opens; follows from the clock too.
    pub next_maintenance: Option<u64>,
}
