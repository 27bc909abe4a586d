//! The world: hosts, links, time, and what happens next.

mod ends;
mod lies;
mod wires;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;
use dunlin_core::io::{Changed, Effect, Input, RuntimeCommand, RuntimeEvent, WorkloadId};
use dunlin_gossip::replication::{PersistId, ProposalId};
use dunlin_state::desired::Command;
use dunlin_state::model::{NodeId, NodeRegister};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

use super::check;
use super::faults::{self, Fault};
use super::load::Loads;
use super::network::{Network, Weather};
use super::node::{Host, address};
use super::queue::Queue;
use super::report::Outcome;
use super::runtime::{End, Temper};
use super::story::{MAX_VIOLATIONS, Story};
use super::workload::{Op, Ops};
use wires::{Packet, pair};

/// One second, in the unit of the world's clock.
pub const SECOND: u64 = 1_000_000;
/// A connection over a dead link is given up after so long: QUIC's idle timeout in the daemon.
const IDLE_TIMEOUT: u64 = 10 * SECOND;
/// The daemon answers a probe within a second, one way or the other.
const PROBE_TIMEOUT: u64 = SECOND;
/// In larger clusters it is looked at intervals who believes whom down, not at every change.
const LOOK_AT_ONCE: usize = 64;

/// What can happen next.
#[derive(Debug)]
enum Next {
    Datagram {
        to: usize,
        from: SocketAddr,
        bytes: Bytes,
    },
    Message {
        to: usize,
        life: u64,
        from: NodeId,
        packet: Packet,
    },
    Linked {
        a: usize,
        b: usize,
    },
    LinkLost {
        at: usize,
        life: u64,
        peer: usize,
    },
    Synced {
        host: usize,
        life: u64,
        id: PersistId,
    },
    Runtime {
        host: usize,
        life: u64,
        event: RuntimeEvent,
    },
    Probed {
        host: usize,
        life: u64,
        node: NodeId,
        reachable: bool,
    },
    Timer {
        host: usize,
        life: u64,
        due: u64,
    },
    /// A workload that does its work and ends.
    Ends {
        host: usize,
        id: WorkloadId,
        end: End,
    },
    Plan(Fault),
    Op(Op),
}

/// A simulated cluster.
pub struct World {
    /// Virtual time in microseconds.
    pub now: u64,
    /// All hosts.
    pub hosts: Vec<Host>,
    /// The network between them.
    pub network: Network,
    /// What people have asked for.
    pub(super) ops: Ops,
    /// What people do to services that follow their load.
    pub(super) loads: Loads,
    /// What was measured so far.
    pub outcome: Outcome,
    pub(super) rng: ChaCha8Rng,
    pub(super) watch: check::Watch,
    /// Of how many messages one is encoded and decoded as in the daemon; the others are handed
    /// over as they are, which gives the same run and takes a tenth of the time.
    pub(super) encode_every: u64,
    sent: u64,
    seed: u64,
    queue: Queue<Next>,
    by_id: BTreeMap<NodeId, usize>,
    /// Live connections with the host that dialed, smaller index first.
    links: BTreeMap<(usize, usize), usize>,
    /// Who believes to be connected with whom.
    connected: BTreeSet<(usize, usize)>,
    /// Whose views of the members have changed since that was looked at.
    members_changed: BTreeSet<usize>,
    pub(super) liar: lies::Liar,
    story: Story,
}

impl World {
    /// Hosts with no daemon on them yet.
    pub fn new(nodes: usize, seed: u64, weather: Weather, temper: Temper) -> Self {
        let hosts: Vec<Host> = (0..nodes).map(|i| Host::new(i, seed, temper)).collect();
        let by_id = hosts.iter().map(|h| (h.id, h.index)).collect();
        Self {
            now: 0,
            hosts,
            network: Network::new(weather),
            ops: Ops::default(),
            loads: Loads::default(),
            outcome: Outcome::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            watch: check::Watch::default(),
            encode_every: 1,
            sent: 0,
            seed,
            queue: Queue::new(),
            by_id,
            links: BTreeMap::new(),
            connected: BTreeSet::new(),
            members_changed: BTreeSet::new(),
            liar: lies::Liar::default(),
            story: Story::default(),
        }
    }

