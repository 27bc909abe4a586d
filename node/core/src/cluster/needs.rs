//! Dependencies of the services that matter here: their claims are indexed too, so that this node
//! notices when a condition comes to hold.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::desired::Desired;
use dunlin_state::model::{Claim, Mode, NodeId, ServiceKey};

use super::{Cluster, find_claim};

/// Who waits for whom, of the services that this node acts for.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// What each of them depends on.
    needs: BTreeMap<ServiceKey, BTreeSet<ServiceKey>>,
    /// The other way round.
    needed: BTreeMap<ServiceKey, BTreeSet<ServiceKey>>,
}

impl Needs {
    pub(super) fn is_needed(&self, service: &ServiceKey) -> bool {
        self.needed.contains_key(service)
    }

    /// Returns the services that are needed since now, or not any more.
    fn set(&mut self, service: &ServiceKey, new: BTreeSet<ServiceKey>) -> Vec<ServiceKey> {
        let old = if new.is_empty() {
            self.needs.remove(service)
        } else {
            self.needs.insert(service.clone(), new.clone())
        };
        let old = old.unwrap_or_default();
        let mut changed = Vec::new();
        for gone in old.difference(&new) {
            if let Some(users) = self.needed.get_mut(gone) {
                users.remove(service);
                if users.is_empty() {
                    self.needed.remove(gone);
                    changed.push(gone.clone());
                }
            }
        }
        for came in new.difference(&old) {
            let users = self.needed.entry(came.clone()).or_default();
            if users.is_empty() {
                changed.push(came.clone());
            }
            users.insert(service.clone());
        }
        changed
    }
}

impl Cluster {
    /// Services that this node acts for and that depend on this one.
    pub(crate) fn dependents(&self, service: &ServiceKey) -> BTreeSet<ServiceKey> {
        let found = self.needs.needed.get(service);
        found.cloned().unwrap_or_default()
    }

    /// All claims to slots of a service, also of nodes that are gone. Of one that is not watched
    /// here they have to be searched for, which is for people who ask.
    pub(crate) fn all_claims<'a>(&'a self, service: &'a ServiceKey) -> Vec<(NodeId, &'a Claim)> {
        let Some(watch) = self.watched.get(service) else {
            let registers = self.nodes.iter().filter_map(|(node, known)| {
                let register = known.register.as_ref()?;
                Some((*node, &register.report.claims))
            });
            let claims = registers.flat_map(|(node, claims)| claims.iter().map(move |c| (node, c)));
            return claims.filter(|(_, c)| c.slot.service == *service).collect();
        };
        let known = watch.slots().filter_map(|(slot, node)| {
            let claims = &self.register(node)?.report.claims;
            Some((node, find_claim(claims, service, slot)?))
        });
        known.collect()
    }

    /// Takes note of what a service depends on, if this node acts for it.
    pub(super) fn review_needs(&mut self, service: &ServiceKey, acts: bool, desired: &Desired) {
        let known = desired.services.get(service).filter(|known| {
            // Every node claims its own slot of a daemon service.
            acts || known.spec.mode == Mode::Global
        });
        let needs = known.iter().flat_map(|known| &known.spec.depends_on);
        let needs = needs.map(|dependency| dependency.service.clone()).collect();
        for changed in self.needs.set(service, needs) {
            let acts = self.acts_for(&changed, desired);
            self.watch_or_not(&changed, acts, desired);
        }
    }
}
