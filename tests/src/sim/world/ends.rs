//! Workloads that do their work and end.

use dunlin_core::io::{Input, WorkloadId};
use rand::RngExt as _;

use super::{Next, SECOND, World};
use crate::sim::check;
use crate::sim::runtime::End;

impl World {
    /// Most of it ends well, after some seconds.
    pub(super) fn plan_end(&mut self, host: usize, id: WorkloadId) {
        let at = self.now + self.rng.random_range(SECOND / 5..4 * SECOND);
        let end = match self.rng.random_range(0..100) {
            0..10 => End::Failed,
            10..13 => End::Babbling,
            _ => End::Well,
        };
        self.queue.push(at, Next::Ends { host, id, end });
    }

    pub(super) fn workload_ends(&mut self, host: usize, id: WorkloadId, end: End) {
        // It may have been stopped, or its host have lost power.
        let Some(event) = self.hosts[host].runtime.end(&id, end) else {
            return;
        };
        self.note(format!("n{host} {} ends: {end:?}", id.slot));
        check::ended(self, &id, &event);
        self.deliver(host, Input::Runtime(event));
    }
}
