//! What happens when time has passed.

use foca::Timer;

use super::identity::WireId;
use super::machine::{Membership, Turn, note};
use super::queue::Task;
use super::{Effect, MemberState};

impl Membership {
    pub(super) fn run(&mut self, task: Task, turn: &mut Turn) {
        match task {
            Task::Foca(timer) => {
                // The end of a period makes a suspect of a member that did not answer.
                turn.touched
                    .extend(self.probe.map(|probe| probe.member.member.node));
                note(self.foca.handle_timer(timer, &mut turn.rt));
            }
            Task::Convict {
                member,
                since,
                timer,
            } => self.convict(member, since, timer, turn),
            Task::Nudge(member) => self.nudge(&member, turn),
            Task::Fallback { member, number } => self.fall_back(&member, number, turn),
            Task::Watch => self.watch(turn),
            Task::Watching { number, step } => self.watching(number, step, turn),
            Task::Exchange => self.exchange(turn),
            Task::Copy { to, bytes } => turn.out.push(Effect::Send { to, bytes }),
            Task::Contact => self.contact(turn),
            Task::Heal => self.heal(turn),
            Task::Introduce => self.introduce(turn),
        }
    }

    /// The suspicion ends. Whoever has answered this node meanwhile is alive, and only does not
    /// know yet that it should refute: it gets another chance to learn.
    fn convict(&mut self, member: WireId, since: u64, timer: Timer<WireId>, turn: &mut Turn) {
        let node = member.member.node;
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let still = peer.id == member && peer.state == MemberState::Suspect;
        if still && peer.round_trip.is_some_and(|at| at >= since) {
            self.suspect(member, timer, turn.now);
            return;
        }
        peer.trial = None;
        turn.touched.insert(node);
        note(self.foca.handle_timer(timer, &mut turn.rt));
    }
}
