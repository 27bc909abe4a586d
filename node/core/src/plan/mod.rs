//! What a deploy would do, without doing it: which slots would start, change, move or stop, where,
//! and why a slot would find no node.
//!
//! It asks the very functions that decide in earnest: commands are checked and carried out on a copy
//! of desired state, nodes are judged as they last reported themselves, and slots are given away
//! one by one as an auctioneer does it. What it cannot know: what changes until the deploy, what
//! nodes have on offer elsewhere at that moment, starts that fail; and in clusters of more than 64
//! nodes an auction asks a sample.

mod data;
mod oust;
pub(crate) mod room;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_state::desired::{Command, Desired, Rejection, Service, preview};
use dunlin_state::model::{
    Claim, Mode, NodeId, Phase, ServiceKey, Slot, SlotId, UpdateOrder, beats,
};

use crate::cluster::Cluster;
use crate::placement::{Domains, Reason, Verdict, judge};
use crate::reconcile::forbids_update;
use crate::volumes;
use data::Data;
pub use data::VolumePlan;
use room::{Room, Seeker};

/// What would become of the services that commands name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the commands.
    pub services: Vec<ServicePlan>,
}

/// What would become of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePlan {
    /// Which service.
    pub service: ServiceKey,
    /// How it is now; `None` when it would be created.
    pub before: Option<Service>,
    /// How it would be.
    pub after: Service,
    /// Each of its slots, ordered.
    pub slots: Vec<SlotPlan>,
    /// What each node says against one more replica, where a slot found no node.
    pub refusals: Vec<(NodeId, Vec<Reason>)>,
}

/// What would become of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotPlan {
    /// Which slot.
    pub slot: Slot,
    /// What would happen.
    pub step: Step,
    /// Where; for a slot that stops, where it runs now.
    pub node: Option<NodeId>,
    /// Where it runs now, when it would go elsewhere.
    pub from: Option<NodeId>,
    /// Replicas of lower priorities that would give way to it there.
    pub ousts: Vec<SlotId>,
    /// The volumes that decide where it goes.
    pub data: Vec<VolumePlan>,
}

/// What would happen to a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It stays as it is.
    Keep,
    /// A vacant slot gets a replica.
    Start,
    /// Its replica is replaced on its node.
    Update,
    /// A replica on another node takes its place.
    Move,
    /// It ends.
    Stop,
    /// It would have no node.
    Nowhere,
}

/// Plans what `commands` would do. An error is what they would be refused with.
pub(crate) fn plan(
    cluster: &Cluster,
    current: &Desired,
    commands: &[Command],
) -> Result<Plan, Rejection> {
    let desired = preview(current, commands)?;
    let mut room = Room::new(cluster, &desired);
    let mut data = Data::new(cluster);
    let keys = commands.iter().filter_map(|command| match command {
        Command::Deploy { service, .. } => Some(service),
        _ => None,
    });
    let services = keys.filter_map(|key| {
        let after = desired.services.get(key)?;
        let before = current.services.get(key).cloned();
        let mut planner = Planner {
            key,
            after,
            room: &mut room,
            data: &mut data,
            slots: Vec::new(),
            refusals: Vec::new(),
        };
        planner.run(&holders(cluster, key));
        let (mut slots, refusals) = (planner.slots, planner.refusals);
        slots.sort_by_key(|slot| slot.slot);
        Some(ServicePlan {
            service: key.clone(),
            before,
            after: after.clone(),
            slots,
            refusals,
        })
    });
    Ok(Plan {
        services: services.collect(),
    })
}

/// Who holds each slot of a service, among nodes whose claims count.
fn holders<'a>(cluster: &'a Cluster, key: &ServiceKey) -> Holders<'a> {
    let mut holders = Holders::new();
    for (node, known) in cluster.nodes() {
        let register = known
            .register
            .as_ref()
            .filter(|_| known.standing.holds_claims());
        let claims = register.into_iter().flat_map(|r| &r.report.claims);
        for claim in claims.filter(|c| c.slot.service == *key) {
            let holder = holders.entry(claim.slot.slot).or_insert((node, claim));
            if beats((&node, claim), (&holder.0, holder.1)).is_gt() {
                *holder = (node, claim);
            }
        }
    }
    holders
}

struct Planner<'r, 'd> {
    key: &'r ServiceKey,
    after: &'r Service,
    room: &'r mut Room<'d>,
    data: &'r mut Data<'d>,
    slots: Vec<SlotPlan>,
    refusals: Vec<(NodeId, Vec<Reason>)>,
}

type Holders<'a> = BTreeMap<Slot, (NodeId, &'a Claim)>;

impl Planner<'_, '_> {
    fn run(&mut self, holders: &Holders<'_>) {
        match self.after.spec.mode {
            Mode::Replicated => self.replicated(holders),
            Mode::Global => self.global(holders),
        }
    }

