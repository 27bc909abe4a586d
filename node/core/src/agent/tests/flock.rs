//! Several agents on a bus that loses nothing: registers and desired state reach everyone after a
//! fixed time, replicas start and stop at once, and membership says what the test wants.

mod host;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_gossip::membership::{MemberEvent, MemberId, Profile};
use dunlin_state::Now;
use dunlin_state::desired::{Command, Desired, Service};
use dunlin_state::model::{
    Claim, ContentId, Facts, HeldVolume, ItemKey, NodeId, NodeRegister, Resources, ServiceKey,
    ServiceSpec, Version,
};

use crate::agent::{Agent, Output, Start};
use crate::bidding::Message;
use crate::io::{NodeConfig, RuntimeEvent, WorkloadId};
use crate::lease;
use crate::secrets;

/// Milliseconds that anything takes between two nodes.
pub(crate) const LATENCY: u64 = 2;
/// Milliseconds from the order to start until it runs, and from the order to stop until it ended.
pub(crate) const RUNTIME: u64 = 5;

#[derive(Debug)]
enum Delivery {
    Message(NodeId, Message),
    Register(Arc<NodeRegister>),
    Runtime(RuntimeEvent),
    Member(MemberEvent),
    Probed(NodeId, bool),
    Desired(Arc<Desired>),
    Secrets(NodeId, secrets::Message),
    Vote(NodeId, lease::Message),
    Answer(secrets::Answer),
    VolumesWritten,
}

pub(crate) struct Node {
    pub(crate) agent: Option<Agent>,
    config: NodeConfig,
    boot: u64,
    seq: u64,
    saved: Vec<Claim>,
    saved_volumes: Vec<HeldVolume>,
    pub(crate) running: BTreeSet<WorkloadId>,
    revisions: BTreeMap<WorkloadId, String>,
    side: u32,
}

pub(crate) struct Flock {
    pub(crate) now: u64,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) desired: Arc<Desired>,
    queue: BTreeMap<(u64, u64), (NodeId, Delivery)>,
    seq: u64,
    /// Images that no runtime can start.
    pub(crate) broken: BTreeSet<String>,
    /// Nodes on which nothing can be started.
    pub(crate) broken_nodes: BTreeSet<NodeId>,
    pub(crate) calls: usize,
    /// What agents proposed of their own accord.
    pub(crate) proposed: Vec<Command>,
    /// Who has proposed something.
    pub(crate) proposers: BTreeSet<NodeId>,
    /// Who cannot write what nodes propose.
    pub(crate) unheard: BTreeSet<NodeId>,
    /// Every start that did not fail.
    pub(crate) started: Vec<WorkloadId>,
    /// What each was given of the jobs that it waited for.
    pub(crate) environments: BTreeMap<WorkloadId, BTreeMap<String, String>>,
    /// What each node can open, also after a restart.
    pub(crate) vaults: BTreeMap<NodeId, BTreeMap<ItemKey, ContentId>>,
    /// Whom keys were sealed to.
    pub(crate) given: BTreeSet<NodeId>,
    /// Until when runtimes let attempts run that have a lease.
    pub(crate) leased: BTreeMap<(NodeId, WorkloadId), u64>,
    /// Attempts whose files were to be brought up to date.
    pub(crate) refreshed: Vec<(NodeId, WorkloadId)>,
    /// Starts without the secrets that the specification names.
    pub(crate) blind_starts: Vec<String>,
    /// Stops that left a slot without a replica.
    pub(crate) wrong_stops: Vec<String>,
    /// The least number of slots that were served at once, since it was last reset.
    pub(crate) lowest: usize,
}

pub(crate) fn node_id(index: usize) -> NodeId {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&(index as u64).to_be_bytes());
    NodeId::from_bytes(key)
}

pub(crate) fn key(name: &str) -> ServiceKey {
    name.parse().unwrap()
}

pub(crate) fn process_spec() -> ServiceSpec {
    ServiceSpec {
        command: vec!["serve".to_owned()],
        ..ServiceSpec::default()
    }
}

