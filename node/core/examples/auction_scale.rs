//! How many replicas a second can a large cluster place? Runs many agents on a bus with a fixed
//! latency and no losses, and prints awards per second of CPU time (one thread, Linux).
//!
//! `cargo run --release -p dunlin-core --example auction_scale -- 1000 1000 10`
//! (nodes, services, replicas of each); `… -- packing 50` fills as many random clusters instead
//! ([`packing`]).

mod packing;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use dunlin_core::agent::{Agent, Output, Start};
use dunlin_core::bidding::Message;
use dunlin_core::io::{NodeConfig, Running, RuntimeCommand, RuntimeEvent};
use dunlin_gossip::membership::{MemberEvent, MemberId, Profile};
use dunlin_state::Now;
use dunlin_state::desired::{Desired, Service};
use dunlin_state::model::{
    Facts, NodeId, NodeRegister, NodeReport, Resources, ServiceSpec, Version,
};

/// Milliseconds between any two nodes.
const LATENCY: u64 = 2;
/// Milliseconds for which a node collects changes before it publishes its register, as
/// replication does.
const PUBLISH: u64 = 50;
/// Milliseconds from the order to start until it runs.
const START: u64 = 20;

enum Delivery {
    Message(usize, Message),
    Registers(Arc<Vec<Arc<NodeRegister>>>),
    Runtime(RuntimeEvent),
    Timeout,
}

struct Bus {
    now: u64,
    agents: Vec<Agent>,
    reports: BTreeMap<usize, NodeReport>,
    versions: Vec<u64>,
    timers: Vec<Option<u64>>,
    queue: BinaryHeap<std::cmp::Reverse<(u64, u64, usize)>>,
    payload: BTreeMap<u64, Delivery>,
    seq: u64,
    messages: u64,
    registers: u64,
    index: BTreeMap<NodeId, usize>,
}

fn main() {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("packing") {
        let instances = words.next().and_then(|count| count.parse().ok());
        return packing::run(instances.unwrap_or(50));
    }
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let nodes: usize = args.next().unwrap_or(1_000);
    let services: usize = args.next().unwrap_or(1_000);
    let replicas: u32 = args.next().and_then(|r| r.try_into().ok()).unwrap_or(10);
    let wanted = services * replicas as usize;

    let mut bus = Bus::new(nodes);
    let joined = cpu_seconds();
    bus.introduce();
    bus.run_until(2_000, |_| false);
    println!(
        "{nodes} nodes joined in {:.1} s of CPU",
        cpu_seconds() - joined
    );

    bus.messages = 0;
    bus.registers = 0;
    let start = cpu_seconds();
    let from = bus.now;
    bus.deploy(services, replicas);
    let done = bus.run_until(120_000, |bus| bus.placed() >= wanted);
    let cpu = cpu_seconds() - start;
    let placed = bus.placed();
    let distinct: BTreeSet<_> = bus
        .agents
        .iter()
        .flat_map(|a| a.report().claims)
        .map(|c| c.slot)
        .collect();
    println!(
        "{placed} of {wanted} placed (all: {done}), {} distinct slots, after {} simulated ms and \
         {cpu:.2} s of CPU: {:.0} awards/s; {} messages, {} registers taken in",
        distinct.len(),
        bus.now - from,
        placed as f64 / cpu,
        bus.messages,
        bus.registers,
    );
    // Every claim reaches every node, running and ready.
    bus.run_until(500, |_| false);
    let cpu = cpu_seconds() - start;
    println!(
        "known to all after {cpu:.2} s of CPU: {:.0} awards/s; {} registers taken in, {} \
         replicas twice",
        placed as f64 / cpu,
        bus.registers,
        bus.placed() - placed,
    );
}

/// CPU time of this process, counted in hundredths of a second (see proc(5), `utime`, `stime`).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = times.filter_map(|t| t.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn node_id(index: usize) -> NodeId {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(index as u64 ^ 0x5555_5555).to_le_bytes());
    NodeId::from_bytes(key)
}

fn config(index: usize) -> NodeConfig {
    NodeConfig {
        member: member(index),
        name: format!("n{index}"),
        profile: Profile::Lan,
        seed: index as u64,
        labels: BTreeMap::new(),
        facts: Facts {
            cpus: 8,
            ..Facts::default()
        },
        capacity: Resources {
            cpu_millis: 8_000,
            memory: 16 << 30,
            disk: 100 << 30,
        },
        runtimes: vec!["process".to_owned()],
        dunlin_version: String::new(),
        vips: Default::default(),
    }
}

fn member(index: usize) -> MemberId {
    let [_, _, high, low] = (index as u32).to_be_bytes();
    MemberId {
        node: node_id(index),
        boot: 1,
        address: ([10, 0, high, low], 7_000).into(),
    }
}

impl Bus {
    fn new(nodes: usize) -> Self {
        Self::with(nodes, config)
    }

    fn with(nodes: usize, config: impl Fn(usize) -> NodeConfig) -> Self {
        let mut bus = Self {
            now: 1_000,
            agents: Vec::new(),
            reports: BTreeMap::new(),
            versions: vec![0; nodes],
            timers: vec![None; nodes],
            queue: BinaryHeap::new(),
            payload: BTreeMap::new(),
            seq: 0,
            messages: 0,
            registers: 0,
            index: (0..nodes).map(|i| (node_id(i), i)).collect(),
        };
        for index in 0..nodes {
            let start = Start {
                desired_known: true,
                ..Start::default()
            };
            let (agent, out) = Agent::new(&config(index), start, bus.time());
            bus.agents.push(agent);
            bus.perform(index, out);
        }
        bus
    }

