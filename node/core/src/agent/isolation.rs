//! What a node does that is cut off from the others.

use dunlin_state::Now;
use dunlin_state::model::ServiceKey;

use super::Agent;
use crate::liveness::Standing;

impl Agent {
    /// Counts who answers of those that are known.
    pub(super) fn observe_isolation(&mut self, now: Now) {
        let nodes = self.cluster.nodes();
        let known = nodes.filter(|(_, node)| node.standing != Standing::Left);
        let (alive, known) = (self.cluster.alive().len(), known.count());
        if self.isolation.observe(alive, known, now.mono) {
            self.look_at_isolated();
        }
    }

    pub(super) fn look_at_isolation(&mut self, now: Now) {
        if self.isolation.handle_timeout(now.mono) {
            self.look_at_isolated();
        }
    }

    /// Services of which this node may have to stop what it holds, or may start it again.
    fn look_at_isolated(&mut self) {
        let services = self.reconciler.claims().map(|c| &c.slot.service);
        let concerned = services.filter(|service| self.stops_isolated(service));
        let concerned: Vec<ServiceKey> = concerned.cloned().collect();
        self.dirty.extend(concerned);
    }

    fn stops_isolated(&self, service: &ServiceKey) -> bool {
        let known = self.desired.services.get(service);
        known.is_some_and(|known| known.spec.policy.stop_isolated_after_ms.is_some())
    }
}