    /// Schedules a fault.
    pub(super) fn plan(&mut self, at: u64, fault: Fault) {
        self.queue.push(at, Next::Plan(fault));
    }

    /// Schedules what a person does.
    pub(super) fn plan_op(&mut self, at: u64, op: Op) {
        self.queue.push(at, Next::Op(op));
    }

    /// Lets time pass until `until`.
    pub fn run_until(&mut self, until: u64) {
        while self.queue.next_due().is_some_and(|due| due <= until) {
            let Some((at, next)) = self.queue.pop() else {
                break;
            };
            self.now = self.now.max(at);
            self.happen(next);
            if self.outcome.violations.len() >= MAX_VIOLATIONS {
                return;
            }
        }
        self.now = self.now.max(until);
        for host in std::mem::take(&mut self.members_changed) {
            check::false_downs(self, host);
        }
    }

    /// Starts a daemon, and has it join through another host.
    pub fn start(&mut self, host: usize, through: Option<usize>) {
        let seed = self.seed;
        match self.hosts[host].start(self.now, seed) {
            Ok(effects) => {
                self.note(format!("n{host} starts, life {}", self.hosts[host].life));
                self.perform(host, effects, None);
                if let Some(through) = through {
                    self.tell(host, Input::Join(address(through)));
                }
                self.rearm(host);
            }
            Err(error) => self.violation(format!("n{host} does not start: {error}")),
        }
    }

    /// Ends a daemon at once. Its workloads go on.
    pub fn kill(&mut self, host: usize) {
        if self.hosts[host].engine.take().is_none() {
            return;
        }
        self.note(format!("n{host} is killed"));
        let pending = self.hosts[host].disk.pending();
        let kept = self.rng.random_range(0..=pending);
        self.hosts[host].disk.crash(kept);
        self.hosts[host].stalled_until = 0;
        let peers: Vec<usize> = (0..self.hosts.len())
            .filter(|p| self.links.contains_key(&pair(host, *p)))
            .collect();
        for peer in peers {
            self.links.remove(&pair(host, peer));
            let after = self.rng.random_range(0..IDLE_TIMEOUT);
            self.lose_link(peer, host, after);
        }
        self.connected.retain(|(at, _)| *at != host);
    }

    /// The host loses power: daemon and workloads are gone.
    pub fn power_off(&mut self, host: usize) {
        self.kill(host);
        self.hosts[host].runtime.power_loss();
        self.note(format!("n{host} loses power"));
    }

    /// Connections over links that are cut now will be noticed.
    pub(super) fn links_changed(&mut self) {
        let dead: Vec<(usize, usize)> = self
            .links
            .keys()
            .copied()
            .filter(|(a, b)| !self.network.connects(*a, *b))
            .collect();
        for (a, b) in dead {
            self.links.remove(&(a, b));
            self.lose_link(a, b, IDLE_TIMEOUT);
            self.lose_link(b, a, IDLE_TIMEOUT);
        }
    }

    /// Tells a host something now, outside of the queue.
    pub(super) fn tell(&mut self, host: usize, input: Input) {
        let micros = self.now;
        let target = &mut self.hosts[host];
        let now = target.now(micros);
        let id = target.id;
        let Some(engine) = target.engine.as_mut() else {
            return;
        };
        let before = engine.register(id).cloned();
        let effects = engine.handle(input, now);
        self.perform(host, effects, before);
    }

    /// A person asks a node for a change.
    pub(super) fn propose(&mut self, host: usize, id: u64, commands: Vec<Command>) {
        let input = Input::Propose {
            id: ProposalId(id),
            commands,
            author: "sim".to_owned(),
        };
        self.tell(host, input);
        self.rearm(host);
    }

    /// Remembers a line for the story of a violation, and for the digest.
    pub(super) fn note(&mut self, line: String) {
        self.story.note(self.now, &line);
    }