pub(crate) fn service(spec: ServiceSpec, replicas: u32) -> Service {
    Service {
        revision: format!("{:?}", blake3::hash(format!("{spec:?}").as_bytes())),
        spec: Arc::new(spec),
        replicas,
        running: true,
        rollout: Default::default(),
        jobs: Default::default(),
    }
}

impl Flock {
    pub(crate) fn new(count: usize) -> Self {
        Self::with(count, |_| {})
    }

    pub(crate) fn with(count: usize, adjust: impl Fn(&mut NodeConfig)) -> Self {
        let mut flock = Self {
            now: 1_000,
            nodes: BTreeMap::new(),
            desired: Arc::new(Desired::default()),
            queue: BTreeMap::new(),
            seq: 0,
            broken: BTreeSet::new(),
            broken_nodes: BTreeSet::new(),
            calls: 0,
            proposed: Vec::new(),
            proposers: BTreeSet::new(),
            unheard: BTreeSet::new(),
            started: Vec::new(),
            environments: BTreeMap::new(),
            vaults: BTreeMap::new(),
            given: BTreeSet::new(),
            leased: BTreeMap::new(),
            refreshed: Vec::new(),
            blind_starts: Vec::new(),
            wrong_stops: Vec::new(),
            lowest: usize::MAX,
        };
        for index in 0..count {
            let mut config = config(index);
            adjust(&mut config);
            let node = Node {
                agent: None,
                config,
                boot: 0,
                seq: 0,
                saved: Vec::new(),
                saved_volumes: Vec::new(),
                running: BTreeSet::new(),
                revisions: BTreeMap::new(),
                side: 0,
            };
            flock.nodes.insert(node_id(index), node);
        }
        for index in 0..count {
            flock.boot(node_id(index));
        }
        flock.run(20);
        flock
    }

    /// Starts a node's agent and introduces it to those on its side.
    pub(crate) fn boot(&mut self, id: NodeId) {
        let now = self.now();
        let desired = Arc::clone(&self.desired);
        let node = self.nodes.get_mut(&id).unwrap();
        node.boot += 1;
        node.seq = 0;
        node.config.member.boot = node.boot;
        let start = Start {
            claims: node.saved.clone(),
            volumes: node.saved_volumes.clone(),
            desired,
            desired_known: true,
            peers_known: node.boot > 1,
        };
        let (agent, out) = Agent::new(&node.config, start, now);
        node.agent = Some(agent);
        self.perform(id, out);
        self.introduce(id);
    }

    fn introduce(&mut self, id: NodeId) {
        let others: Vec<NodeId> = self.reachable(id);
        for other in others {
            let (a, b) = (self.member(id), self.member(other));
            self.push(1, id, Delivery::Member(MemberEvent::Alive(b)));
            self.push(1, other, Delivery::Member(MemberEvent::Alive(a)));
            for (from, to) in [(id, other), (other, id)] {
                if let Some(register) = self.own_register(from) {
                    self.push(LATENCY, to, Delivery::Register(register));
                }
            }
        }
    }

    fn own_register(&self, id: NodeId) -> Option<Arc<NodeRegister>> {
        let node = &self.nodes[&id];
        let report = node.agent.as_ref()?.report();
        let version = Version {
            boot: node.boot,
            seq: node.seq,
        };
        Some(Arc::new(NodeRegister {
            node: id,
            version,
            report,
        }))
    }

    fn member(&self, id: NodeId) -> MemberId {
        self.nodes[&id].config.member
    }

