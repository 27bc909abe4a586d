//! Placement by itself, on more nodes than whole daemons can be simulated for.
//!
//! Every node is the very [`Agent`] that the daemon's engine runs: liveness, auctions, bids, the
//! reconciler and rollouts. What brings it the facts is not simulated but stood in for: desired
//! state is one document, whose snapshots reach every node after a while; registers are gathered
//! and spread as slowly as gossip spreads them in a cluster of this size, and none is lost. The
//! scenarios with whole engines look after loss, order, and what gossip and automerge cost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use dunlin_core::agent::{Agent, Output, Start};
use dunlin_core::bidding::Message;
use dunlin_core::io::{RuntimeCommand, RuntimeEvent, Workload, WorkloadId};
use dunlin_gossip::membership::MemberEvent;
use dunlin_state::Now;
use dunlin_state::desired::{Actor, Command, Desired, Document};
use dunlin_state::model::{NodeId, NodeRegister, NodeReport, Resources, SlotId, Version};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::node;
use super::queue::Queue;
use super::report::Outcome;
use super::runtime::{Runtime, Temper};
use super::story::Story;
use super::workload;
use super::world::SECOND;

/// Microseconds between two departures of gathered registers, and what each has to wait at most
/// before the first hop.
const DEPARTURES: u64 = 50_000;

/// Microseconds that gathered registers take to a node: three hops, each of which gathers again.
const SPREADING: std::ops::Range<u64> = 150_000..200_000;

/// Microseconds that desired state takes to a node.
const DEPLOYING: std::ops::Range<u64> = 1_000..100_000;

/// Microseconds that a message takes from node to node.
const HOP: std::ops::Range<u64> = 200..2_000;

/// Milliseconds between two registers of a node, for each node of the cluster and at most.
const SPACING_MS: (u64, u64) = (1, 750);

/// Without an answer from every slot after so long, the run has failed.
const PATIENCE: u64 = 120 * SECOND;

/// What is watched after every slot has answered: nothing may move any more.
const QUIET: u64 = 10 * SECOND;

/// What can happen next.
#[derive(Debug)]
enum Next {
    Message {
        to: usize,
        from: NodeId,
        message: Message,
    },
    Runtime {
        to: usize,
        event: RuntimeEvent,
    },
    Timer {
        to: usize,
        due: u64,
    },
    Publish {
        from: usize,
    },
    Depart,
    Registers {
        to: usize,
        batch: Arc<[Arc<NodeRegister>]>,
    },
    Snapshot {
        to: usize,
        number: usize,
        desired: Arc<Desired>,
    },
    Deploy(Vec<Command>),
}

/// One node.
struct Member {
    id: NodeId,
    agent: Agent,
    runtime: Runtime,
    capacity: Resources,
    /// What truly runs or is started, and what it reserves.
    workloads: BTreeMap<WorkloadId, Resources>,
    timer: Option<u64>,
    report: Option<Box<NodeReport>>,
    version: Version,
    published: u64,
    /// The newest snapshot of desired state that arrived.
    snapshot: usize,
}

/// All nodes, and what is under way between them.
struct Herd {
    now: u64,
    rng: ChaCha8Rng,
    members: Vec<Member>,
    by_id: BTreeMap<NodeId, usize>,
    document: Document,
    snapshots: usize,
    queue: Queue<Next>,
    gathered: Vec<Arc<NodeRegister>>,
    /// Slots that are started or run, and where.
    held: BTreeMap<SlotId, BTreeSet<usize>>,
    outcome: Outcome,
    story: Story,
}

/// Has so many services of `replicas` deployed, a file of `stack` at a time within a second.
pub(super) fn run(
    nodes: usize,
    services: usize,
    replicas: u32,
    stack: usize,
    seed: u64,
) -> Outcome {
    let mut herd = Herd::new(nodes, seed);
    herd.introduce();
    herd.run_until(herd.now + 5 * SECOND);
    for first in (0..services).step_by(stack) {
        let numbers = first..services.min(first + stack);
        let commands = numbers.map(|n| workload::deployment(n, replicas)).collect();
        let at = herd.now + herd.rng.random_range(0..SECOND);
        herd.queue.push(at, Next::Deploy(commands));
    }
    let wanted = services * replicas as usize;
    let (began, start) = (Instant::now(), herd.now);
    while herd.answering() < wanted && herd.now < start + PATIENCE {
        herd.run_until(herd.now + SECOND / 20);
    }
    herd.outcome.placing_s = began.elapsed().as_secs_f64();
    herd.note(&format!(
        "{} of {wanted} slots answer on {nodes} nodes after {:.2} s",
        herd.answering(),
        (herd.now - start) as f64 / SECOND as f64
    ));
    let awarded = herd.outcome.awards;
    herd.run_until(herd.now + QUIET);
    herd.judge(wanted, awarded);
    herd.finish()
}

