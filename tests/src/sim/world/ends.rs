//! Workloads that do their work and end.

use dunlin_core::io::{Input, WorkloadId};
use rand::RngExt as _;

use super::{Next, SECOND, World};
use crate::sim::check;

impl World {
    /// Most of it ends well, after some seconds.
    pub(super) fn plan_end(&mut self, host: usize, id: WorkloadId) {
        let at = self.now + self.rng.random_range(SECOND / 5..4 * SECOND);
        let code = i32::from(self.rng.random_bool(0.1));
        self.queue.push(at, Next::Ends { host, id, code });
    }

    pub(super) fn workload_ends(&mut self, host: usize, id: WorkloadId, code: i32) {
        // It may have been stopped, or its host have lost power.
        let Some(event) = self.hosts[host].runtime.end(&id, code) else {
            return;
        };
        self.note(format!("n{host} {} ends with {code}", id.slot));
        check::ended(self, &id.slot, code);
        self.deliver(host, Input::Runtime(event));
    }
}
