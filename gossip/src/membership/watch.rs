//! Watching a neighbour, beside foca's random probes.
//!
//! Random probing finds a crash soon on average, but by bad luck nobody may probe the victim for
//! several periods: with period `P` the wait exceeds `4 P` once in a hundred times. So every node
//! also watches the next healthy member in the order of keys, once per period: everybody is
//! watched by one other, and the wait never exceeds `P`. Random probes remain for when the watcher
//! is ill itself. A failed watch ends in the same suspicion as foca's own probes.

use foca::{Incarnation, Member, Message, State, Timer};
use rand::RngExt;

use super::MemberState;
use super::identity::WireId;
use super::machine::{Membership, Turn, note};
use super::queue::Task;

/// A question to the neighbour that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    pub(super) member: WireId,
    incarnation: Incarnation,
    pub(super) number: u8,
    pub(super) answered: bool,
}

/// The steps of one watch, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// No answer yet: ask over the reliable path.
    Fallback,
    /// Still none: ask others to ask.
    Indirect,
    /// Still none: suspect.
    Accuse,
}

impl Membership {
    /// Starts the next watch.
    pub(super) fn watch(&mut self, turn: &mut Turn) {
        let period = self.health.stretch(self.timing.probe_period);
        self.queue.push(turn.now + period, Task::Watch);
        let Some(neighbour) = self.neighbour() else {
            self.watch = None;
            return;
        };
        self.watched = self.watched.wrapping_add(1);
        let watch = Watch {
            number: self.watched,
            ..neighbour
        };
        self.watch = Some(watch);
        self.ask(&watch.member, watch.number, turn);
        let rtt = self.timing.probe_rtt;
        for (step, after) in [
            (Step::Fallback, self.timing.fallback_after),
            (Step::Indirect, rtt),
            (Step::Accuse, 2 * rtt),
        ] {
            let due = turn.now + self.health.stretch(after);
            let number = watch.number;
            self.queue.push(due, Task::Watching { number, step });
        }
    }

    /// Goes on with a watch whose question is still open.
    pub(super) fn watching(&mut self, number: u8, step: Step, turn: &mut Turn) {
        let Some(watch) = self.watch.filter(|watch| watch.number == number) else {
            return;
        };
        if watch.answered {
            if step == Step::Accuse {
                self.health.probe_answered();
            }
            return;
        }
        let still = self
            .peers
            .get(&watch.member.member.node)
            .is_some_and(|peer| peer.id == watch.member && peer.state == MemberState::Alive);
        if !still {
            self.watch = None;
            return;
        }
        match step {
            Step::Fallback => self.ask_reliably(&watch.member, number, turn),
            Step::Indirect => self.ask_others(&watch.member, number, turn),
            Step::Accuse => self.accuse(&watch, turn),
        }
    }

    /// The next member that is alive, in the order of keys, around the end.
    fn neighbour(&self) -> Option<Watch> {
        let after = self.peers.by_node.range(self.me.node..);
        let before = self.peers.by_node.range(..self.me.node);
        let mut ring = after.chain(before).map(|(_, peer)| peer);
        let peer = ring.find(|peer| peer.state == MemberState::Alive)?;
        Some(Watch {
            member: peer.id,
            incarnation: peer.incarnation,
            number: 0,
            answered: false,
        })
    }

    fn ask_others(&mut self, target: &WireId, number: u8, turn: &mut Turn) {
        let peers = self.peers.by_node.values();
        let healthy = peers.filter(|peer| peer.state == MemberState::Alive && peer.id != *target);
        let mut all: Vec<WireId> = healthy.map(|peer| peer.id).collect();
        for _ in 0..self.timing.indirect_probes.min(all.len()) {
            let helper = all.swap_remove(self.rng.random_range(0..all.len()));
            let message = Message::PingReq {
                target: *target,
                probe_number: number,
            };
            self.tell(&helper, message, turn);
        }
    }

    fn accuse(&mut self, watch: &Watch, turn: &mut Turn) {
        let node = watch.member.member.node;
        self.health.probe_failed(node);
        self.watch = None;
        turn.touched.insert(node);
        let suspect = Member::new(watch.member, watch.incarnation, State::Suspect);
        let news = std::iter::once(suspect);
        note(self.foca.apply_many(news, true, &mut turn.rt));
        // foca starts no suspicion timer for what it is told.
        let timer = Timer::ChangeSuspectToDown {
            member_id: watch.member,
            incarnation: watch.incarnation,
            token: self.token,
        };
        self.schedule(timer, 0, turn.now);
    }
}
