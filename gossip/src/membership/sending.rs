//! From foca's messages to effects: copies, the reliable path, and messages of our own.

use bytes::Bytes;
use foca::{Codec, Header, Member, Message, State};
use rand::RngExt;

use super::codec::{Envelope, Packet, WireCodec};
use super::identity::WireId;
use super::machine::{Membership, Probe, Turn};
use super::queue::Task;
use super::{Effect, MemberState};

/// Suspects are told by at least this many copies: much depends on it.
const NUDGE_COPIES: u8 = 2;
/// Goodbyes are sent to at most this many members; gossip does the rest, more slowly, because it
/// takes two to tell.
const GOODBYES: usize = 256;
/// Copies of a goodbye: nobody will repeat it.
const GOODBYE_COPIES: u8 = 3;
/// Goodbyes over the reliable path too.
const RELIABLE_GOODBYES: usize = 3;

impl Membership {
    /// One message of foca's.
    pub(super) fn send_out(&mut self, to: &WireId, body: &[u8], turn: &mut Turn) {
        let Ok(header) = WireCodec.decode_header(body) else {
            return;
        };
        self.note_incarnation(header.src_incarnation);
        let node = to.member.node;
        let is_answer = matches!(
            header.message,
            Message::Ack(_) | Message::IndirectAck { .. } | Message::Feed | Message::TurnUndead
        );
        if is_answer && turn.reliable == Some(node) {
            self.send_reliably(to, body, turn);
        } else if let Message::Ping(number) = header.message {
            self.probe_started(*to, number, turn.now);
            // Not foca's bytes: a suspect must hear of it with each ping.
            match self.ping(to, Some(body)) {
                Some(told) => self.send(to, &told, 1, turn),
                None => self.send(to, body, 1, turn),
            }
        } else {
            self.send(to, body, 1, turn);
        }
    }

    /// Judges the probe before, and watches the new one.
    fn probe_started(&mut self, member: WireId, number: u8, now: u64) {
        if let Some(before) = self.probe {
            if before.answered {
                self.health.probe_answered();
            } else {
                self.health.probe_failed(before.member.member.node);
            }
        }
        self.probe = Some(Probe {
            member,
            number,
            answered: false,
        });
        if let Some(peer) = self.peers.get_mut(&member.member.node) {
            peer.ping = number;
        }
        let due = now + self.health.stretch(self.timing.fallback_after);
        self.queue.push(due, Task::Fallback { member, number });
    }

    /// Tells a suspect about the suspicion by every way there is.
    pub(super) fn nudge(&mut self, member: &WireId, turn: &mut Turn) {
        let suspect = self.peers.get(&member.member.node);
        if !suspect.is_some_and(|peer| peer.id == *member && peer.state == MemberState::Suspect) {
            return;
        }
        if let Some(body) = self.ping(member, None) {
            self.send(member, &body, NUDGE_COPIES, turn);
            self.send_reliably(member, &body, turn);
        }
    }

    /// Repeats an unanswered probe over the reliable path.
    pub(super) fn fall_back(&mut self, member: &WireId, number: u8, turn: &mut Turn) {
        let open = self.probe.is_some_and(|probe| {
            probe.member == *member && probe.number == number && !probe.answered
        });
        let active = self
            .peers
            .get(&member.member.node)
            .is_some_and(|peer| peer.is_active());
        if open
            && active
            && let Some(body) = self.ping(member, None)
        {
            self.send_reliably(member, &body, turn);
        }
    }

    /// Asks `to` whether it lives, outside of foca's probes.
    pub(super) fn ask(&mut self, to: &WireId, number: u8, turn: &mut Turn) {
        self.tell(to, Message::Ping(number), turn);
    }

    /// The same over the reliable path.
    pub(super) fn ask_reliably(&mut self, to: &WireId, number: u8, turn: &mut Turn) {
        let header = self.header(*to, Message::Ping(number));
        let updates = Vec::new();
        self.send_packet_reliably(to, &Packet { header, updates }, turn);
    }

    /// Sends anything over the reliable path.
    pub(super) fn send_packet_reliably(&mut self, to: &WireId, packet: &Packet, turn: &mut Turn) {
        if let Ok(body) = packet.encode_reliable() {
            self.send_reliably(to, &body, turn);
        }
    }

    /// Sends a message without news.
    pub(super) fn tell(&mut self, to: &WireId, message: Message<WireId>, turn: &mut Turn) {
        let header = self.header(*to, message);
        let updates = Vec::new();
        if let Ok(body) = (Packet { header, updates }).encode() {
            self.send(to, &body, 1, turn);
        }
    }

