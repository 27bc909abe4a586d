//! Services that wait for others are looked at again when these have changed.

use dunlin_state::model::ServiceKey;

use super::Agent;
use crate::depend::{Gate, Wait};

impl Agent {
    /// What the present revision of a service waits for, if anything.
    pub fn waits_for(&self, key: &ServiceKey) -> Option<Wait> {
        let service = self.desired.services.get(key)?;
        let gate = Gate {
            cluster: &self.cluster,
            desired: &self.desired,
        };
        gate.wait(key, service)
    }

    /// The conditions of a service may have changed: whoever waits for one is looked at again. Only
    /// a real change goes on from here, so services that wait for each other, as two sides of a
    /// partition may have made them, do not keep this node busy.
    pub(super) fn tell_dependents(&mut self, service: &ServiceKey) {
        let dependents = self.cluster.dependents(service);
        if dependents.is_empty() {
            self.conditions.remove(service);
            return;
        }
        let gate = Gate {
            cluster: &self.cluster,
            desired: &self.desired,
        };
        let now = gate.conditions(service);
        if self.conditions.insert(service.clone(), now) != Some(now) {
            self.dirty.extend(dependents);
        }
    }
}