    fn time(&self) -> Now {
        Now {
            mono: self.now,
            wall: self.now,
        }
    }

    fn introduce(&mut self) {
        let now = self.time();
        for index in 0..self.agents.len() {
            for other in 0..self.agents.len() {
                if other != index {
                    let event = MemberEvent::Alive(member(other));
                    let out = self.agents[index].member(event, &|_| None, now);
                    self.perform(index, out);
                }
            }
        }
    }

    fn deploy(&mut self, services: usize, replicas: u32) {
        let mut desired = Desired::default();
        for index in 0..services {
            let spec = ServiceSpec {
                command: vec!["serve".to_owned()],
                reservation: Resources {
                    cpu_millis: 100,
                    memory: 64 << 20,
                    disk: 0,
                },
                ..ServiceSpec::default()
            };
            let name = format!("service-{index}").parse();
            let Ok(name) = name else { continue };
            let service = Service {
                spec: Arc::new(spec),
                revision: format!("revision-{index}"),
                replicas,
                running: true,
                rollout: Default::default(),
                jobs: Default::default(),
            };
            desired.services.insert(name, service);
        }
        self.want(desired);
    }

    fn want(&mut self, desired: Desired) {
        let desired = Arc::new(desired);
        let now = self.time();
        for index in 0..self.agents.len() {
            let out = self.agents[index].desired_changed(Arc::clone(&desired), now);
            self.perform(index, out);
        }
    }

    fn placed(&self) -> usize {
        self.agents.iter().map(Agent::claim_count).sum()
    }

    fn push(&mut self, delay: u64, to: usize, delivery: Delivery) {
        self.seq += 1;
        self.queue
            .push(std::cmp::Reverse((self.now + delay, self.seq, to)));
        self.payload.insert(self.seq, delivery);
    }

    fn run_until(&mut self, limit: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut next_publish = self.now + PUBLISH;
        loop {
            let next = self.queue.peek().map(|std::cmp::Reverse((at, ..))| *at);
            if next.is_none_or(|at| at > next_publish) {
                self.now = next_publish;
                next_publish += PUBLISH;
                self.publish();
                if done(self) {
                    return true;
                }
                if self.now > end {
                    return false;
                }
                continue;
            }
            let Some(std::cmp::Reverse((at, seq, to))) = self.queue.pop() else {
                return false;
            };
            self.now = at;
            if let Some(delivery) = self.payload.remove(&seq) {
                self.deliver(to, delivery);
            }
        }
    }

    /// Brings what has been reported since the last time to everyone.
    fn publish(&mut self) {
        let reports = std::mem::take(&mut self.reports);
        let batch: Vec<Arc<NodeRegister>> = reports
            .into_iter()
            .map(|(index, report)| {
                self.versions[index] += 1;
                Arc::new(NodeRegister {
                    node: node_id(index),
                    version: Version {
                        boot: 1,
                        seq: self.versions[index],
                    },
                    report,
                })
            })
            .collect();
        if batch.is_empty() {
            return;
        }
        let batch = Arc::new(batch);
        for to in 0..self.agents.len() {
            self.push(LATENCY, to, Delivery::Registers(Arc::clone(&batch)));
        }
    }

    fn deliver(&mut self, to: usize, delivery: Delivery) {
        let now = self.time();
        let agent = &mut self.agents[to];
        let out = match delivery {
            Delivery::Message(from, message) => {
                self.messages += 1;
                agent.message(node_id(from), message, now)
            }
            Delivery::Registers(batch) => {
                self.registers += batch.len() as u64;
                agent.registers_changed(batch.iter(), now)
            }
            Delivery::Runtime(event) => agent.runtime(event, now),
            Delivery::Timeout => {
                self.timers[to] = None;
                agent.handle_timeout(&|_| None, now)
            }
        };
        self.perform(to, out);
    }

    fn perform(&mut self, index: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, message } => {
                    let to = self.index[&to];
                    self.push(LATENCY, to, Delivery::Message(index, message));
                }
                Output::Report(report) => {
                    self.reports.insert(index, *report);
                }
                Output::Runtime(command) => self.run_command(index, command),
                Output::Probe { .. }
                | Output::Ask { .. }
                | Output::Vote { .. }
                | Output::Secret(_)
                | Output::Event(_)
                | Output::Persist(_)
                | Output::PersistVolumes(_)
                | Output::Propose(_)
                | Output::RoutesChanged
                | Output::Standing { .. } => {}
            }
        }
        let due = self.agents[index].poll_timeout().map(|at| at.max(self.now));
        if let Some(due) = due
            && self.timers[index].is_none_or(|known| due < known)
        {
            self.timers[index] = Some(due);
            self.push(due - self.now, index, Delivery::Timeout);
        }
    }

    fn run_command(&mut self, index: usize, command: RuntimeCommand) {
        let event = match command {
            RuntimeCommand::Adopt => RuntimeEvent::Adopted(Vec::new()),
            RuntimeCommand::Start(workload) => RuntimeEvent::Started(Running {
                id: workload.id,
                workload: String::new(),
                endpoints: Vec::new(),
                image_health: None,
            }),
            RuntimeCommand::Stop { id, .. } => RuntimeEvent::Exited {
                id,
                code: 0,
                oom: false,
                last_words: Vec::new(),
                outputs: Ok(dunlin_state::model::Outputs::default()),
            },
            RuntimeCommand::Remove { .. }
            | RuntimeCommand::Refresh { .. }
            | RuntimeCommand::Extend { .. } => return,
            RuntimeCommand::Probe(order) => RuntimeEvent::Probed {
                id: order.id,
                result: Ok(()),
            },
        };
        self.push(START, index, Delivery::Runtime(event));
    }
}