    /// Records that a rule was broken.
    pub(super) fn violation(&mut self, what: String) {
        self.story.violation(self.now, what, &mut self.outcome);
    }

    /// The host with this identity.
    pub fn host_of(&self, node: NodeId) -> Option<usize> {
        self.by_id.get(&node).copied()
    }

    /// Slots that answer somewhere.
    pub(super) fn answering(&self) -> usize {
        let hosts = self.hosts.iter().filter(|h| h.is_up());
        hosts.map(|h| h.runtime.answering(self.now).count()).sum()
    }

    /// Ends the run.
    pub(super) fn finish(self) -> Outcome {
        self.story.end(self.now, self.outcome)
    }

    fn happen(&mut self, next: Next) {
        if let Some(until) = self.frozen(&next) {
            // What reaches a frozen process waits in the kernel's buffers.
            self.queue.push(until, next);
            return;
        }
        match next {
            Next::Datagram { to, from, bytes } => self.deliver(to, Input::Datagram { from, bytes }),
            Next::Message {
                to,
                life,
                from,
                packet,
            } => {
                if self.hosts[to].life == life {
                    self.deliver(to, packet.into_input(from));
                }
            }
            Next::Linked { a, b } => self.linked(a, b),
            Next::LinkLost { at, life, peer } => self.link_lost(at, life, peer),
            Next::Synced { host, life, id } => self.synced(host, life, id),
            Next::Runtime { host, life, event } => {
                if self.hosts[host].life == life {
                    self.note(format!("n{host} {}", describe(&event)));
                    self.deliver(host, Input::Runtime(event));
                }
            }
            Next::Probed {
                host,
                life,
                node,
                reachable,
            } => {
                if self.hosts[host].life == life {
                    self.deliver(host, Input::ProbeDone { node, reachable });
                }
            }
            Next::Timer { host, life, due } => {
                if self.hosts[host].life == life && self.hosts[host].timer == Some(due) {
                    self.hosts[host].timer = None;
                    self.deliver(host, Input::Timeout);
                }
            }
            Next::Ends { host, id, end } => self.workload_ends(host, id, end),
            Next::Plan(fault) => faults::strike(self, fault),
            Next::Op(op) => super::workload::act(self, op),
        }
    }

    /// Until when the host that this is for is frozen.
    fn frozen(&self, next: &Next) -> Option<u64> {
        let host = match next {
            Next::Datagram { to, .. } | Next::Message { to, .. } => *to,
            Next::LinkLost { at, .. } => *at,
            Next::Synced { host, .. }
            | Next::Runtime { host, .. }
            | Next::Probed { host, .. }
            | Next::Ends { host, .. }
            | Next::Timer { host, .. } => *host,
            Next::Linked { .. } | Next::Plan(_) | Next::Op(_) => return None,
        };
        let until = self.hosts[host].stalled_until;
        (self.hosts[host].is_up() && until > self.now).then_some(until)
    }

    pub(super) fn deliver(&mut self, host: usize, input: Input) {
        self.tell(host, input);
        self.rearm(host);
    }

    fn rearm(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(due) = h.engine.as_ref().and_then(|e| e.poll_timeout()) else {
            return;
        };
        // A real timer fires no earlier than the next millisecond.
        let at = due.saturating_mul(1_000).max(self.now + 1_000);
        if h.timer.is_none_or(|old| at < old) {
            h.timer = Some(at);
            let life = h.life;
            self.queue.push(
                at,
                Next::Timer {
                    host,
                    life,
                    due: at,
                },
            );
        }
    }