    fn reachable(&self, id: NodeId) -> Vec<NodeId> {
        let side = self.nodes[&id].side;
        self.nodes
            .iter()
            .filter(|(other, n)| **other != id && n.side == side && n.agent.is_some())
            .map(|(other, _)| *other)
            .collect()
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            mono: self.now,
            wall: 1_700_000_000_000 + self.now,
        }
    }

    fn push(&mut self, delay: u64, to: NodeId, delivery: Delivery) {
        self.seq += 1;
        self.queue
            .insert((self.now + delay, self.seq), (to, delivery));
    }

    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Desired)) {
        let mut desired = Desired::clone(&self.desired);
        edit(&mut desired);
        self.desired = Arc::new(desired);
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let desired = Arc::clone(&self.desired);
            self.push(1, id, Delivery::Desired(desired));
        }
    }

    pub(crate) fn deploy(&mut self, name: &str, spec: ServiceSpec, replicas: u32) {
        self.edit(|d| {
            d.services.insert(key(name), service(spec, replicas));
        });
    }

    /// The daemon and its replicas die; the others find out as they would.
    pub(crate) fn kill(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.agent = None;
        node.running.clear();
        for other in self.reachable(id) {
            let member = self.member(id);
            self.push(500, other, Delivery::Member(MemberEvent::Suspect(member)));
            self.push(1_300, other, Delivery::Member(MemberEvent::Down(member)));
        }
    }

    /// The others suspect a node that lives.
    pub(crate) fn suspect(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().side = 9;
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            if other != id {
                let member = self.member(id);
                self.push(1, other, Delivery::Member(MemberEvent::Suspect(member)));
            }
        }
    }

    /// The daemon dies, its replicas go on.
    pub(crate) fn kill_daemon(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().agent = None;
    }

    pub(crate) fn split(&mut self, side_b: &[NodeId]) {
        self.split_off(side_b, 1);
    }

    /// Puts nodes on a side of their own.
    pub(crate) fn split_off(&mut self, members: &[NodeId], side: u32) {
        for id in members {
            self.nodes.get_mut(id).unwrap().side = side;
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for a in &ids {
            for b in &ids {
                if self.nodes[a].side != self.nodes[b].side {
                    let member = self.member(*b);
                    self.push(500, *a, Delivery::Member(MemberEvent::Suspect(member)));
                    self.push(1_300, *a, Delivery::Member(MemberEvent::Down(member)));
                }
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        for node in self.nodes.values_mut() {
            node.side = 0;
        }
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.introduce(id);
        }
    }

    /// Runs for so many milliseconds.
    pub(crate) fn run(&mut self, duration: u64) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done` or for so many milliseconds. Returns how long it took, if it was done.
    pub(crate) fn run_until(&mut self, limit: u64, done: impl Fn(&Self) -> bool) -> Option<u64> {
        let start = self.now;
        while !done(self) {
            if !self.step(start + limit) {
                return None;
            }
        }
        Some(self.now - start)
    }

    /// Handles the next thing before `end`.
    fn step(&mut self, end: u64) -> bool {
        self.end_leases();
        let delivery = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timer = self
            .nodes
            .iter()
            .filter_map(|(id, n)| Some((n.agent.as_ref()?.poll_timeout()?, *id)))
            .min();
        match (delivery, timer) {
            (Some(at), timer) if timer.is_none_or(|(t, _)| at <= t) && at <= end => {
                self.now = self.now.max(at);
                if let Some((_, (to, delivery))) = self.queue.pop_first() {
                    self.deliver(to, delivery);
                }
                true
            }
            (_, Some((at, id))) if at <= end => {
                self.now = self.now.max(at);
                let now = self.now();
                let agent = self.nodes.get_mut(&id).unwrap().agent.as_mut().unwrap();
                let out = agent.handle_timeout(&|_| None, now);
                self.perform(id, out);
                true
            }
            _ => false,
        }
    }

    /// Runtimes kill what has outlived its lease, whether or not a daemon lives.
    fn end_leases(&mut self) {
        let now = self.now;
        let mut over = Vec::new();
        self.leased.retain(|key, until| {
            if *until <= now {
                over.push(key.clone());
            }
            *until > now
        });
        for (id, workload) in over {
            if self.nodes[&id].running.contains(&workload) {
                self.exit(id, workload, 137);
            }
        }
    }

    fn deliver(&mut self, to: NodeId, delivery: Delivery) {
        let now = self.now();
        if let Delivery::Member(event) = &delivery
            && !self.is_believable(to, *event)
        {
            return;
        }
        let Some(agent) = self.nodes.get_mut(&to).and_then(|n| n.agent.as_mut()) else {
            return;
        };
        let out = match delivery {
            Delivery::Message(from, message) => agent.message(from, message, now),
            Delivery::Register(register) => {
                let known = agent.registers().find(|r| r.node == register.node);
                if known.is_some_and(|k| k.version >= register.version) {
                    return;
                }
                agent.registers_changed([&register], now)
            }
            Delivery::Runtime(event) => agent.runtime(event, now),
            Delivery::Member(event) => agent.member(event, &|_| None, now),
            Delivery::Probed(node, reachable) => agent.probed(node, reachable, &|_| None, now),
            Delivery::Desired(desired) => agent.desired_changed(desired, now),
            Delivery::Secrets(from, message) => agent.secret_message(from, message, now),
            Delivery::VolumesWritten => agent.volumes_written(true, now),
            Delivery::Vote(from, message) => agent.lease_message(from, message, now),
            Delivery::Answer(answer) => agent.secret_answer(answer, now),
        };
        self.perform(to, out);
    }

    /// Membership does not report what has changed again meanwhile.
    fn is_believable(&self, to: NodeId, event: MemberEvent) -> bool {
        let reachable = self.reachable(to);
        match event {
            MemberEvent::Alive(id) => reachable.contains(&id.node),
            MemberEvent::Suspect(id) | MemberEvent::Down(id) | MemberEvent::Left(id) => {
                !reachable.contains(&id.node)
            }
        }
    }

    fn perform(&mut self, id: NodeId, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, message } => {
                    if matches!(message, Message::Call { .. }) {
                        self.calls += 1;
                    }
                    if self.reachable(id).contains(&to) {
                        self.push(LATENCY, to, Delivery::Message(id, message));
                    }
                }
                Output::Probe { node, .. } => {
                    let reachable = self.reachable(id).contains(&node);
                    let delay = if reachable { LATENCY } else { 1_000 };
                    self.push(delay, id, Delivery::Probed(node, reachable));
                }
                Output::Ask { to, message } => {
                    if self.reachable(id).contains(&to) {
                        self.push(LATENCY, to, Delivery::Secrets(id, message));
                    }
                }
                Output::Vote { to, message } => {
                    if self.reachable(id).contains(&to) {
                        self.push(LATENCY, to, Delivery::Vote(id, message));
                    }
                }
                Output::Secret(order) => self.keep_keys(id, order),
                Output::Runtime(command) => self.run_command(id, command),
                Output::Report(_) => {
                    self.nodes.get_mut(&id).unwrap().seq += 1;
                    let register = self.own_register(id);
                    for to in self.reachable(id) {
                        if let Some(register) = &register {
                            self.push(LATENCY, to, Delivery::Register(Arc::clone(register)));
                        }
                    }
                    self.lowest = self.lowest.min(self.served().len());
                }
                Output::Propose(command) => {
                    self.proposers.insert(id);
                    if !self.unheard.contains(&id) {
                        self.write(&command);
                    }
                    self.proposed.push(command);
                }
                Output::PersistVolumes(volumes) => {
                    self.nodes.get_mut(&id).unwrap().saved_volumes = volumes;
                    self.push(LATENCY, id, Delivery::VolumesWritten);
                }
                Output::Persist(claims) => self.nodes.get_mut(&id).unwrap().saved = claims,
                Output::Event(_) | Output::RoutesChanged | Output::Standing { .. } => {}
            }
        }
    }

    /// What a node has proposed becomes desired state.
    fn write(&mut self, command: &Command) {
        let Command::RecordRuns { service, record } = command else {
            return;
        };
        self.edit(|d| {
            if let Some(service) = d.services.get_mut(service) {
                Arc::make_mut(&mut service.jobs).record(record);
            }
        });
    }

    pub(crate) fn agent(&self, index: usize) -> &Agent {
        self.nodes[&node_id(index)].agent.as_ref().unwrap()
    }
}

fn config(index: usize) -> NodeConfig {
    NodeConfig {
        member: MemberId {
            node: node_id(index),
            boot: 1,
            address: ([10, 0, (index / 250) as u8, (index % 250) as u8], 7000).into(),
        },
        name: format!("n{index}"),
        profile: Profile::Local,
        seed: index as u64,
        labels: BTreeMap::new(),
        facts: Facts {
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
            cpus: 4,
            ..Facts::default()
        },
        capacity: Resources {
            cpu_millis: 4_000,
            memory: 8 << 30,
            disk: 100 << 30,
        },
        runtimes: vec!["process".to_owned()],
        dunlin_version: "test".to_owned(),
        vips: Default::default(),
    }
}