impl Herd {
    fn new(nodes: usize, seed: u64) -> Self {
        let mut herd = Self {
            now: SECOND,
            rng: ChaCha8Rng::seed_from_u64(seed),
            members: Vec::with_capacity(nodes),
            by_id: BTreeMap::new(),
            document: Document::new(Actor::new(node::identity(0, seed), 1)),
            snapshots: 0,
            queue: Queue::new(),
            gathered: Vec::new(),
            held: BTreeMap::new(),
            outcome: Outcome::default(),
            story: Story::default(),
        };
        let mut first = Vec::new();
        for index in 0..nodes {
            let id = node::identity(index, seed);
            let config = node::config(index, id, 1, seed ^ index as u64);
            let start = Start {
                desired_known: true,
                ..Start::default()
            };
            let (agent, out) = Agent::new(&config, start, now(herd.now));
            herd.members.push(Member {
                id,
                agent,
                runtime: Runtime::new(index, Temper::CALM),
                capacity: config.capacity,
                workloads: BTreeMap::new(),
                timer: None,
                report: None,
                version: Version { boot: 1, seq: 0 },
                published: 0,
                snapshot: 0,
            });
            herd.by_id.insert(id, index);
            first.push(out);
        }
        for (index, out) in first.into_iter().enumerate() {
            herd.perform(index, out);
        }
        herd.queue.push(herd.now, Next::Depart);
        herd
    }

    /// Membership tells every node of every other.
    fn introduce(&mut self) {
        let ids: Vec<_> = self.members.iter().map(|m| m.id).collect();
        for index in 0..self.members.len() {
            for (other, node) in ids.iter().enumerate().filter(|(other, _)| *other != index) {
                let event = MemberEvent::Alive(node::member(other, *node, 1));
                let now = now(self.now);
                let out = self.members[index].agent.member(event, &|_| None, now);
                self.perform(index, out);
            }
        }
    }

