//! Whom to call when members are missing: at the start, and after a partition.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;

use rand::RngExt;

use super::MemberState;
use super::codec::Packet;
use super::identity::{WireId, plain};
use super::machine::{Membership, Turn, note};
use super::peers::Peer;
use super::queue::Task;

/// Most addresses to join through that are kept; the first ones stay.
const MAX_SEEDS: usize = 64;
/// Most addresses of members that were down for so long that they were dropped from the list.
const MAX_FORGOTTEN: usize = 64;
/// Calls per contact period of a node that has no members at all.
const LONELY_CALLS: usize = 4;
/// Calls per contact period of a node that has members.
const CALLS: usize = 2;
/// About this many nodes of a cluster call in one contact period, whatever its size: enough to
/// find the other half soon, without a thousand nodes calling one that is gone for good.
const CALLERS: usize = 8;
/// Calls made at once when a partition seems to heal.
const HEAL_CALLS: usize = 8;
/// A node without members calls this much more often.
const LONELY_HASTE: u64 = 4;
/// How soon to ask for more members, ms. Faster learns a large cluster sooner, and costs it a
/// datagram each.
const EXCHANGE_AGAIN: std::ops::Range<u64> = 50..150;
/// Members told of a new identity at once.
const INTRODUCTIONS: usize = 4;

/// Addresses beyond the members.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    seeds: BTreeSet<SocketAddr>,
    forgotten: VecDeque<SocketAddr>,
}

impl Contacts {
    fn add_seed(&mut self, address: SocketAddr) {
        if self.seeds.len() < MAX_SEEDS {
            self.seeds.insert(address);
        }
    }

    /// Keeps the address of a member that was dropped while down.
    pub(super) fn forgotten(&mut self, gone: &Peer) {
        let address = gone.id.member.address;
        if gone.state != MemberState::Down || self.forgotten.contains(&address) {
            return;
        }
        if self.forgotten.len() == MAX_FORGOTTEN {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(address);
    }
}

impl Membership {
    pub(super) fn join(&mut self, address: SocketAddr, turn: &mut Turn) {
        let address = plain(address);
        self.contacts.add_seed(address);
        self.call(WireId::anyone_at(address), turn);
    }

    /// The periodic task: forget who was down for long enough, call who is missing.
    pub(super) fn contact(&mut self, turn: &mut Turn) {
        self.forget_old(turn);
        let active = self.peers.active();
        if active == 0 {
            let due = turn.now + self.timing.contact_period / LONELY_HASTE;
            self.queue.push(due, Task::Contact);
            let all = self.missing(true);
            self.call_some(all, LONELY_CALLS, turn);
            return;
        }
        self.queue
            .push(turn.now + self.timing.contact_period, Task::Contact);
        if self.rng.random_range(0..=active) < CALLERS {
            let all = self.missing(true);
            self.call_some(all, CALLS, turn);
        }
    }

    /// Somebody came back from "down": perhaps they all do.
    pub(super) fn heal(&mut self, turn: &mut Turn) {
        self.queue.retain(|task| !matches!(task, Task::Heal));
        let all = self.missing(false);
        self.call_some(all, HEAL_CALLS, turn);
    }

    /// Shows a new identity to some members; their answer makes foca work again.
    pub(super) fn introduce(&mut self, turn: &mut Turn) {
        self.queue.retain(|task| !matches!(task, Task::Introduce));
        let active = self.peers.by_node.values().filter(|peer| peer.is_active());
        let all = active.map(|peer| peer.id).collect();
        self.call_some(all, INTRODUCTIONS, turn);
    }

    /// A list of members that had new ones on it is likely not the whole list: a datagram holds
    /// some twenty. So ask again, until nothing new comes.
    pub(super) fn note_feed(&mut self, packet: &Packet, now: u64) {
        let mut listed = packet.updates.iter();
        if listed.any(|update| self.peers.get(&update.id().member.node).is_none()) {
            let due = now + self.rng.random_range(EXCHANGE_AGAIN);
            self.queue.push(due, Task::Exchange);
        }
    }

    /// Asks some member for its list.
    pub(super) fn exchange(&mut self, turn: &mut Turn) {
        self.queue.retain(|task| !matches!(task, Task::Exchange));
        let active = self.peers.by_node.values().filter(|peer| peer.is_active());
        let all = active.map(|peer| peer.id).collect();
        self.call_some(all, 1, turn);
    }

    /// Members that are down, and known addresses at which no member is.
    fn missing(&self, strangers: bool) -> Vec<WireId> {
        let peers = self.peers.by_node.values();
        let down = peers.filter(|peer| peer.state == MemberState::Down);
        let mut all: Vec<WireId> = down.map(|peer| peer.id).collect();
        let extra = self.contacts.seeds.iter().chain(&self.contacts.forgotten);
        if !strangers || self.contacts.seeds.len() + self.contacts.forgotten.len() == 0 {
            return all;
        }
        let peers = self.peers.by_node.values();
        let present = peers.filter(|peer| peer.is_active());
        let mut present: BTreeSet<SocketAddr> =
            present.map(|peer| peer.id.member.address).collect();
        present.insert(self.me.address);
        let extra: BTreeSet<&SocketAddr> = extra.filter(|at| !present.contains(at)).collect();
        all.extend(extra.into_iter().map(|at| WireId::anyone_at(*at)));
        all
    }

    fn call_some(&mut self, mut all: Vec<WireId>, wanted: usize, turn: &mut Turn) {
        for _ in 0..wanted.min(all.len()) {
            let chosen = all.swap_remove(self.rng.random_range(0..all.len()));
            self.call(chosen, turn);
        }
    }

    pub(super) fn call(&mut self, to: WireId, turn: &mut Turn) {
        note(self.foca.announce(to, &mut turn.rt));
    }

    fn forget_old(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let over: Vec<WireId> = self
            .forget
            .extract_if(.., |_, (due, _)| *due <= now)
            .map(|(_, (_, id))| id)
            .collect();
        for id in over {
            turn.touched.insert(id.member.node);
            let timer = foca::Timer::RemoveDown(id);
            note(self.foca.handle_timer(timer, &mut turn.rt));
        }
    }
}
