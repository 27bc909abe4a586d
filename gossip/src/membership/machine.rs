//! The machine: what goes in, what comes out, and how foca is driven in between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dunlin_state::Now;
use dunlin_state::model::NodeId;
use foca::{
    AccumulatingRuntime, Foca, Incarnation, Member, NoCustomBroadcast, OwnedNotification, State,
    Timer, TimerToken,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::codec::WireCodec;
use super::contacts::Contacts;
use super::health::LocalHealth;
use super::identity::{WireId, plain};
use super::path::{Overall, Path};
use super::peers::Peers;
use super::profile::{Timing, size_class};
use super::queue::{Queue, Task};
use super::watch::Watch;
use super::{Effect, Input, MemberEvent, MemberId, MemberState, MemberView, Profile};

/// Urgent news is passed on at once, but not more often than this, ms: with many members failing
/// together the periodic gossip carries the rest in fewer datagrams.
const URGENT_GAP: u64 = 20;
/// When a member comes back from "down", the others that are down are called after at most this
/// time, ms; random, so that not all nodes call at once.
const HEAL_WITHIN: u64 = 100;

/// Who is in the cluster: SWIM as a deterministic machine. See the [module](super).
pub struct Membership {
    pub(super) me: MemberId,
    pub(super) timing: Timing,
    pub(super) foca: Foca<WireId, WireCodec, ChaCha8Rng, NoCustomBroadcast>,
    pub(super) rng: ChaCha8Rng,
    pub(super) peers: Peers,
    pub(super) overall: Overall,
    pub(super) health: LocalHealth,
    pub(super) queue: Queue,
    pub(super) contacts: Contacts,
    /// When to drop members that are down. Not in the queue: a member that comes and goes would
    /// fill it with one entry for each time.
    pub(super) forget: BTreeMap<NodeId, (u64, WireId)>,
    /// The probe that runs.
    pub(super) probe: Option<Probe>,
    /// The watch that runs, and the number of the last one.
    pub(super) watch: Option<Watch>,
    pub(super) watched: u8,
    /// foca's present timer token, which its timers tell.
    pub(super) token: TimerToken,
    /// foca's incarnation of this node, as last sent.
    incarnation: Incarnation,
    class: u32,
    last_urgent: u64,
    /// When the list of members was last sent.
    pub(super) listed_at: u64,
    pub(super) left: bool,
    /// Removed from the cluster.
    pub(super) expelled: BTreeSet<NodeId>,
    pub(super) superseded: Option<u64>,
    /// When a later life of this node was last asked whether there is one, mono ms.
    pub(super) asked_myself: Option<u64>,
}

/// The probe of the current period.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub(super) member: WireId,
    pub(super) number: u8,
    pub(super) answered: bool,
}

/// One call into the machine.
pub(super) struct Turn {
    pub(super) now: u64,
    pub(super) out: Vec<Effect>,
    pub(super) rt: AccumulatingRuntime<WireId>,
    /// Nodes about which foca may have changed its mind.
    pub(super) touched: BTreeSet<NodeId>,
    /// The input came over the reliable path from there: so do answers go.
    pub(super) reliable: Option<NodeId>,
}

impl Turn {
    fn new(now: Now) -> Self {
        Self {
            now: now.mono,
            out: Vec::new(),
            rt: AccumulatingRuntime::new(),
            touched: BTreeSet::new(),
            reliable: None,
        }
    }
}

impl Membership {
    /// A node that knows nobody yet. `seed` fixes every random choice.
    pub fn new(me: MemberId, profile: Profile, seed: u64, now: Now) -> Self {
        let timing = Timing::of(profile);
        let id = WireId::new(me);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let foca_rng = ChaCha8Rng::from_rng(&mut rng);
        let mut queue = Queue::default();
        queue.push(now.mono + timing.contact_period, Task::Contact);
        // At a random phase, so that not all of a cluster ask at the same moment.
        let phase = rng.random_range(0..timing.probe_period);
        queue.push(now.mono + timing.probe_period + phase, Task::Watch);
        Self {
            me: id.member,
            timing,
            foca: Foca::new(id, timing.foca_config(1), foca_rng, WireCodec),
            rng,
            peers: Peers::default(),
            overall: Overall::default(),
            health: LocalHealth::default(),
            queue,
            contacts: Contacts::default(),
            forget: BTreeMap::new(),
            probe: None,
            watch: None,
            watched: 0,
            token: TimerToken::default(),
            incarnation: 0,
            class: size_class(1),
            last_urgent: 0,
            listed_at: 0,
            left: false,
            expelled: BTreeSet::new(),
            superseded: None,
            asked_myself: None,
        }
    }