    fn run_until(&mut self, until: u64) {
        while self.queue.next_due().is_some_and(|due| due <= until) {
            let Some((at, next)) = self.queue.pop() else {
                break;
            };
            self.now = self.now.max(at);
            self.happen(next);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, next: Next) {
        let now = now(self.now);
        match next {
            Next::Message { to, from, message } => {
                let out = self.members[to].agent.message(from, message, now);
                self.perform(to, out);
            }
            Next::Runtime { to, event } => {
                let out = self.members[to].agent.runtime(event, now);
                self.perform(to, out);
            }
            Next::Timer { to, due } => {
                if self.members[to].timer == Some(due) {
                    self.members[to].timer = None;
                    let out = self.members[to].agent.handle_timeout(&|_| None, now);
                    self.perform(to, out);
                }
            }
            Next::Publish { from } => self.publish(from),
            Next::Depart => self.depart(),
            Next::Registers { to, batch } => {
                let out = self.members[to].agent.registers_changed(batch.iter(), now);
                self.perform(to, out);
            }
            Next::Snapshot {
                to,
                number,
                desired,
            } => {
                if self.members[to].snapshot < number {
                    self.members[to].snapshot = number;
                    let out = self.members[to].agent.desired_changed(desired, now);
                    self.perform(to, out);
                }
            }
            Next::Deploy(commands) => self.deploy(&commands),
        }
    }

    fn deploy(&mut self, commands: &[Command]) {
        if let Err(error) = self.document.propose(commands, "sim", now(self.now)) {
            self.violation(format!("a deploy is refused: {error}"));
        }
        self.snapshots += 1;
        let number = self.snapshots;
        for to in 0..self.members.len() {
            let desired = self.document.snapshot();
            let at = self.now + self.rng.random_range(DEPLOYING);
            let snapshot = Next::Snapshot {
                to,
                number,
                desired,
            };
            self.queue.push(at, snapshot);
        }
    }

    fn publish(&mut self, from: usize) {
        let member = &mut self.members[from];
        if let Some(report) = member.report.take() {
            member.version.seq += 1;
            member.published = self.now;
            self.gathered.push(Arc::new(NodeRegister {
                node: member.id,
                version: member.version,
                report: *report,
            }));
        }
    }

    /// All that was published since the last departure goes to everybody.
    fn depart(&mut self) {
        self.queue.push(self.now + DEPARTURES, Next::Depart);
        let batch: Arc<[_]> = std::mem::take(&mut self.gathered).into();
        if batch.is_empty() {
            return;
        }
        for to in 0..self.members.len() {
            let batch = Arc::clone(&batch);
            let at = self.now + self.rng.random_range(SPREADING);
            self.queue.push(at, Next::Registers { to, batch });
        }
    }

    fn perform(&mut self, index: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, message } => {
                    if let Some(to) = self.by_id.get(&to).copied() {
                        let from = self.members[index].id;
                        let at = self.now + self.rng.random_range(HOP);
                        self.queue.push(at, Next::Message { to, from, message });
                    }
                }
                Output::Report(report) => self.report(index, report),
                Output::Runtime(command) => self.runtime(index, command),
                Output::Event(event) => self.note(&format!("n{index} says: {}", event.text)),
                Output::Probe { .. } => {
                    self.violation(format!("n{index} doubts a node although none is silent"));
                }
                Output::Propose(command) => {
                    self.violation(format!("n{index} wants a change by itself: {command:?}"));
                }
                // No service has secrets or volumes, no node restarts, and nobody routes.
                Output::Ask { .. }
                | Output::Vote { .. }
                | Output::Secret(_)
                | Output::Persist(_)
                | Output::PersistVolumes(_)
                | Output::RoutesChanged
                | Output::Standing { .. } => {}
            }
        }
        self.rearm(index);
    }

    fn report(&mut self, index: usize, report: Box<NodeReport>) {
        let (per_node, most) = SPACING_MS;
        let spacing = (self.members.len() as u64 * per_node).min(most) * 1_000;
        let member = &mut self.members[index];
        if member.report.replace(report).is_none() {
            let at = (self.now + 1_000).max(member.published + spacing);
            self.queue.push(at, Next::Publish { from: index });
        }
    }

    fn rearm(&mut self, index: usize) {
        let member = &mut self.members[index];
        let Some(due) = member.agent.poll_timeout() else {
            return;
        };
        let due = due.saturating_mul(1_000).max(self.now + 1_000);
        if member.timer.is_none_or(|old| due < old) {
            member.timer = Some(due);
            self.queue.push(due, Next::Timer { to: index, due });
        }
    }

    fn runtime(&mut self, index: usize, command: RuntimeCommand) {
        match &command {
            RuntimeCommand::Start(workload) => self.started(index, workload),
            RuntimeCommand::Stop { id, .. } => {
                self.note(&format!("n{index} stops {} epoch {}", id.slot, id.epoch));
                self.members[index].workloads.remove(id);
                if let Some(holders) = self.held.get_mut(&id.slot) {
                    holders.remove(&index);
                }
            }
            RuntimeCommand::Adopt
            | RuntimeCommand::Remove { .. }
            | RuntimeCommand::Probe(_)
            | RuntimeCommand::Refresh { .. }
            | RuntimeCommand::Extend { .. } => {}
        }
        let runtime = &mut self.members[index].runtime;
        for (after, event) in runtime.command(command, self.now, &mut self.rng) {
            let next = Next::Runtime { to: index, event };
            self.queue.push(self.now + after, next);
        }
    }

    /// Nothing is lost here and nobody dies, so every slot is started once, where there is room.
    fn started(&mut self, index: usize, workload: &Workload) {
        let id = &workload.id;
        self.note(&format!("n{index} starts {} epoch {}", id.slot, id.epoch));
        self.outcome.awards += 1;
        let member = &mut self.members[index];
        let reservation = workload.spec.reservation;
        member.workloads.insert(id.clone(), reservation);
        let used = member.workloads.values();
        let used = used.fold(Resources::ZERO, |sum, reserved| sum.plus(*reserved));
        let fits = used.fits_in(member.capacity);
        let holders = self.held.entry(id.slot.clone()).or_default();
        holders.insert(index);
        let holders = holders.len();
        if !fits {
            self.violation(format!("n{index} starts {}: it does not fit", id.slot));
        }
        if holders > 1 {
            self.violation(format!("{} runs on {holders} nodes", id.slot));
        }
    }

    /// Slots that answer somewhere.
    fn answering(&self) -> usize {
        let runtimes = self.members.iter().map(|m| &m.runtime);
        runtimes.map(|r| r.answering(self.now).count()).sum()
    }

    /// After some quiet: nothing was started in vain, and every node says what is.
    fn judge(&mut self, wanted: usize, awarded: u64) {
        let answering = self.answering();
        if answering != wanted {
            self.violation(format!("{answering} of {wanted} slots answer"));
        }
        if self.outcome.awards != awarded {
            let more = self.outcome.awards - awarded;
            self.violation(format!("{more} slots were started when all answered"));
        }
        let mut wrong = Vec::new();
        for (index, member) in self.members.iter().enumerate() {
            let ready = member.agent.report().claims;
            let ready = ready.iter().filter(|c| c.ready).count();
            let runs = member.runtime.answering(self.now).count();
            if ready != runs {
                wrong.push(format!(
                    "n{index} reports {ready} ready slots and runs {runs}"
                ));
            }
        }
        wrong.into_iter().for_each(|w| self.violation(w));
    }

    fn note(&mut self, line: &str) {
        self.story.note(self.now, line);
    }

    fn violation(&mut self, what: String) {
        self.story.violation(self.now, what, &mut self.outcome);
    }

    fn finish(self) -> Outcome {
        self.story.end(self.now, self.outcome)
    }
}

fn now(micros: u64) -> Now {
    node::clock(micros, 0)
}