    fn perform(&mut self, host: usize, effects: Vec<Effect>, before: Option<Arc<NodeRegister>>) {
        check::withdrawals(self, host, before.as_ref());
        check::scales(self, host);
        for effect in effects {
            match effect {
                Effect::SendDatagram { to, bytes } => self.send_datagram(host, to, &bytes),
                Effect::SendMessage { to, message, .. } => self.send_message(host, to, message),
                Effect::Connect { node, .. } => {
                    if let Some(peer) = self.host_of(node) {
                        self.dial(host, peer);
                    }
                }
                Effect::Disconnect(node) => self.hang_up(host, node),
                Effect::Probe { node, .. } => self.probe(host, node),
                Effect::Persist { id, writes } => {
                    self.hosts[host].disk.submit(id, writes);
                    let after = self.rng.random_range(500..8_000);
                    let life = self.hosts[host].life;
                    self.queue
                        .push(self.now + after, Next::Synced { host, life, id });
                }
                Effect::Proposed { id, result } => {
                    super::workload::answered(self, host, id.0, result);
                }
                Effect::Runtime(command) => self.runtime(host, command, before.as_ref()),
                // Nothing here has secrets: the tests of the agent look after them.
                Effect::Secret(_) => {}
                Effect::Changed(changed) => self.changed(host, changed),
                Effect::Event(event) => {
                    if event.text.contains(check::PORT_CLASH) {
                        self.watch
                            .clashes_told
                            .insert((host, self.hosts[host].life));
                    }
                    self.note(format!("n{host} says: {}", event.text));
                }
            }
        }
    }

    fn changed(&mut self, host: usize, changed: Changed) {
        if changed.desired {
            super::workload::spread(self, host);
        }
        if changed.observed {
            check::capacity(self, host);
        }
        if changed.members && self.hosts.len() <= LOOK_AT_ONCE {
            check::false_downs(self, host);
        } else if changed.members {
            self.members_changed.insert(host);
        }
    }

    fn runtime(
        &mut self,
        host: usize,
        command: RuntimeCommand,
        before: Option<&Arc<NodeRegister>>,
    ) {
        match &command {
            RuntimeCommand::Start(workload) => {
                self.note(format!(
                    "n{host} starts {} epoch {}",
                    workload.id.slot, workload.id.epoch
                ));
                if workload.id.attempt == 0 {
                    self.outcome.awards += 1;
                }
                check::move_is_worth_it(self, host, &workload.id);
                check::start_is_needed(self, host, &workload.id);
                check::no_restart_storm(self, host, &workload.id);
                check::start_is_allowed(self, host, workload);
                check::start_is_in_order(self, host, workload);
                check::start_has_its_data(self, host, workload);
                check::start_is_no_repetition(self, host, &workload.id);
                check::start_has_its_outputs(self, host, workload);
                check::start_is_in_turn(self, host, workload);
                if workload.spec.job.is_some() {
                    self.plan_end(host, workload.id.clone());
                }
            }
            RuntimeCommand::Stop { id, .. } => {
                self.note(format!("n{host} stops {} epoch {}", id.slot, id.epoch));
                check::stop_is_justified(self, host, id, before);
            }
            RuntimeCommand::Remove { id } => check::removal_is_harmless(self, host, id),
            RuntimeCommand::Adopt
            | RuntimeCommand::Probe(_)
            | RuntimeCommand::Refresh { .. }
            | RuntimeCommand::Extend { .. } => {}
        }
        let life = self.hosts[host].life;
        let answers = self.hosts[host]
            .runtime
            .command(command, self.now, &mut self.rng);
        for (after, event) in answers {
            self.queue
                .push(self.now + after, Next::Runtime { host, life, event });
        }
    }
}

fn describe(event: &RuntimeEvent) -> String {
    match event {
        RuntimeEvent::Adopted(found) => format!("finds {} workloads", found.len()),
        RuntimeEvent::Preparing(id) => format!("prepares {}", id.slot),
        RuntimeEvent::Started(running) => {
            format!("runs {} #{}", running.id.slot, running.id.attempt)
        }
        RuntimeEvent::StartFailed { id, reason, .. } => {
            format!("cannot start {}: {reason}", id.slot)
        }
        RuntimeEvent::Exited { id, code, .. } => {
            format!("{} #{} exits {code}", id.slot, id.attempt)
        }
        RuntimeEvent::Lost(id) => format!("{} is lost", id.slot),
        RuntimeEvent::Probed { id, result } => {
            format!("{} is well: {}", id.workload.slot, result.is_ok())
        }
    }
}
