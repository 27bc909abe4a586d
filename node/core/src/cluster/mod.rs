//! What this node knows of the others, indexed for its own decisions.
//!
//! Every node sees every register, but has to act on few services: those it holds replicas of,
//! those for which it ranks among the first `TOP_RANKS` by rendezvous hashing, those whose update
//! may have to be undone, and what these depend on. Only these are *watched*: their claims are indexed by slot, and their vacant slots kept as a set. So a
//! changed register costs a comparison with the one before, and no input costs work proportional
//! to nodes times services.

mod filter;
mod needs;
mod ranks;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{
    Claim, FailureAction, Mode, NodeId, NodeRegister, NodeReport, ServiceKey, Slot, SlotId,
};

use filter::Filter;
use needs::Needs;
use ranks::{Rank, TOP_RANKS};
pub(crate) use watch::Watch;

use crate::hashing::node_hash;
use crate::liveness::Standing;
use crate::volumes::Atlas;

/// The nodes, their registers, and the index of the services that matter here.
#[derive(Debug)]
pub(crate) struct Cluster {
    me: NodeId,
    my_hash: u64,
    nodes: BTreeMap<NodeId, Node>,
    /// Every node that is alive, with its hash.
    alive: BTreeMap<NodeId, u64>,
    /// The hashes of the living nodes but this one, in no order, for counting.
    others: Vec<u64>,
    /// Living nodes whose registers have not arrived.
    missing: BTreeSet<NodeId>,
    ranks: BTreeMap<ServiceKey, Rank>,
    watched: BTreeMap<ServiceKey, Watch>,
    filter: Filter,
    held: BTreeSet<ServiceKey>,
    needs: Needs,
    atlas: Atlas,
}

/// A node, from membership, its register, or both.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) standing: Standing,
    pub(crate) register: Option<Arc<NodeRegister>>,
    /// Whether the register tells how things are now. Of a node that was gone, or has started
    /// anew, it tells how they were before.
    pub(crate) trusted: bool,
    /// Since when it does not answer, in milliseconds since the Unix epoch; `None` when it answers,
    /// and when it has not done so since this node started.
    pub(crate) silent_since: Option<u64>,
    /// The life that membership knows of; registers of earlier ones are history.
    boot: u64,
    hash: u64,
}

impl Node {
    fn unknown(node: NodeId) -> Self {
        Self {
            standing: Standing::Suspect,
            register: None,
            trusted: false,
            silent_since: None,
            boot: 0,
            hash: node_hash(node),
        }
    }

    fn is_of_this_life(&self) -> bool {
        let register = self.register.as_ref();
        register.is_some_and(|r| r.version.boot >= self.boot)
    }
}

/// What a changed register means for others than its service's slots.
#[derive(Debug, Default)]
pub(crate) struct RegisterChange {
    /// Watched services whose claims changed.
    pub(crate) services: BTreeSet<ServiceKey>,
    /// Whether the node may now take what it refused before.
    pub(crate) roomier: bool,
    /// Whether nothing was known of the node before.
    pub(crate) first: bool,
    /// Whether it tells of other volumes than before.
    pub(crate) volumes: bool,
}

impl Cluster {
    pub(crate) fn new(me: NodeId) -> Self {
        let hash = node_hash(me);
        let myself = Node {
            standing: Standing::Alive,
            ..Node::unknown(me)
        };
        Self {
            me,
            my_hash: hash,
            nodes: BTreeMap::from([(me, myself)]),
            alive: BTreeMap::from([(me, hash)]),
            others: Vec::new(),
            missing: BTreeSet::new(),
            ranks: BTreeMap::new(),
            watched: BTreeMap::new(),
            filter: Filter::default(),
            held: BTreeSet::new(),
            needs: Needs::default(),
            atlas: Atlas::default(),
        }
    }

    /// Who has the data of which volumes.
    pub(crate) fn atlas(&self) -> &Atlas {
        &self.atlas
    }

    /// Takes what is known of a node's volumes from elsewhere than its present register.
    pub(crate) fn learn_volumes(&mut self, register: &NodeRegister) -> bool {
        let NodeReport { name, volumes, .. } = &register.report;
        self.atlas
            .set(register.node, register.version, name, volumes)
    }

    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    pub(crate) fn standing(&self, node: NodeId) -> Standing {
        self.nodes
            .get(&node)
            .map_or(Standing::Suspect, |n| n.standing)
    }

    pub(crate) fn register(&self, node: NodeId) -> Option<&Arc<NodeRegister>> {
        self.nodes.get(&node).and_then(|n| n.register.as_ref())
    }

    /// Since when a node does not answer, by the wall clock, if it ever did.
    pub(crate) fn silent_since(&self, node: NodeId) -> Option<u64> {
        self.nodes.get(&node)?.silent_since
    }

