//! The machine's own timers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use dunlin_state::model::NodeId;
use foca::Timer;

use super::identity::WireId;
use super::watch::Step;

/// Something to do later.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// A timer of foca's.
    Foca(Timer<WireId>),
    /// The end of a suspicion that this node holds since `since`.
    Convict {
        member: WireId,
        since: u64,
        timer: Timer<WireId>,
    },
    /// Tell a suspect, once more, that it is one.
    Nudge(WireId),
    /// Ask over the reliable path if the probe with this number is still open.
    Fallback { member: WireId, number: u8 },
    /// Watch the neighbour.
    Watch,
    /// The next step of the watch with this number.
    Watching { number: u8, step: Step },
    /// A further copy of a datagram.
    Copy { to: SocketAddr, bytes: Bytes },
    /// Call members that are down, and seeds.
    Contact,
    /// Call members that are down right away: a partition seems to heal.
    Heal,
    /// Ask a member for the members it knows: there seem to be more.
    Exchange,
    /// After coming back from "down": tell some members the new identity.
    Introduce,
}

/// Tasks by due time, first in first out among equals.
#[derive(Debug, Default)]
pub(super) struct Queue {
    tasks: BTreeMap<(u64, u64), Task>,
    pushed: u64,
}

impl Queue {
    pub(super) fn push(&mut self, due: u64, task: Task) {
        self.pushed += 1;
        self.tasks.insert((due, self.pushed), task);
    }

    /// The earliest due time, mono ms.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.tasks.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the next task that is due.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<Task> {
        let entry = self.tasks.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Drops everything that `keep` does not want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Task) -> bool) {
        self.tasks.retain(|_, task| keep(task));
    }

    /// This process stood still: everything is due `by` later. Suspicions get at least until
    /// `fresh(member)`. Returns the suspects.
    pub(super) fn delay(&mut self, by: u64, mut fresh: impl FnMut(NodeId) -> u64) -> Vec<WireId> {
        let mut suspects = Vec::new();
        for ((due, order), task) in std::mem::take(&mut self.tasks) {
            let mut due = due.saturating_add(by);
            if let Task::Convict { member, .. } = &task {
                due = due.max(fresh(member.member.node));
                suspects.push(*member);
            }
            self.tasks.insert((due, order), task);
        }
        suspects
    }
}
