//! Is this node cut off, and for how long?
//!
//! A node is cut off when it sees fewer than half of the nodes that it knows, itself among them. Who
//! sees half or more goes on: that may be one side of a division, or what is left of a cluster
//! whose other hosts have died. Two halves of the same size both go on, and of two nodes each is a
//! half; services that must never run twice ask for more than that.
//!
//! Services say what a node does then (`on_isolation`): keep their replicas, or stop them after a time.
//! What was stopped, or did not run, starts again only when the node has seen enough of the others for
//! a moment: until then it cannot know that nobody has taken its place.

#[cfg(test)]
mod tests;

use dunlin_state::model::Policy;

/// Milliseconds after its return in which a node learns what has been taken over meanwhile: registers
/// come with the first connection, and old ones are distrusted for as long.
const SETTLE_MS: u64 = 3_000;

/// Milliseconds between two looks at what to stop while a node is cut off.
const LOOK_MS: u64 = 500;

/// Whether this node sees enough of the others.
#[derive(Debug)]
pub(crate) struct Isolation {
    /// Nobody else was seen in this life, and others were known in an earlier one.
    alone: bool,
    /// Since when it has been cut off.
    since: Option<u64>,
    /// Until when it learns what has happened meanwhile.
    settling: Option<u64>,
    look_at: Option<u64>,
}

impl Isolation {
    /// A node that starts.
    pub(crate) fn new(peers_known: bool, now: u64) -> Self {
        Self {
            alone: peers_known,
            since: peers_known.then_some(now),
            settling: None,
            look_at: None,
        }
    }

    /// Takes note of how many of the nodes that are known answer, this one counted in both. Returns
    /// whether that has changed anything.
    pub(crate) fn observe(&mut self, alive: usize, known: usize, now: u64) -> bool {
        self.alone &= known <= 1;
        let cut_off = self.alone || alive.saturating_mul(2) < known;
        match (self.since, cut_off) {
            (None, true) => {
                self.since = Some(now);
                self.settling = None;
            }
            (Some(_), false) => {
                self.since = None;
                self.settling = Some(now.saturating_add(SETTLE_MS));
            }
            (None, false) | (Some(_), true) => return false,
        }
        self.look_at = Some(now);
        true
    }

    /// Whether it sees enough of the others, and has for a moment.
    pub(crate) fn is_over(&self) -> bool {
        self.since.is_none() && self.settling.is_none()
    }

    /// Why a replica may not run now, if it may not. `runs` says that it does.
    pub(crate) fn bars(&self, policy: &Policy, runs: bool, now: u64) -> Option<String> {
        let patience = policy.stop_isolated_after_ms?;
        match (self.since, self.settling) {
            (Some(since), _) if !runs || now.saturating_sub(since) >= patience => {
                Some("this node sees fewer than half of the others".to_owned())
            }
            (None, Some(until)) if !runs && now < until => {
                Some("this node was cut off, and looks who has taken over".to_owned())
            }
            (Some(_) | None, _) => None,
        }
    }

    /// When what depends on it should be looked at again.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        let looks = self.since.is_some() || self.settling.is_some();
        looks.then_some(self.look_at.unwrap_or(0))
    }

    /// Whether it is time to look at what depends on it.
    pub(crate) fn handle_timeout(&mut self, now: u64) -> bool {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return false;
        }
        self.look_at = Some(now.saturating_add(LOOK_MS));
        if self.settling.is_some_and(|until| until <= now) {
            self.settling = None;
        }
        true
    }
}
