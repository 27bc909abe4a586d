//! From what arrives to foca: what is checked, counted and completed on the way.

use std::cmp::Ordering;

use dunlin_state::model::NodeId;
use foca::{Header, Incarnation, Member, Message, State};

use super::MemberState;
use super::codec::{Envelope, Packet, STALL_UNIT_MS};
use super::identity::WireId;
use super::machine::{Membership, Turn, note};
use super::path::Arrival;
use super::peers::state_of;
use super::profile::MAX_MEMBERS;

impl Membership {
    /// A message by datagram, or over the reliable path when the turn says so. Anything odd is
    /// dropped: the sender is a member, but may be broken or hostile.
    pub(super) fn receive(&mut self, bytes: &[u8], turn: &mut Turn) {
        let Ok((envelope, body)) = Envelope::unwrap(bytes, turn.reliable.is_some()) else {
            return;
        };
        let Ok(mut packet) = Packet::decode(body) else {
            return;
        };
        let src = packet.header.src;
        let claimed = src.member.node;
        if self.expelled.contains(&claimed) {
            return;
        }
        let expelled = &self.expelled;
        packet
            .updates
            .retain(|update| !expelled.contains(&update.id().member.node));
        if src.is_anyone() || turn.reliable.is_some_and(|from| from != claimed) {
            return;
        }
        if claimed == self.me.node {
            self.meet_myself(&src, turn);
            return;
        }
        let mine = *self.foca.identity();
        if packet.header.dst.is_anyone() && packet.header.message == Message::Announce {
            packet.header.dst = mine;
        }
        let dst = packet.header.dst;
        if dst.member.node != self.me.node || !self.room_for(&mut packet) {
            return;
        }
        self.meet(&src, turn);
        if let Some(peer) = self.peers.get(&claimed)
            && src.member.boot < peer.id.member.boot
        {
            // The remains of an earlier life: no sign of the present one, but it should know.
            let present = Member::new(peer.id, peer.incarnation, State::Alive);
            self.inform(&src, present, turn);
            return;
        }
        if self.arrive(&src, &envelope, turn) == Arrival::Duplicate {
            return;
        }
        if dst != mine && packet.header.message != Message::Announce {
            // It does not know our present identity yet, and foca would stay silent.
            self.see_myself(&dst, turn);
            if !self.left {
                self.call(src, turn);
            }
            return;
        }
        self.take_own_updates(&mut packet, turn);
        self.doubt(&mut packet, turn);
        if self.left {
            return;
        }
        self.pass_on(&packet, turn);
        self.settle(turn);
        self.note_first_hand(&src);
        self.compare(&src, envelope.view, turn);
    }

    /// Gives foca a checked message.
    fn pass_on(&mut self, packet: &Packet, turn: &mut Turn) {
        self.touch(packet, turn);
        self.note_answer(&packet.header, turn.now);
        if packet.header.message == Message::Feed {
            self.note_feed(packet, turn.now);
        }
        if packet.header.message == Message::Feed && turn.reliable.is_some() {
            self.take_list(packet, turn);
        } else if let Ok(body) = packet.encode() {
            note(self.foca.handle_data(&body, &mut turn.rt));
        }
        if let Some(from) = turn.reliable {
            self.vouched_for(from, turn);
        }
    }

    /// Notes whom foca may see differently after this packet. Looking up its belief walks all
    /// members, and most of what is gossiped is known.
    fn touch(&self, packet: &Packet, turn: &mut Turn) {
        let Header {
            src,
            src_incarnation,
            ..
        } = packet.header;
        if self.is_news(&src, src_incarnation, MemberState::Alive) {
            turn.touched.insert(src.member.node);
        }
        for update in &packet.updates {
            if self.is_news(update.id(), update.incarnation(), state_of(update)) {
                turn.touched.insert(update.id().member.node);
            }
        }
    }

    fn is_news(&self, id: &WireId, incarnation: Incarnation, state: MemberState) -> bool {
        self.peers.get(&id.member.node).is_none_or(|peer| {
            peer.id != *id || peer.incarnation < incarnation || peer.state != state
        })
    }

    /// Counts the arrival, and reads what the envelope says.
    fn arrive(&mut self, src: &WireId, envelope: &Envelope, turn: &Turn) -> Arrival {
        let Some(peer) = self.peers.get_mut(&src.member.node) else {
            return Arrival::Fresh;
        };
        peer.last_heard = turn.now;
        peer.stall = u64::from(envelope.stall) * STALL_UNIT_MS;
        if src.member.boot != peer.id.member.boot {
            peer.path.restart();
        }
        peer.path.reported(envelope.loss, &mut self.overall);
        match (turn.reliable, envelope.number) {
            (None, Some(number)) => {
                let Envelope { copy, copies, .. } = *envelope;
                peer.path.arrived(number, copy, copies, &mut self.overall)
            }
            (None, None) | (Some(_), _) => Arrival::Fresh,
        }
    }

