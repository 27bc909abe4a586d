//! What this node believes of each other node.

use std::collections::BTreeMap;

use dunlin_state::model::NodeId;
use foca::{Incarnation, Member, State};

use super::identity::WireId;
use super::path::Path;
use super::views::part;
use super::{MemberEvent, MemberId, MemberState, MemberView};

/// Everything about one other node.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) id: WireId,
    pub(super) incarnation: Incarnation,
    pub(super) state: MemberState,
    /// Last first-hand sign of life, mono ms; when it was first told of, until there is one.
    pub(super) last_heard: u64,
    /// Last proof that the way there and back works, mono ms.
    pub(super) round_trip: Option<u64>,
    /// Number of the last ping sent.
    pub(super) ping: u8,
    /// The suspicion that waits in the queue, if this node holds one.
    pub(super) trial: Option<(WireId, Incarnation, u8)>,
    /// Its longest recent stall by its own account, ms.
    pub(super) stall: u64,
    /// Whether it has spoken for itself under this identity.
    pub(super) first_hand: bool,
    /// When it was last asked whether hearsay about it is true, mono ms.
    pub(super) asked: Option<u64>,
    /// A goodbye that one member tells of, and which.
    pub(super) farewell: Option<(NodeId, WireId)>,
    /// Since when it is known under this identity, mono ms.
    pub(super) since: u64,
    pub(super) path: Path,
}

impl Peer {
    /// Whether it counts as a member for probing and gossip.
    pub(super) fn is_active(&self) -> bool {
        match self.state {
            MemberState::Alive | MemberState::Suspect => true,
            MemberState::Down | MemberState::Left => false,
        }
    }
}

/// What is believed of a member in foca's words. Whoever uses its goodbye identity has left,
/// whatever else is said.
pub(super) fn state_of(member: &Member<WireId>) -> MemberState {
    if member.id().left {
        return MemberState::Left;
    }
    match member.state() {
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspect,
        State::Down => MemberState::Down,
    }
}

/// All other nodes.
#[derive(Debug, Default)]
pub(super) struct Peers {
    pub(super) by_node: BTreeMap<NodeId, Peer>,
    active: usize,
    digest: u32,
    changed_at: u64,
}

impl Peers {
    pub(super) fn get(&self, node: &NodeId) -> Option<&Peer> {
        self.by_node.get(node)
    }

    pub(super) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Peer> {
        self.by_node.get_mut(node)
    }

    /// Members that are alive or suspect.
    pub(super) fn active(&self) -> usize {
        self.active
    }

    /// Digest of the active ones; see [`super::views`].
    pub(super) fn digest(&self) -> u32 {
        self.digest
    }

    /// When the digest last changed, mono ms.
    pub(super) fn changed_at(&self) -> u64 {
        self.changed_at
    }

    fn count(&mut self, before: Option<WireId>, after: Option<WireId>, now: u64) {
        if before == after {
            return;
        }
        self.active = self.active + usize::from(after.is_some()) - usize::from(before.is_some());
        self.digest ^= before.as_ref().map_or(0, part) ^ after.as_ref().map_or(0, part);
        self.changed_at = now;
    }

    pub(super) fn views(&self) -> impl Iterator<Item = MemberView> + '_ {
        self.by_node.values().map(|peer| MemberView {
            id: peer.id.member,
            state: peer.state,
            last_heard: peer.last_heard,
        })
    }

    /// Takes over foca's belief; `path` is for a node not known before. Returns what changed for
    /// those outside.
    #[must_use]
    pub(super) fn update(
        &mut self,
        member: &Member<WireId>,
        now: u64,
        path: impl FnOnce() -> Path,
    ) -> Option<MemberEvent> {
        let state = state_of(member);
        let id = *member.id();
        let Some(peer) = self.by_node.get_mut(&id.member.node) else {
            let peer = Peer {
                id,
                incarnation: member.incarnation(),
                state,
                last_heard: now,
                round_trip: None,
                ping: 0,
                trial: None,
                stall: 0,
                first_hand: false,
                asked: None,
                farewell: None,
                since: now,
                path: path(),
            };
            let active = peer.is_active().then_some(id);
            self.count(None, active, now);
            self.by_node.insert(id.member.node, peer);
            return Some(event(state, id.member));
        };
        let before = (peer.id.member, peer.state);
        let was_active = peer.is_active().then_some(peer.id);
        if before.0.boot != id.member.boot {
            peer.path.restart();
            peer.stall = 0;
        }
        if peer.id != id {
            peer.first_hand = false;
            peer.farewell = None;
            peer.since = now;
        }
        peer.id = id;
        peer.incarnation = member.incarnation();
        peer.state = state;
        let is_active = peer.is_active().then_some(id);
        self.count(was_active, is_active, now);
        (before != (id.member, state)).then(|| event(state, id.member))
    }

    /// foca knows it no longer.
    pub(super) fn remove(&mut self, node: &NodeId, now: u64) -> Option<Peer> {
        let peer = self.by_node.remove(node)?;
        self.count(peer.is_active().then_some(peer.id), None, now);
        Some(peer)
    }
}

fn event(state: MemberState, id: MemberId) -> MemberEvent {
    match state {
        MemberState::Alive => MemberEvent::Alive(id),
        MemberState::Suspect => MemberEvent::Suspect(id),
        MemberState::Down => MemberEvent::Down(id),
        MemberState::Left => MemberEvent::Left(id),
    }
}