    /// A node answers from now on, or does not. Said before [`Self::set_standing`].
    pub(crate) fn note_silence(&mut self, node: NodeId, standing: Standing, wall: u64) {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return;
        };
        match (entry.standing, standing) {
            (_, Standing::Alive) => entry.silent_since = None,
            (Standing::Alive, _) => entry.silent_since = Some(wall),
            (Standing::Suspect | Standing::Gone | Standing::Left, _) => {}
        }
    }

    /// All nodes, ordered.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Nodes that answer, ordered; this one among them.
    pub(crate) fn alive(&self) -> impl ExactSizeIterator<Item = NodeId> + '_ {
        self.alive.keys().copied()
    }

    /// Whether every node that answers has told what it holds: before that, slots look vacant that
    /// are not.
    pub(crate) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// So high an epoch of a slot was given away: the next one is higher, whoever has it.
    pub(crate) fn note_epoch(&mut self, slot: &SlotId, epoch: u64) {
        if let Some(watch) = self.watched.get_mut(&slot.service) {
            watch.note_epoch(slot.slot, epoch);
        }
    }

    pub(crate) fn watch(&self, service: &ServiceKey) -> Option<&Watch> {
        self.watched.get(service)
    }

    /// Services that this node watches.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &ServiceKey> {
        self.watched.keys()
    }

    /// The claims to a slot of a watched service, also of nodes that are gone.
    pub(crate) fn claims_of<'a>(
        &'a self,
        service: &'a ServiceKey,
        slot: Slot,
    ) -> impl Iterator<Item = (NodeId, &'a Claim)> + 'a {
        let watch = self.watched.get(service).into_iter();
        let holders = watch.flat_map(move |w| w.holders(slot));
        holders.filter_map(move |(node, _)| {
            let claims = &self.register(node)?.report.claims;
            Some((node, find_claim(claims, service, slot)?))
        })
    }

    /// This node's place in the order of those who auction the service, if it is among the first.
    pub(crate) fn my_rank(&self, service: &ServiceKey) -> Option<usize> {
        self.ranks.get(service)?.top()
    }

    /// How many living nodes rank before this one; of very many, some.
    pub(crate) fn ahead_of_me(&self, service: &ServiceKey) -> Option<usize> {
        Some(self.ranks.get(service)?.ahead())
    }

    /// The nodes that rank first for a service, best first.
    pub(crate) fn auctioneers(&self, service: &ServiceKey) -> Vec<NodeId> {
        let Some(rank) = self.ranks.get(service) else {
            return Vec::new();
        };
        let mut top: Vec<(u64, NodeId)> = Vec::with_capacity(TOP_RANKS + 1);
        for (node, hash) in &self.alive {
            let entry = (rank.weight(*hash), *node);
            let place = top.partition_point(|known| *known > entry);
            if place < TOP_RANKS {
                top.insert(place, entry);
                top.truncate(TOP_RANKS);
            }
        }
        top.into_iter().map(|(_, node)| node).collect()
    }

    /// Takes note of a node's standing. Returns the watched services that it concerns.
    pub(crate) fn set_standing(
        &mut self,
        node: NodeId,
        standing: Standing,
        desired: &Desired,
    ) -> BTreeSet<ServiceKey> {
        let entry = self
            .nodes
            .entry(node)
            .or_insert_with(|| Node::unknown(node));
        entry.standing = standing;
        entry.trusted &= standing.holds_claims();
        let hash = entry.hash;
        let was_alive = self.alive.contains_key(&node);
        let is_alive = standing == Standing::Alive;
        if is_alive && entry.register.is_none() && node != self.me {
            self.missing.insert(node);
        } else {
            self.missing.remove(&node);
        }
        let mut touched = BTreeSet::new();
        if is_alive && !was_alive {
            self.alive.insert(node, hash);
            self.others.push(hash);
            touched.extend(self.rerank(|rank| rank.join(hash)));
        } else if !is_alive && was_alive && node != self.me {
            self.alive.remove(&node);
            self.others.retain(|other| *other != hash);
            let others = std::mem::take(&mut self.others);
            touched.extend(self.rerank(|rank| rank.leave(hash, &others)));
            self.others = others;
        }
        for service in &touched {
            self.review_watch(service, desired);
        }
        let nodes = &self.nodes;
        for (service, watch) in &mut self.watched {
            if watch.refresh_node(node, &|n| standing_in(nodes, n)) {
                touched.insert(service.clone());
            }
        }
        touched
    }

    /// Membership speaks of this life of a node.
    pub(crate) fn set_boot(&mut self, node: NodeId, boot: u64) {
        let entry = self
            .nodes
            .entry(node)
            .or_insert_with(|| Node::unknown(node));
        entry.boot = boot;
        entry.trusted &= entry.is_of_this_life();
    }

    /// Whether a node's claims say how things are now.
    pub(crate) fn is_trusted(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|n| n.trusted)
    }

    /// Nothing newer has come from a node that is back for long enough: what it said before it
    /// was gone still holds. Returns the watched services that it concerns.
    pub(crate) fn trust(&mut self, node: NodeId) -> BTreeSet<ServiceKey> {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return BTreeSet::new();
        };
        entry.trusted = entry.standing.holds_claims() && entry.is_of_this_life();
        let watched = self.watched.iter();
        watched
            .filter(|(_, watch)| watch.is_held_by(node))
            .map(|(service, _)| service.clone())
            .collect()
    }

    /// Changes this node's rank for every service; returns those for which it matters.
    fn rerank(&mut self, change: impl Fn(&mut Rank) -> bool) -> Vec<ServiceKey> {
        let ranks = self.ranks.iter_mut();
        ranks
            .filter_map(|(service, rank)| change(rank).then(|| service.clone()))
            .collect()
    }

    /// Takes in a register. Whether the node has more room now is found out only if asked for.
    pub(crate) fn set_register(
        &mut self,
        register: &Arc<NodeRegister>,
        ask_roomier: bool,
    ) -> RegisterChange {
        let node = register.node;
        self.missing.remove(&node);
        let entry = self
            .nodes
            .entry(node)
            .or_insert_with(|| Node::unknown(node));
        let before = entry.register.replace(Arc::clone(register));
        entry.trusted = entry.is_of_this_life();
        let old = before.as_deref().map(|r| &r.report);
        let differ = |old| conditions_differ(old, &register.report);
        let mut change = RegisterChange {
            services: BTreeSet::new(),
            roomier: ask_roomier && old.is_none_or(differ),
            first: old.is_none(),
            volumes: false,
        };
        let NodeReport { name, volumes, .. } = &register.report;
        change.volumes = self.atlas.set(node, register.version, name, volumes);
        let old_claims = old.map_or(&[][..], |r| r.claims.as_slice());
        self.diff_claims(node, old_claims, &register.report.claims, &mut change);
        change
    }

    /// Brings the watched services up to date with a node's new claims.
    fn diff_claims(
        &mut self,
        node: NodeId,
        old: &[Claim],
        new: &[Claim],
        change: &mut RegisterChange,
    ) {
        let mut gone: Vec<&Claim> = Vec::new();
        let mut came: Vec<&Claim> = Vec::new();
        let mut olds = old.iter().peekable();
        for claim in new {
            let mut before = None;
            // Most claims are those of before at the same place: equality is asked first.
            while let Some(known) = olds.peek() {
                if known.slot == claim.slot {
                    before = olds.next();
                    break;
                }
                if known.slot > claim.slot {
                    break;
                }
                gone.extend(olds.next());
            }
            // Few services are watched, and claims are long: the cheap question comes first.
            if self.filter.may_contain(&claim.slot.service) && before != Some(claim) {
                came.push(claim);
            }
        }
        gone.extend(olds);
        change.roomier |= !gone.is_empty();
        let nodes = &self.nodes;
        let standing = |n| standing_in(nodes, n);
        // Reports list claims by slot. If one does not, some claims are both gone and come, which
        // is why the gone ones go first.
        for claim in gone {
            let service = &claim.slot.service;
            if self.filter.may_contain(service)
                && let Some(watch) = self.watched.get_mut(service)
            {
                watch.remove(claim.slot.slot, node, &standing);
                change.services.insert(service.clone());
            }
        }
        for claim in came {
            let service = &claim.slot.service;
            if let Some(watch) = self.watched.get_mut(service) {
                watch.insert(claim.slot.slot, node, claim, &standing);
                change.services.insert(service.clone());
            }
        }
    }

    /// Forgets a node's register.
    pub(crate) fn forget(&mut self, node: NodeId, desired: &Desired) -> BTreeSet<ServiceKey> {
        let Some(entry) = self.nodes.get_mut(&node) else {
            return BTreeSet::new();
        };
        // Gone before its standing changes: a service that is watched from then on, because this
        // node's rank rises, is indexed from the registers that are there.
        let old = entry.register.take();
        let mut change = RegisterChange::default();
        if let Some(old) = old {
            self.diff_claims(node, &old.report.claims, &[], &mut change);
        }
        change
            .services
            .extend(self.set_standing(node, Standing::Gone, desired));
        self.nodes.remove(&node);
        change.services
    }

    /// Takes note of a service that is new, changed or removed. Returns whether this node has
    /// anything to do with it.
    pub(crate) fn set_service(&mut self, service: &ServiceKey, desired: &Desired) -> bool {
        let before = self.watched.contains_key(service);
        let known = desired.services.get(service);
        let leads = if known.is_some() {
            let rank = self.ranks.entry(service.clone());
            let rank = rank.or_insert_with(|| Rank::count(service, self.my_hash, &self.others));
            rank.top().is_some()
        } else {
            self.ranks.remove(service);
            false
        };
        let acts = self.has_part_in(service, leads, known);
        self.watch_as_needed(service, acts, desired);
        let nodes = &self.nodes;
        let Some(watch) = self.watched.get_mut(service) else {
            return before;
        };
        let (wanted, closed) = wanted_slots(known);
        watch.set_wanted(wanted, closed, &|n| standing_in(nodes, n));
        true
    }

    /// Takes note whether this node holds slots of the service.
    pub(crate) fn set_held(&mut self, service: &ServiceKey, held: bool, desired: &Desired) {
        let changed = if held {
            self.held.insert(service.clone())
        } else {
            self.held.remove(service)
        };
        if changed {
            self.review_watch(service, desired);
        }
    }

    /// Whether this node may have to do something for the service.
    fn acts_for(&self, service: &ServiceKey, desired: &Desired) -> bool {
        let leads = self.my_rank(service).is_some();
        self.has_part_in(service, leads, desired.services.get(service))
    }

    fn has_part_in(&self, service: &ServiceKey, leads: bool, known: Option<&Service>) -> bool {
        leads || self.held.contains(service) || known.is_some_and(concerns_all)
    }

    /// Starts or ends watching a service and what it depends on.
    fn review_watch(&mut self, service: &ServiceKey, desired: &Desired) {
        let acts = self.acts_for(service, desired);
        self.watch_as_needed(service, acts, desired);
    }

    fn watch_as_needed(&mut self, service: &ServiceKey, acts: bool, desired: &Desired) {
        self.review_needs(service, acts, desired);
        self.watch_or_not(service, acts, desired);
    }

    fn watch_or_not(&mut self, service: &ServiceKey, acts: bool, desired: &Desired) {
        if !acts && !self.needs.is_needed(service) {
            if self.watched.remove(service).is_some() {
                self.filter = Filter::of(self.watched.keys());
            }
            return;
        }
        if self.watched.contains_key(service) {
            return;
        }
        let mut watch = Watch::default();
        let nodes = &self.nodes;
        let standing = |n| standing_in(nodes, n);
        for (node, entry) in nodes {
            let claims = entry.register.iter().flat_map(|r| &r.report.claims);
            for claim in claims.filter(|c| c.slot.service == *service) {
                watch.insert(claim.slot.slot, *node, claim, &standing);
            }
        }
        let (wanted, closed) = wanted_slots(desired.services.get(service));
        watch.set_wanted(wanted, closed, &standing);
        self.filter.add(service);
        self.watched.insert(service.clone(), watch);
    }
}

