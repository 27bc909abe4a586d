//! What somebody says of somebody else.
//!
//! Every message is signed by the node in whose name it comes; what it tells of others is not. A
//! member that lies could give an honest one a life that never was, an address of its own, or a
//! goodbye, and SWIM would believe it, since the greater identity wins. Therefore an identity of a
//! node that is known counts only from that node itself. From anybody else it is a hint: whoever is
//! said to live at an address is asked there, and its answer, in its own name, is what counts. Who
//! has left answers no more, so a goodbye that was missed counts when two members tell of it; each
//! honest one has heard it or been told by two others, so a single liar gets nobody to say it. That
//! somebody is gone makes a suspect of it, who is asked at once and has the time of an answer.
//!
//! A node that is not known at all is taken as it is told of, so that a cluster of a thousand need
//! not introduce everybody to everybody; the first word of its own puts right what was wrong.
//!
//! The same holds for what is said of this node: a later life of it is believed only when that one
//! speaks for itself, and it does when it is asked.

use dunlin_state::model::NodeId;
use foca::{Incarnation, Member, Message, State};

use super::codec::Packet;
use super::identity::WireId;
use super::machine::{Membership, Turn, note};
use super::queue::Task;

/// How often one node is asked whether hearsay about it is true, ms: more often than a lost question
/// takes to be noticed, and seldom enough that nobody can make us flood an address.
const ASK_GAP: u64 = 100;

/// How late a datagram may be, ms: what a node sent before its goodbye does not bring it back.
const LATE: u64 = 2_000;

impl Membership {
    /// Takes out of a message what its sender cannot know for sure, and goes after it.
    pub(super) fn doubt(&mut self, packet: &mut Packet, turn: &mut Turn) {
        let (speaker, me) = (packet.header.src.member.node, self.me.node);
        let mut doubted = Vec::new();
        let mut updates = std::mem::take(&mut packet.updates);
        updates.retain(|update| {
            let id = *update.id();
            let node = id.member.node;
            let known = self.peers.get(&node).filter(|peer| peer.id != id);
            let is_hearsay = node != speaker
                && node != me
                && known.is_some_and(|peer| !peer.first_hand || id.supersedes(&peer.id));
            if is_hearsay && !id.left {
                doubted.push(id);
            }
            !is_hearsay || (id.left && self.is_told_again(speaker, &id))
        });
        packet.updates = updates;
        self.soften(packet, turn.now);
        for id in doubted {
            self.go_after(id, turn);
        }
    }

    /// That somebody is gone, each node finds out for itself, and the one concerned may object: what
    /// others say makes a suspect of it, who gets the time of an answer.
    fn soften(&mut self, packet: &mut Packet, now: u64) {
        let speaker = packet.header.src.member.node;
        for update in &mut packet.updates {
            let (id, incarnation) = (*update.id(), update.incarnation());
            if id.member.node == speaker || update.state() != State::Down {
                continue;
            }
            let Some(peer) = self.peers.get_mut(&id.member.node) else {
                continue;
            };
            if peer.id != id || !peer.is_active() {
                continue;
            }
            *update = Member::new(id, incarnation, State::Suspect);
            if peer.asked.is_none_or(|at| now >= at + ASK_GAP) {
                peer.asked = Some(now);
                self.try_quickly(id, incarnation, now);
            }
        }
    }

    /// Gives a member, of whom somebody says that it is gone, one chance to answer.
    fn try_quickly(&mut self, member: WireId, incarnation: Incarnation, now: u64) {
        let timer = foca::Timer::ChangeSuspectToDown {
            member_id: member,
            incarnation,
            token: self.token,
        };
        let convict = Task::Convict {
            member,
            since: now,
            timer,
        };
        self.queue.push(now, Task::Nudge(member));
        let wait = self.health.stretch(self.timing.probe_rtt);
        self.queue.push(now + wait, convict);
    }

    /// Whether somebody else has told of this goodbye before.
    fn is_told_again(&mut self, speaker: NodeId, goodbye: &WireId) -> bool {
        let Some(peer) = self.peers.get_mut(&goodbye.member.node) else {
            return false;
        };
        let again = peer
            .farewell
            .is_some_and(|(first, told)| told == *goodbye && first != speaker);
        if !again {
            peer.farewell = Some((speaker, *goodbye));
        }
        again
    }

    /// Asks a node whether it is who it is said to be.
    fn go_after(&mut self, told: WireId, turn: &mut Turn) {
        let Some(peer) = self.peers.get_mut(&told.member.node) else {
            return;
        };
        if peer.asked.is_some_and(|at| turn.now < at + ASK_GAP) {
            return;
        }
        peer.asked = Some(turn.now);
        let number = peer.ping;
        self.ask(&told, number, turn);
    }

    /// A message of `src` in its own name has come. What others said of it before, and is not so, is
    /// forgotten.
    pub(super) fn meet(&mut self, src: &WireId, turn: &mut Turn) {
        let Some(peer) = self.peers.get(&src.member.node) else {
            return;
        };
        if peer.first_hand || peer.id == *src || src.supersedes(&peer.id) {
            return;
        }
        let rumour = peer.id;
        let is_late = turn.now < peer.since.saturating_add(LATE);
        if rumour.left && rumour.member.boot == src.member.boot && is_late {
            return;
        }
        self.believe(Member::down(rumour), turn);
        let timer = foca::Timer::RemoveDown(rumour);
        note(self.foca.handle_timer(timer, &mut turn.rt));
        self.settle(turn);
        self.forget.remove(&rumour.member.node);
    }

    /// Notes that a node has spoken for itself, as whom it is known here.
    pub(super) fn note_first_hand(&mut self, src: &WireId) {
        if let Some(peer) = self.peers.get_mut(&src.member.node) {
            peer.first_hand |= peer.id == *src;
        }
    }

    /// Somebody says that there is a later life of this node: if there is, it shall say so itself.
    pub(super) fn ask_myself(&mut self, other: &WireId, turn: &mut Turn) {
        let due = self.asked_myself.is_none_or(|at| turn.now >= at + ASK_GAP);
        // Nobody else can answer where this process listens.
        if due && !other.left && other.member.address != self.me.address {
            self.asked_myself = Some(turn.now);
            self.ask(other, 0, turn);
        }
    }

    /// An earlier life of this node has spoken: it is told of this one.
    pub(super) fn answer_myself(&mut self, earlier: &WireId, turn: &mut Turn) {
        self.tell(earlier, Message::Gossip, turn);
    }

    fn believe(&mut self, news: Member<WireId>, turn: &mut Turn) {
        let node: NodeId = news.id().member.node;
        turn.touched.insert(node);
        let news = std::iter::once(news);
        note(self.foca.apply_many(news, true, &mut turn.rt));
    }
}