    /// A ping of the last number, with foca's updates from `body` if given, that tells its
    /// receiver if it is suspected. `None` if foca's own does just as well.
    fn ping(&self, to: &WireId, body: Option<&[u8]>) -> Option<Vec<u8>> {
        let peer = self.peers.get(&to.member.node)?;
        let suspicion = (peer.state == MemberState::Suspect && peer.id == *to)
            .then(|| Member::new(peer.id, peer.incarnation, State::Suspect));
        let mut packet = match body {
            Some(body) => {
                suspicion.as_ref()?;
                Packet::decode(body).ok()?
            }
            None => Packet {
                header: self.header(*to, Message::Ping(peer.ping)),
                updates: Vec::new(),
            },
        };
        if let Some(suspicion) = suspicion {
            packet
                .updates
                .retain(|update| update.id() != suspicion.id());
            packet.updates.insert(0, suspicion);
        }
        loop {
            if let Ok(bytes) = packet.encode() {
                return Some(bytes);
            }
            packet.updates.pop()?;
        }
    }

    /// Tells `to` one thing.
    pub(super) fn inform(&mut self, to: &WireId, news: Member<WireId>, turn: &mut Turn) {
        let packet = Packet {
            header: self.header(*to, Message::Gossip),
            updates: vec![news],
        };
        if let Ok(body) = packet.encode() {
            self.send(to, &body, 1, turn);
        }
    }

    /// A header of ours to `dst`.
    pub(super) fn header(&self, dst: WireId, message: Message<WireId>) -> Header<WireId> {
        Header {
            src: *self.foca.identity(),
            src_incarnation: self.incarnation(),
            dst,
            message,
        }
    }

    /// Goodbye, with an identity that supersedes the present one. Not by foca, whose own way of
    /// leaving looks like a crash to others, and reaches three of them.
    pub(super) fn leave(&mut self, turn: &mut Turn) {
        let leaving = self.foca.identity().leaving();
        let active = self.peers.by_node.values().filter(|peer| peer.is_active());
        let mut all: Vec<WireId> = active.map(|peer| peer.id).collect();
        self.go_silent();
        for told in 0..GOODBYES.min(all.len()) {
            let to = all.swap_remove(self.rng.random_range(0..all.len()));
            let mut header = self.header(to, Message::Gossip);
            header.src = leaving;
            header.src_incarnation = 0;
            let packet = Packet {
                header,
                updates: vec![Member::down(leaving)],
            };
            let Ok(body) = packet.encode() else {
                continue;
            };
            self.send(&to, &body, GOODBYE_COPIES, turn);
            if told < RELIABLE_GOODBYES {
                self.send_reliably(&to, &body, turn);
            }
        }
    }

    /// This life is over: nothing more happens.
    pub(super) fn go_silent(&mut self) {
        self.left = true;
        self.probe = None;
        self.queue.retain(|_| false);
    }

    /// Sends a datagram, in as many copies as the path needs.
    pub(super) fn send(&mut self, to: &WireId, body: &[u8], at_least: u8, turn: &mut Turn) {
        let mut envelope = self.envelope(to, turn.now);
        let known = match self.peers.get_mut(&to.member.node) {
            Some(peer) => {
                envelope.copies = peer.path.copies().max(at_least);
                Some(peer.path.take_numbers(envelope.copies))
            }
            None => {
                envelope.copies = self.overall.copies().max(at_least);
                None
            }
        };
        for copy in 0..envelope.copies {
            envelope.copy = copy;
            envelope.number = known.map(|first| first.wrapping_add(u16::from(copy)));
            let bytes = Bytes::from(envelope.wrap(body));
            let to = to.member.address;
            if copy == 0 {
                turn.out.push(Effect::Send { to, bytes });
            } else {
                let due = turn.now + self.timing.copy_gap * u64::from(copy);
                self.queue.push(due, Task::Copy { to, bytes });
            }
        }
    }

    /// Sends over the reliable path.
    fn send_reliably(&mut self, to: &WireId, body: &[u8], turn: &mut Turn) {
        let bytes = self.envelope(to, turn.now).wrap(body).into();
        let to = to.member.node;
        turn.out.push(Effect::SendReliable { to, bytes });
    }

    /// An envelope for a single copy without a number.
    fn envelope(&mut self, to: &WireId, now: u64) -> Envelope {
        let stall = self.health.stall_report(now, self.timing.stall_memory);
        let peer = self.peers.get(&to.member.node);
        Envelope {
            copy: 0,
            copies: 1,
            number: None,
            loss: peer.map_or(0, |peer| peer.path.report(&self.overall)),
            stall,
            view: self.view(),
        }
    }
}