    /// An answer to the last ping proves that the way there and back works.
    fn note_answer(&mut self, header: &Header<WireId>, now: u64) {
        let (who, number) = match header.message {
            Message::Ack(number) => (header.src, number),
            Message::ForwardedAck {
                origin,
                probe_number,
            } => (origin, probe_number),
            _ => return,
        };
        let probe = self.probe.as_mut();
        let mut open = false;
        if let Some(probe) = probe.filter(|probe| probe.member == who && probe.number == number) {
            probe.answered = true;
            open = true;
        }
        let watch = self.watch.as_mut();
        if let Some(watch) = watch.filter(|watch| watch.member == who && watch.number == number) {
            watch.answered = true;
            open = true;
        }
        if let Some(peer) = self.peers.get_mut(&who.member.node)
            && peer.id == who
            && (open || peer.ping == number)
        {
            peer.last_heard = now;
            peer.round_trip = Some(now);
        }
    }

    /// Somebody else's proof that `node` lives: it answered over an authenticated connection. If
    /// it is being probed, this is the answer.
    pub(super) fn vouched_for(&mut self, node: NodeId, turn: &mut Turn) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.last_heard = turn.now;
        peer.round_trip = Some(turn.now);
        let (id, incarnation, active) = (peer.id, peer.incarnation, peer.is_active());
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.member == id) {
            watch.answered = true;
        }
        let Some(probe) = &mut self.probe else {
            return;
        };
        if probe.member != id || probe.answered || !active {
            return;
        }
        probe.answered = true;
        let answer = Packet {
            header: Header {
                src: id,
                src_incarnation: incarnation,
                dst: *self.foca.identity(),
                message: Message::Ack(probe.number),
            },
            updates: Vec::new(),
        };
        if let Ok(body) = answer.encode() {
            note(self.foca.handle_data(&body, &mut turn.rt));
        }
    }

    /// Drops what others say about identities of this node, except the present one. foca would
    /// declare them down, which is wrong for a later life, and needless for an earlier one.
    fn take_own_updates(&mut self, packet: &mut Packet, turn: &mut Turn) {
        let mine = *self.foca.identity();
        let node = self.me.node;
        let mut others = Vec::new();
        packet.updates.retain(|update| {
            let id = *update.id();
            let is_other = id.member.node == node && id != mine;
            if is_other {
                others.push(id);
            }
            !is_other
        });
        for other in others {
            self.see_myself(&other, turn);
        }
        // foca may have taken another identity; the message was for the one before.
        packet.header.dst = *self.foca.identity();
    }

    /// An identity of this node that is not the present one is going around. Anybody can have made
    /// it up, and of this life nobody knows better.
    fn see_myself(&mut self, other: &WireId, turn: &mut Turn) {
        match other.member.boot.cmp(&self.me.boot) {
            Ordering::Less | Ordering::Equal => {}
            Ordering::Greater => self.ask_myself(other, turn),
        }
    }

    /// Somebody speaks with this node's key: another process of it.
    fn meet_myself(&mut self, other: &WireId, turn: &mut Turn) {
        let mine = *self.foca.identity();
        match other.member.boot.cmp(&self.me.boot) {
            Ordering::Less => self.answer_myself(other, turn),
            Ordering::Equal => {
                if other.supersedes(&mine) {
                    let bump = other.bump.saturating_add(1);
                    let next = WireId { bump, ..mine };
                    note(self.foca.change_identity(next, &mut turn.rt));
                    self.probe = None;
                }
            }
            Ordering::Greater => {
                self.superseded = self.superseded.max(Some(other.member.boot));
                self.go_silent();
            }
        }
    }

    /// Keeps the number of members bounded. False if the sender is one too many.
    fn room_for(&self, packet: &mut Packet) -> bool {
        let known = |id: &WireId| self.peers.get(&id.member.node).is_some();
        let new = packet
            .updates
            .iter()
            .filter(|update| !known(update.id()))
            .count();
        if self.peers.by_node.len() + new < MAX_MEMBERS {
            return true;
        }
        packet.updates.retain(|update| known(update.id()));
        known(&packet.header.src)
    }
}
