//! The decisions of one node, wired together: who lives, what is vacant, who gets it, what runs.
//!
//! The agent knows neither how facts reach it nor how its messages travel: it is given snapshots
//! of desired state, registers, and beliefs about members, and the engine connects it with the
//! machines that bring those. Whatever comes in marks the services it concerns as dirty;
//! [`Agent::settle`] then looks at these again until nothing changes any more, so that the order
//! in which news arrive within one instant does not matter.

mod auctions;
mod autoscale;
mod depend;
mod evict;
mod floor;
mod isolation;
mod jobs;
mod moving;
mod news;
mod secrets;
#[cfg(test)]
pub(crate) mod tests;
mod views;
mod volumes;
mod votes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_state::Now;
use dunlin_state::desired::{Command, Desired};
use dunlin_state::model::{
    Claim, HeldVolume, NodeId, NodeRegister, NodeReport, Resources, ServiceKey, ServiceSpec, Trial,
    Version,
};

use crate::bidding::{Auctioneer, Bidder, Market, Message};
use crate::cluster::Cluster;
use crate::depend::Conditions;
use crate::io::{Event, NodeConfig, RuntimeCommand};
use crate::isolation::Isolation;
use crate::jobs::Recording;
use crate::lease::{self, Leases};
use crate::liveness::{Heard, Liveness, Standing};
use crate::placement::Reason;
use crate::rebalance::Rebalancer;
use crate::reconcile::{self, Reconciler, World};
use crate::rollout::Rollout;
use crate::secrets::{self as secret_keys, Keeper};
use crate::timers::Timers;
use autoscale::Scaling;
use floor::Opening;
pub use volumes::VolumeCopy;

/// Milliseconds between two writes of the claims to disk: they change in bursts, and an SD card
/// wears out. Losing the last write costs a restart of a replica, not its data.
const PERSIST_INTERVAL_MS: u64 = 200;

/// Milliseconds until the last word of a node that was gone counts again although nothing newer
/// has come from it: anti-entropy has compared registers by then.
const DISTRUST_MS: u64 = 3_000;

/// Milliseconds until a change that a failed rollout asks for is proposed again: the disk may have
/// refused it.
const STEER_AGAIN_MS: u64 = 5_000;

/// Milliseconds that a node gives each node that ranks before it to act on a failed rollout: it may
/// be dying, or have no right to change the service. Long enough for its change to arrive here.
const STEER_TURN_MS: u64 = 500;

/// The longest such wait in milliseconds, in a cluster of any size.
const STEER_LATEST_MS: u64 = 10_000;