/// Slots of a replicated service that should be filled by auctions, and which of them not.
fn wanted_slots(service: Option<&Service>) -> (u32, BTreeSet<u32>) {
    match service {
        Some(service) if service.spec.mode == Mode::Replicated => {
            let wanted = service.wanted_replicas();
            let run = service.jobs.run.as_ref();
            (wanted, run.map(|r| r.closed(wanted)).unwrap_or_default())
        }
        Some(_) | None => (0, BTreeSet::new()),
    }
}

/// Finds a claim in a report, which lists claims by slot; if it does not, by searching all.
fn find_claim<'a>(claims: &'a [Claim], service: &ServiceKey, slot: Slot) -> Option<&'a Claim> {
    let wanted = (service, slot);
    let found = claims.binary_search_by(|c| (&c.slot.service, c.slot.slot).cmp(&wanted));
    match found {
        Ok(index) => claims.get(index),
        Err(_) => claims
            .iter()
            .find(|c| c.slot.slot == slot && c.slot.service == *service),
    }
}

fn standing_in(nodes: &BTreeMap<NodeId, Node>, node: NodeId) -> Standing {
    nodes.get(&node).map_or(Standing::Suspect, |n| n.standing)
}

/// Whether anything but claims differs that placement looks at.
fn conditions_differ(old: &NodeReport, new: &NodeReport) -> bool {
    old.labels != new.labels
        || old.capacity != new.capacity
        || old.runtimes != new.runtimes
        || old.disk_ok != new.disk_ok
        || old.facts != new.facts
        || old.name != new.name
}

/// Whether an update may have to be undone, or the end of a run be recorded. Only some nodes may
/// write that, so all watch for it.
fn concerns_all(service: &Service) -> bool {
    let rollout = &service.rollout;
    service.jobs.run.is_some()
        || (rollout.previous.is_some()
            && service.update().failure_action == FailureAction::Rollback)
}
