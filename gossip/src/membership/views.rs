//! Anti-entropy of the member list.
//!
//! Gossip repeats each piece of news a few times and then forgets it, so now and then a node
//! misses one, and foca's lists of twenty random members repair that slowly in a large cluster.
//! Each datagram therefore carries a digest of the sender's list of active members. When digests
//! differ although this node's list has been quiet for a while, it sends its whole list over the
//! reliable path; the receiver compares again and does the same, if it knows better.

use dunlin_state::model::NodeId;
use foca::{Member, Message, State};

use super::MemberState;
use super::codec::{MAX_LISTED, Packet};
use super::identity::WireId;
use super::machine::{Membership, Turn, note};

/// The part of one identity in a digest; the digest of a list is the exclusive-or of all parts.
/// Not cryptographic (FNV-1a): members have no reason to hide from each other, and one could lie
/// in simpler ways.
pub(super) fn part(id: &WireId) -> u32 {
    let boot = id.member.boot.to_be_bytes();
    let bump = id.bump.to_be_bytes();
    let bytes = id.member.node.as_bytes().iter().chain(&boot).chain(&bump);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}

impl Membership {
    /// The digest of this node's list, itself included.
    pub(super) fn view(&self) -> u32 {
        self.peers.digest() ^ part(self.foca.identity())
    }

    /// A member's list has this digest. If it is not ours, and that is no passing difference,
    /// one of us misses something.
    pub(super) fn compare(&mut self, src: &WireId, theirs: u32, turn: &mut Turn) {
        let quiet = turn.now.saturating_sub(self.peers.changed_at());
        let since = turn.now.saturating_sub(self.listed_at);
        let gap = self.timing.view_gap;
        let active = self
            .peers
            .get(&src.member.node)
            .is_some_and(|peer| peer.is_active());
        if theirs == self.view() || quiet < gap || since < gap || !active {
            return;
        }
        self.listed_at = turn.now;
        self.send_list(src, turn);
    }

    fn send_list(&mut self, to: &WireId, turn: &mut Turn) {
        let fresh = turn.now + self.timing.forget_after / 2;
        let listed: Vec<Member<WireId>> = self
            .peers
            .by_node
            .iter()
            .filter(|(node, peer)| peer.is_active() || self.is_fresh_loss(node, fresh))
            .map(|(_, peer)| {
                let state = match peer.state {
                    MemberState::Alive => State::Alive,
                    MemberState::Suspect => State::Suspect,
                    MemberState::Down | MemberState::Left => State::Down,
                };
                Member::new(peer.id, peer.incarnation, state)
            })
            .collect();
        for part in listed.chunks(MAX_LISTED) {
            let packet = Packet {
                header: self.header(*to, Message::Feed),
                updates: part.to_vec(),
            };
            self.send_packet_reliably(to, &packet, turn);
        }
    }

    /// Members that are down are told on for half of the time for which they are remembered:
    /// told later, they would come back to those who have just forgotten them.
    fn is_fresh_loss(&self, node: &NodeId, fresh: u64) -> bool {
        self.forget.get(node).is_some_and(|(due, _)| *due > fresh)
    }

    /// A list over the reliable path; foca takes no message as long as that.
    pub(super) fn take_list(&mut self, packet: &Packet, turn: &mut Turn) {
        let src = packet.header.src;
        let known = self.peers.get(&src.member.node);
        if known.is_some_and(|peer| peer.is_active() && peer.id == src) {
            let news = packet.updates.iter().cloned();
            note(self.foca.apply_many(news, true, &mut turn.rt));
        }
    }
}