    fn replicated(&mut self, holders: &Holders<'_>) {
        let wanted = Slot::Replica(self.after.wanted_replicas());
        for (slot, (node, _)) in holders.range(wanted..) {
            self.stop(*slot, *node);
        }
        let held = holders
            .range(..wanted)
            .map(|(_, (node, claim))| (*node, *claim));
        let settled = held
            .filter(|(_, claim)| !claim.leaving)
            .map(|(node, _)| node);
        let mut domains = self.room.domains(&self.after.spec, settled);
        for index in 0..self.after.wanted_replicas() {
            let slot = Slot::Replica(index);
            match holders.get(&slot) {
                None => self.find(slot, None, &mut domains),
                // What has its data there goes on, until somebody brings that elsewhere.
                Some((node, claim)) if claim.leaving && self.is_bound(slot, *node) => {
                    self.note(slot, Step::Keep, Some(*node), None);
                }
                Some((node, claim)) if claim.leaving => {
                    self.find(slot, Some(*node), &mut domains);
                }
                Some((node, claim)) if self.after.allows(slot, &claim.revision) => {
                    self.note(slot, Step::Keep, Some(*node), None);
                }
                Some((node, claim)) => match self.stays(*node, claim) {
                    true => self.update(slot, *node),
                    false => self.find(slot, Some(*node), &mut domains),
                },
            }
        }
    }

    /// Whether a replica is replaced on its own node, as the node would decide
    /// (`reconcile/wish.rs`).
    fn stays(&self, node: NodeId, claim: &Claim) -> bool {
        let (_, spec) = self.after.target(claim.slot.slot);
        if !self.data.lacks(&claim.slot, spec, node).is_empty() {
            return false;
        }
        let view = self.room.without(node, &claim.slot);
        let serves = claim.phase == Phase::Running && claim.ready;
        let start_first = self.after.update().order == UpdateOrder::StartFirst
            && !spec.policy.is_strict()
            && volumes::pin(self.key, spec, claim.slot.slot).is_none();
        match view.map(|view| judge(spec, self.key, &view)) {
            Some(Verdict::Fit { .. }) => !(serves && start_first && self.room.alive() > 1),
            Some(Verdict::Refused(reasons)) => !reasons.iter().any(forbids_update),
            None => false,
        }
    }

    /// Whether data that a slot needs is on this node.
    fn is_bound(&self, slot: Slot, node: NodeId) -> bool {
        let (_, spec) = self.after.target(slot);
        let volumes = self.data.of(&self.id(slot), spec);
        volumes.iter().any(|volume| volume.node == node)
    }

    /// Gives a slot to the best other node; its present replica makes room only then.
    fn find(&mut self, slot: Slot, from: Option<NodeId>, domains: &mut Domains) {
        let (revision, spec) = self.after.target(slot);
        let id = self.id(slot);
        let lacks = |node| self.data.lacks(&id, spec, node);
        let seeker = Seeker {
            service: self.key,
            spec,
            except: from,
            domains,
            lacks: &lacks,
        };
        let free = self.room.best(&seeker);
        let found = free.map(|node| (node, BTreeSet::new()));
        let found = found.or_else(|| oust::best(self.room, self.after, &seeker));
        let Some((node, ousts)) = found else {
            if self.refusals.is_empty() {
                self.refusals = self.room.refusals(&seeker);
            }
            return self.note(slot, Step::Nowhere, None, from);
        };
        domains.place(node);
        self.data.begin(&id, spec, node);
        let data = self.data.of(&id, spec);
        if let Some(from) = from {
            self.room.release(from, &id);
        }
        for victim in &ousts {
            self.room.release(node, victim);
        }
        self.room.take(node, id, revision, spec);
        let step = match from {
            Some(_) => Step::Move,
            None => Step::Start,
        };
        self.slots.push(SlotPlan {
            slot,
            step,
            node: Some(node),
            from,
            ousts: ousts.into_iter().collect(),
            data,
        });
    }

    fn update(&mut self, slot: Slot, node: NodeId) {
        let (revision, spec) = self.after.target(slot);
        let id = self.id(slot);
        self.room.release(node, &id);
        self.data.begin(&id, spec, node);
        self.room.take(node, id, revision, spec);
        self.note(slot, Step::Update, Some(node), None);
    }

    fn global(&mut self, holders: &Holders<'_>) {
        let spec = Arc::clone(&self.after.spec);
        let revision = self.after.revision.clone();
        for (slot, (node, _)) in holders {
            let there = self.after.running && *slot == Slot::Node(*node);
            if !there || !self.room.matches(*node, &spec) {
                self.stop(*slot, *node);
            }
        }
        let nodes = if self.after.running {
            self.room.nodes()
        } else {
            Vec::new()
        };
        for node in nodes {
            let slot = Slot::Node(node);
            match holders.get(&slot) {
                Some(_) if !self.room.matches(node, &spec) => {}
                Some((_, claim)) if claim.revision == revision => {
                    self.note(slot, Step::Keep, Some(node), None);
                }
                Some(_) => self.update(slot, node),
                None => match self.room.judge(node, &spec, self.key) {
                    Some(Verdict::Fit { .. }) => {
                        let id = self.id(slot);
                        self.room.take(node, id, &revision, &spec);
                        self.note(slot, Step::Start, Some(node), None);
                    }
                    Some(Verdict::Refused(reasons)) => self.refusals.push((node, reasons)),
                    None => {}
                },
            }
        }
    }

    fn stop(&mut self, slot: Slot, node: NodeId) {
        let id = self.id(slot);
        self.room.release(node, &id);
        self.note(slot, Step::Stop, Some(node), None);
    }

    fn id(&self, slot: Slot) -> SlotId {
        SlotId {
            service: self.key.clone(),
            slot,
        }
    }

    fn note(&mut self, slot: Slot, step: Step, node: Option<NodeId>, from: Option<NodeId>) {
        let (_, spec) = self.after.target(slot);
        let data = self.data.of(&self.id(slot), spec);
        self.slots.push(SlotPlan {
            slot,
            step,
            node,
            from,
            ousts: Vec::new(),
            data,
        });
    }
}