    /// Takes one input. After [`Input::Leave`], or once a later life of this node was seen,
    /// everything else is ignored.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        let mut turn = Turn::new(now);
        if self.left {
            return turn.out;
        }
        self.notice_stall(&turn);
        match input {
            Input::Datagram { from: _, bytes } => self.receive(&bytes, &mut turn),
            Input::Reliable { from, bytes } => {
                turn.reliable = Some(from);
                self.receive(&bytes, &mut turn);
            }
            Input::Join { address } => self.join(address, &mut turn),
            Input::Call { address } => self.call(WireId::anyone_at(plain(address)), &mut turn),
            Input::Leave => self.leave(&mut turn),
            Input::Expel { node } => self.expel(node, &mut turn),
            Input::Heard { node } => self.vouched_for(node, &mut turn),
        }
        self.settle(&mut turn);
        turn.out
    }

    /// When [`Self::handle_timeout`] wants to be called next, monotonic ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.queue.next_due()
    }

    /// Does whatever is due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Now) -> Vec<Effect> {
        let mut turn = Turn::new(now);
        self.notice_stall(&turn);
        while let Some(task) = self.queue.pop_due(turn.now) {
            self.run(task, &mut turn);
            self.settle(&mut turn);
        }
        turn.out
    }

    /// Everybody else this node knows of, in every state, ordered by node.
    pub fn members(&self) -> impl Iterator<Item = MemberView> + '_ {
        self.peers.views()
    }

    /// What is believed of `node`; `None` for one never heard of, or forgotten, and for itself.
    pub fn state_of(&self, node: NodeId) -> Option<MemberState> {
        self.peers.get(&node).map(|peer| peer.state)
    }

    /// See [`MemberView::last_heard`].
    pub fn last_heard(&self, node: NodeId) -> Option<u64> {
        self.peers.get(&node).map(|peer| peer.last_heard)
    }

    /// How ill this node believes itself to be: 0 is healthy, and each point adds half of the
    /// planned length to all of its deadlines. At most 4.
    pub fn local_health(&self) -> u8 {
        self.health.score()
    }

    /// This node.
    pub fn me(&self) -> &MemberId {
        &self.me
    }

    /// The boot count of a later life of this node, once one was seen: this process is the
    /// remains of an earlier life (or its boot counter was set back) and stays silent.
    pub fn superseded(&self) -> Option<u64> {
        self.superseded
    }

    /// A timer that is much too late says that this process, and not the others, stood still.
    /// So everything moves: open probes get their answer's time again (it may wait in the socket),
    /// suspects a whole new suspicion, and our deafness does not count as anybody's silence.
    fn notice_stall(&mut self, turn: &Turn) {
        let now = turn.now;
        let late = self
            .queue
            .next_due()
            .map_or(0, |due| now.saturating_sub(due));
        if self.left || late <= self.timing.stall_after {
            return;
        }
        self.health.stalled(late, now, self.timing.stall_memory);
        let (timing, peers, health) = (&self.timing, &self.peers, &self.health);
        let suspects = self.queue.delay(late + timing.probe_rtt, |node| {
            let stall = peers.get(&node).map_or(0, |peer| peer.stall);
            now + health.stretch(timing.suspicion_of(stall))
        });
        for suspect in suspects {
            self.queue.push(now, Task::Nudge(suspect));
        }
        for peer in self.peers.by_node.values_mut() {
            peer.last_heard = peer.last_heard.saturating_add(late).min(now);
        }
    }

    /// Gives `node` the last of its identities, which says goodbye.
    fn expel(&mut self, node: NodeId, turn: &mut Turn) {
        self.expelled.insert(node);
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let last = WireId {
            bump: u32::MAX,
            left: true,
            ..peer.id
        };
        let gone = Member::new(last, peer.incarnation, State::Down);
        note(
            self.foca
                .apply_many(std::iter::once(gone), true, &mut turn.rt),
        );
        turn.touched.insert(node);
    }

    /// Brings out what foca wants, and takes over what it now believes.
    pub(super) fn settle(&mut self, turn: &mut Turn) {
        self.drain(turn);
        if self.take_over(turn) && turn.now.saturating_sub(self.last_urgent) >= URGENT_GAP {
            self.last_urgent = turn.now;
            note(self.foca.gossip(&mut turn.rt));
            self.drain(turn);
        }
        let members = self.peers.active() + 1;
        if self.class != size_class(members) {
            self.class = size_class(members);
            note(self.foca.set_config(self.timing.foca_config(members)));
        }
    }

    fn drain(&mut self, turn: &mut Turn) {
        while let Some((to, body)) = turn.rt.to_send() {
            self.send_out(&to, &body, turn);
        }
        while let Some((after, timer)) = turn.rt.to_schedule() {
            self.schedule(timer, millis(after), turn.now);
        }
        while let Some(notification) = turn.rt.to_notify() {
            match notification {
                OwnedNotification::Rejoin(_) => {
                    self.health.accused();
                    self.probe = None;
                    self.queue.push(turn.now, Task::Introduce);
                }
                OwnedNotification::Idle | OwnedNotification::Defunct => self.probe = None,
                // Read from the membership state instead, which also tells suspects.
                OwnedNotification::MemberUp(_)
                | OwnedNotification::MemberDown(_)
                | OwnedNotification::Rename(_, _)
                | OwnedNotification::Active => {}
            }
        }
    }

    /// Takes over foca's belief about all touched nodes. True when there is news that others
    /// should have at once.
    fn take_over(&mut self, turn: &mut Turn) -> bool {
        let mut urgent = false;
        for node in std::mem::take(&mut turn.touched) {
            let believed = self
                .foca
                .iter_membership_state()
                .find(|member| member.id().member.node == node);
            let Some(member) = believed else {
                if let Some(gone) = self.peers.remove(&node, turn.now) {
                    self.contacts.forgotten(&gone);
                }
                continue;
            };
            let before = self.peers.get(&node).map(|peer| peer.state);
            let (rng, overall) = (&mut self.rng, &self.overall);
            let path = || Path::new(rng.random(), overall);
            let Some(event) = self.peers.update(member, turn.now, path) else {
                continue;
            };
            turn.out.push(Effect::Event(event));
            urgent |= before.is_some() || !matches!(event, MemberEvent::Alive(_));
            if before == Some(MemberState::Down) && matches!(event, MemberEvent::Alive(_)) {
                let due = turn.now + self.rng.random_range(0..HEAL_WITHIN);
                self.queue.push(due, Task::Heal);
            }
        }
        urgent
    }

    pub(super) fn schedule(&mut self, timer: Timer<WireId>, after: u64, now: u64) {
        match &timer {
            Timer::ProbeRandomMember(token) | Timer::SendIndirectProbe { token, .. } => {
                self.token = *token;
                let due = now + self.health.stretch(after);
                self.queue.push(due, Task::Foca(timer));
            }
            Timer::ChangeSuspectToDown {
                member_id,
                incarnation,
                token,
            } => {
                let trial = (*member_id, *incarnation, *token);
                let Some(peer) = self.peers.get_mut(&member_id.member.node) else {
                    return;
                };
                if peer.trial != Some(trial) {
                    peer.trial = Some(trial);
                    self.suspect(*member_id, timer, now);
                }
            }
            Timer::RemoveDown(id) => {
                self.forget.insert(id.member.node, (now + after, *id));
            }
            Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_) => self.queue.push(now + after, Task::Foca(timer)),
        }
    }

    /// Opens the suspicion of `member`, and lets it know: at once, and twice more before the end.
    pub(super) fn suspect(&mut self, member: WireId, timer: Timer<WireId>, now: u64) {
        let stall = self
            .peers
            .get(&member.member.node)
            .map_or(0, |peer| peer.stall);
        let wait = self.health.stretch(self.timing.suspicion_of(stall));
        for part in 0..3 {
            self.queue.push(now + wait * part / 3, Task::Nudge(member));
        }
        let task = Task::Convict {
            member,
            since: now,
            timer,
        };
        self.queue.push(now + wait, task);
    }

    /// Follows foca's incarnation, which it does not tell. A higher one answers an accusation.
    pub(super) fn note_incarnation(&mut self, sent: Incarnation) {
        if sent > self.incarnation {
            self.health.accused();
        }
        self.incarnation = sent;
    }

    /// See [`Self::note_incarnation`].
    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}

/// foca refuses what it cannot use and stays as it was; there is nothing to do about it here.
pub(super) fn note(result: Result<(), foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "membership message or timer refused");
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