/// What the agent wants done.
#[derive(Debug, Clone)]
#[must_use]
pub enum Output {
    /// Tell another node.
    Send {
        /// Whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Tell another node something about secrets.
    Ask {
        /// Whom.
        to: NodeId,
        /// What.
        message: secret_keys::Message,
    },
    /// Tell another node something about votes.
    Vote {
        /// Whom.
        to: NodeId,
        /// What.
        message: lease::Message,
    },
    /// Something for the holder of the keys of secrets.
    Secret(secret_keys::Order),
    /// Ask a node over the reliable path whether it lives; answer with [`Agent::probed`].
    Probe {
        /// Whom.
        node: NodeId,
        /// Its membership address.
        address: SocketAddr,
    },
    /// Something for the runtimes.
    Runtime(RuntimeCommand),
    /// Something for the operator.
    Event(Event),
    /// Publish this node's report.
    Report(Box<NodeReport>),
    /// Change desired state, as the failure action of a rollout says.
    Propose(Command),
    /// Remember these claims.
    Persist(Vec<Claim>),
    /// Remember these volumes; answer with [`Agent::volumes_written`].
    PersistVolumes(Vec<HeldVolume>),
    /// The route table may have changed although no register has.
    RoutesChanged,
    /// This node now acts otherwise regarding another one.
    Standing {
        /// Whom.
        node: NodeId,
        /// How.
        standing: Standing,
    },
}

/// All decisions of one node.
#[derive(Debug)]
pub struct Agent {
    me: NodeId,
    /// This node's report but for its claims.
    host: NodeReport,
    version: Version,
    /// What people want, and the runs of jobs that follow from it.
    desired: Arc<Desired>,
    /// The same without these.
    written: Arc<Desired>,
    jobs: BTreeSet<ServiceKey>,
    /// When runs of jobs may begin or end.
    jobs_due: Option<u64>,
    /// What is to be recorded of runs and is not yet.
    recording: BTreeMap<ServiceKey, Recording>,
    /// When to do something about it.
    record_at: Timers<ServiceKey>,
    scaling: Scaling,
    desired_known: bool,
    cluster: Cluster,
    liveness: Liveness,
    auctioneer: Auctioneer,
    bidder: Bidder,
    reconciler: Reconciler,
    opening: Opening,
    isolation: Isolation,
    rebalancer: Rebalancer,
    leases: Leases,
    /// Whether there are services of which there must never be two.
    any_strict: bool,
    keeper: Keeper,
    /// Whether what the keeper looks at has changed.
    keys_dirty: bool,
    /// When to take a returned node at its old word.
    distrusted: Timers<NodeId>,
    /// Services whose failed rollout asks for a change.
    failing: BTreeSet<ServiceKey>,
    /// When to propose it, for the first time or again.
    steering: Timers<ServiceKey>,
    dirty: BTreeSet<ServiceKey>,
    /// How the dependencies of services stand that this node acts for.
    conditions: BTreeMap<ServiceKey, Conditions>,
    /// Daemon services, which every matching node claims by itself.
    globals: BTreeSet<ServiceKey>,
    /// Messages of this node to itself.
    loopback: VecDeque<Message>,
    published: bool,
    persist_due: Option<u64>,
    /// When the volumes are to be written, also again because the disk refused.
    volumes_due: Option<u64>,
    last_persist: Option<u64>,
    leaving: bool,
}

/// What an agent starts with.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The claims of an earlier life.
    pub claims: Vec<Claim>,
    /// Its volumes.
    pub volumes: Vec<HeldVolume>,
    /// Desired state as saved.
    pub desired: Arc<Desired>,
    /// Whether it was saved at all.
    pub desired_known: bool,
    /// Whether other nodes were known in an earlier life.
    pub peers_known: bool,
}

impl Agent {
    /// A node that starts.
    pub fn new(config: &NodeConfig, start: Start, now: Now) -> (Self, Vec<Output>) {
        let me = config.member.node;
        let boot = config.member.boot;
        let seed = config.seed;
        let mut agent = Self {
            me,
            host: NodeReport {
                name: config.name.clone(),
                dunlin_version: config.dunlin_version.clone(),
                address: Some(config.member.address),
                facts: config.facts.clone(),
                labels: config.labels.clone(),
                capacity: config.capacity,
                runtimes: config.runtimes.clone(),
                disk_ok: true,
                claims: Vec::new(),
                preempted: Vec::new(),
                volumes: Vec::new(),
                loads: BTreeMap::new(),
                scales: BTreeMap::new(),
                started_at: now.wall,
            },
            version: Version { boot, seq: 0 },
            desired: Arc::new(Desired::default()),
            written: Arc::new(Desired::default()),
            jobs: BTreeSet::new(),
            jobs_due: None,
            recording: BTreeMap::new(),
            record_at: Timers::default(),
            scaling: Scaling::new(&start.claims),
            desired_known: start.desired_known,
            cluster: Cluster::new(me),
            liveness: Liveness::new(me),
            auctioneer: Auctioneer::new(me, boot, seed ^ 1),
            bidder: Bidder::default(),
            reconciler: Reconciler::new(me, boot, seed ^ 2),
            opening: Opening::new(start.peers_known, now.mono),
            isolation: Isolation::new(start.peers_known, now.mono),
            rebalancer: Rebalancer::new(boot, seed ^ 4, now.mono),
            leases: Leases::new(me, seed ^ 3, now.mono),
            any_strict: false,
            keeper: Keeper::new(me),
            keys_dirty: true,
            distrusted: Timers::default(),
            failing: BTreeSet::new(),
            steering: Timers::default(),
            dirty: BTreeSet::new(),
            conditions: BTreeMap::new(),
            globals: BTreeSet::new(),
            loopback: VecDeque::new(),
            published: false,
            persist_due: None,
            volumes_due: None,
            last_persist: None,
            leaving: false,
        };
        let mut out = Vec::new();
        agent.take_desired(start.desired, now, &mut out);
        agent.reconciler.recover_volumes(start.volumes);
        let effects = agent.with_world(|r, world| r.recover(start.claims, world, now));
        push_reconciled(effects, &mut out);
        agent.opening.allow_excess(agent.reconciler.committed());
        agent.try_open(now, &mut out);
        agent.settle(now, &mut out);
        (agent, out)
    }

