//! Quotas of namespaces: kept beside services, and checked when somebody asks for more.
//!
//! What is asked for on two sides of a partition may exceed a quota together, and a quota may be
//! lowered below what is in use. Neither stops anything that runs: it is shown, and nothing is
//! added until there is room.

use std::collections::BTreeSet;

use super::command::Command;
use super::rejection::Rejection;
use super::snapshot::{Desired, Service};
use super::value::Value;
use crate::model::{Excess, Mode, Quota, ServiceKey, Usage};

impl Value for Quota {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))
    }
}

impl Desired {
    /// What the services of a namespace want together.
    pub fn usage(&self, namespace: &str) -> Usage {
        let services = self.services.iter();
        let own = services.filter(|(key, _)| key.namespace() == namespace);
        own.fold(Usage::default(), |sum, (_, service)| {
            let replicas = counted(service);
            let each = service.spec.reservation;
            let times = |amount: u64| amount.saturating_mul(replicas);
            Usage {
                cpu_millis: sum.cpu_millis.saturating_add(times(each.cpu_millis)),
                memory: sum.memory.saturating_add(times(each.memory)),
                replicas: sum.replicas.saturating_add(replicas),
            }
        })
    }

    /// The bounds of a namespace's quota that its services exceed.
    pub fn over_quota(&self, namespace: &str) -> Vec<Excess> {
        let quota = self.quotas.get(namespace);
        quota.map_or_else(Vec::new, |quota| quota.exceeded(&self.usage(namespace)))
    }

    /// Namespaces that have services or a quota, ordered.
    pub fn namespaces(&self) -> BTreeSet<&str> {
        let services = self.services.keys().map(ServiceKey::namespace);
        services
            .chain(self.quotas.keys().map(String::as_str))
            .collect()
    }
}

/// Nodes add replicas by themselves to services that follow their load, so these count as if they
/// had all that they may.
fn counted(service: &Service) -> u64 {
    match service.spec.mode {
        Mode::Replicated => u64::from(service.most_replicas()),
        Mode::Global => u64::from(service.running),
    }
}

/// Refuses commands that want more of something of which a namespace has no more. Steering a rollout
/// is never refused: going back must be possible, and nodes do it by themselves.
pub(super) fn check(
    before: &Desired,
    after: &Desired,
    commands: &[Command],
) -> Result<(), Rejection> {
    let touched = commands.iter().filter_map(|command| match command {
        Command::Deploy { service, .. }
        | Command::Scale { service, .. }
        | Command::SetRunning { service, .. } => Some(service.namespace()),
        _ => None,
    });
    for namespace in touched.collect::<BTreeSet<_>>() {
        let used = before.usage(namespace);
        let over = after.over_quota(namespace).into_iter();
        if let Some(excess) = over.into_iter().find(|e| e.wanted > used.of(e.of)) {
            return Err(Rejection::OverQuota {
                namespace: namespace.to_owned(),
                excess,
                used: used.of(excess.of),
            });
        }
    }
    Ok(())
}
