//! Room that is being made for services of a higher priority.

use dunlin_state::Now;

use super::{Agent, Output, push_reconciled};

impl Agent {
    /// Goes on with what makes room, when nothing else is to be looked at. Returns whether anything
    /// has changed.
    pub(super) fn pursue_evictions(&mut self, now: Now, out: &mut Vec<Output>) -> bool {
        let (changed, effects) = self.with_world(|r, world| r.pursue_evictions(world, now));
        push_reconciled(effects, out);
        changed
    }
}