    /// When to call [`Self::handle_timeout`], in milliseconds of the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        let times = [
            self.liveness.poll_timeout(),
            self.auctioneer.poll_timeout(),
            self.bidder.poll_timeout(),
            self.reconciler.poll_timeout(),
            self.opening.poll_timeout(),
            self.isolation.poll_timeout(),
            self.rebalancer.poll_timeout(),
            self.leases.poll_timeout(),
            self.keeper.poll_timeout(),
            self.distrusted.next(),
            self.steering.next(),
            self.jobs_due,
            self.record_at.next(),
            self.scaling.poll_timeout(),
            self.persist_due,
            self.volumes_due,
        ];
        times.into_iter().flatten().min()
    }

    /// Time has passed; harmless when early.
    pub fn handle_timeout(&mut self, heard: Heard<'_>, now: Now) -> Vec<Output> {
        let mut out = Vec::new();
        let effects = self.liveness.handle_timeout(heard, now.mono);
        self.on_liveness(effects, now, &mut out);
        let effects = self.bidder.handle_timeout(now.mono);
        self.on_bidder(effects, now, &mut out);
        let (effects, revisits) = self.with_world(|r, world| r.handle_timeout(world, now));
        self.dirty.extend(revisits);
        self.dirty.extend(self.steering.take_due(now.mono));
        self.dirty.extend(self.record_at.take_due(now.mono));
        self.look_at_jobs(now, &mut out);
        self.look_at_load(now, &mut out);
        push_reconciled(effects, &mut out);
        for node in self.distrusted.take_due(now.mono) {
            self.dirty.extend(self.cluster.trust(node));
            out.push(Output::RoutesChanged);
        }
        self.keys_due(now, &mut out);
        self.look_at_isolation(now);
        self.look_at_balance(now, &mut out);
        self.leases_due(now, &mut out);
        self.try_open(now, &mut out);
        let open = self.is_floor_open(now);
        let floor = floor::floor(&self.cluster, &self.desired, open);
        let effects = self.auctioneer.handle_timeout(floor, now);
        self.on_auctioneer(effects, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// Looks at everything that is dirty until nothing is, then publishes what has changed.
    fn settle(&mut self, now: Now, out: &mut Vec<Output>) {
        loop {
            self.absorb_own_changes(now);
            if let Some(message) = self.loopback.pop_front() {
                self.deliver(self.me, message, now, out);
            } else if let Some(service) = self.dirty.pop_first() {
                self.review(&service, now, out);
            } else if !self.pursue_evictions(now, out) {
                break;
            }
        }
        self.review_keys(now, out);
        self.review_leases(now, out);
        debug_assert!(self.is_within_capacity(), "more committed than there is");
        if !self.published {
            self.published = true;
            out.push(Output::Report(Box::new(self.report())));
        }
        if self.persist_due.is_some_and(|due| due <= now.mono) {
            self.persist_due = None;
            self.last_persist = Some(now.mono);
            out.push(Output::Persist(self.reconciler.claims().cloned().collect()));
        }
        self.persist_volumes(now, out);
    }

    fn review(&mut self, service: &ServiceKey, now: Now, out: &mut Vec<Output>) {
        let effects = self.with_world(|r, world| r.review(service, world, now));
        push_reconciled(effects, out);
        // What the reconciler has just changed is in the index before the auctioneer looks.
        self.absorb_own_changes(now);
        let open = self.is_floor_open(now);
        let floor = floor::floor(&self.cluster, &self.desired, open);
        let effects = self.auctioneer.review(service, floor, now);
        self.on_auctioneer(effects, out);
        self.steer(service, now, out);
        self.record_runs(service, now, out);
        self.tell_dependents(service);
    }

    /// Acts on a rollout that has failed: the node that ranks first for the service at once, others
    /// when nothing has come of that. Whether the change was written shows in desired state; until
    /// then it is proposed again now and then.
    fn steer(&mut self, key: &ServiceKey, now: Now, out: &mut Vec<Output>) {
        let Some(service) = self.desired.services.get(key) else {
            self.failing.remove(key);
            return;
        };
        let Some(change) = Rollout::of(key, service, &self.cluster).failure_action() else {
            self.failing.remove(key);
            self.steering.set(key, None);
            return;
        };
        if self.steering.is_set(key) {
            return;
        }
        let turns = self.cluster.ahead_of_me(key).unwrap_or(usize::MAX);
        if self.failing.insert(key.clone()) && turns > 0 {
            let at = now.mono.saturating_add(turn(turns));
            self.steering.set(key, Some(at));
            return;
        }
        let at = now.mono.saturating_add(STEER_AGAIN_MS);
        self.steering.set(key, Some(at));
        out.push(Output::Propose(Command::Rollout {
            service: key.clone(),
            revision: Some(service.revision.clone()),
            change,
        }));
    }

    /// Whether the present specification of a service has proven itself everywhere.
    pub fn is_proven(&self, key: &ServiceKey) -> bool {
        let service = self.desired.services.get(key);
        service.is_some_and(|service| {
            let claims = self.registers().flat_map(|r| &r.report.claims);
            let mut own = claims.filter(|c| c.slot.service == *key).peekable();
            let same = |c: &Claim| c.revision == service.revision && c.trial == Trial::Proven;
            own.peek().is_some() && own.all(same)
        })
    }

    /// Takes this node's own changed claims into the index, as it does with those of others.
    fn absorb_own_changes(&mut self, now: Now) {
        let changes = self.reconciler.take_changes();
        self.keys_dirty |= changes.report;
        for service in &changes.held {
            let held = self.reconciler.cares_for(service);
            self.cluster.set_held(service, held, &self.desired);
        }
        if changes.report {
            self.reconciler.note_steps(now.wall);
            self.publish_own(now);
        }
        if changes.volumes {
            self.volumes_due = Some(now.mono);
        }
        if changes.durable && self.persist_due.is_none() {
            let earliest = self.last_persist.map_or(0, |at| at + PERSIST_INTERVAL_MS);
            self.persist_due = Some(earliest.max(now.mono));
        }
    }

    fn publish_own(&mut self, now: Now) {
        let report = self.report();
        let mine = self.cluster.register(self.me);
        if mine.is_some_and(|known| known.report == report) {
            return;
        }
        self.version.seq += 1;
        self.published = false;
        let register = Arc::new(NodeRegister {
            node: self.me,
            version: self.version,
            report,
        });
        self.take_register(&register, now);
    }

    /// Takes in one register, of this or another node.
    /// Returns whether it is the first of its node.
    fn take_register(&mut self, register: &Arc<NodeRegister>, now: Now) -> bool {
        let ask_roomier = register.node == self.me || self.auctioneer.is_starving();
        let change = self.cluster.set_register(register, ask_roomier);
        self.dirty.extend(change.services);
        if change.roomier {
            self.auctioneer.nudge(now.mono);
            if register.node == self.me {
                self.dirty.extend(self.globals.iter().cloned());
            }
        }
        if change.volumes {
            self.volumes_changed(now);
        }
        change.first
    }

    /// This node's report as it should be published.
    pub fn report(&self) -> NodeReport {
        NodeReport {
            claims: self.reconciler.claims().cloned().collect(),
            preempted: self.reconciler.preempted().to_vec(),
            volumes: self.reconciler.volumes().cloned().collect(),
            loads: self.scaling.loads.clone(),
            scales: self.scaling.own.clone(),
            ..self.host.clone()
        }
    }

    fn with_market<T>(&mut self, now: Now, act: impl FnOnce(&mut Bidder, &Market<'_>) -> T) -> T {
        let mut bidder = std::mem::take(&mut self.bidder);
        let leaving = self.leaving;
        let reconciler = &self.reconciler;
        let (host, desired) = (&self.host, &self.desired);
        let own = || reconciler.view(host, desired, None);
        let refuse = |service: &ServiceKey, revision: &str| {
            if leaving {
                return Some(Reason::Gone);
            }
            let known = self.desired.services.get(service);
            let policy = known.map(|known| &known.spec.policy);
            if policy.is_some_and(|p| self.isolation.bars(p, false, now.mono).is_some()) {
                return Some(Reason::CutOff);
            }
            reconciler.refusal(service, revision, now.mono)
        };
        let holds = |service: &ServiceKey, slot| reconciler.holds(service, slot);
        let lacks = |service: &ServiceKey, spec: &ServiceSpec, slot| {
            crate::volumes::lacks(&self.cluster, service, spec, slot, self.me)
        };
        let makes_room = |service: &ServiceKey| reconciler.makes_room_for(service);
        let force = |bidder: &Bidder, service: &ServiceKey, revision: &str, slots| {
            let world = World {
                cluster: &self.cluster,
                desired: &self.desired,
                desired_known: self.desired_known,
                leaving,
                host: &self.host,
                isolation: &self.isolation,
                leases: &self.leases,
                bidder,
                keeper: &self.keeper,
            };
            let found = reconciler.evictions(service, revision, slots, &world)?;
            Ok(found.into_iter().map(|eviction| eviction.score).collect())
        };
        let moves = || reconciler.is_moving();
        let market = Market {
            desired: &self.desired,
            own: &own,
            refuse: &refuse,
            holds: &holds,
            lacks: &lacks,
            makes_room: &makes_room,
            moves: &moves,
            force: &force,
        };
        let result = act(&mut bidder, &market);
        self.bidder = bidder;
        result
    }

    fn with_world<T>(&mut self, act: impl FnOnce(&mut Reconciler, &World<'_>) -> T) -> T {
        let world = World {
            cluster: &self.cluster,
            desired: &self.desired,
            desired_known: self.desired_known,
            leaving: self.leaving,
            host: &self.host,
            isolation: &self.isolation,
            leases: &self.leases,
            bidder: &self.bidder,
            keeper: &self.keeper,
        };
        act(&mut self.reconciler, &world)
    }

    /// Invariant I4.
    fn is_within_capacity(&self) -> bool {
        let committed = self.reconciler.committed();
        committed.fits_in(self.host.capacity) || self.opening.may_exceed(committed)
    }

    /// The claims could not be written: they are to be written again at `at`.
    pub fn persist_again(&mut self, at: u64) {
        self.persist_due.get_or_insert(at);
    }

    /// Slots that this node holds.
    pub fn claim_count(&self) -> usize {
        self.reconciler.claims().count()
    }

    /// What this node has committed, for tests and metrics.
    pub fn committed(&self) -> Resources {
        self.reconciler.committed()
    }
}

/// Milliseconds until a node may write what all nodes see has to be written, when so many rank
/// before it.
fn turn(ahead: usize) -> u64 {
    let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
    ahead.saturating_mul(STEER_TURN_MS).min(STEER_LATEST_MS)
}

fn push_reconciled(effects: Vec<reconcile::Effect>, out: &mut Vec<Output>) {
    out.extend(effects.into_iter().map(|effect| match effect {
        reconcile::Effect::Runtime(command) => Output::Runtime(command),
        reconcile::Effect::Event(event) => Output::Event(event),
    }));
}
