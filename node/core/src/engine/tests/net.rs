//! Whole engines on a network that delivers everything between nodes that can reach each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_gossip::membership::{MemberId, Profile};
use dunlin_gossip::replication::ProposalId;
use dunlin_state::Now;
use dunlin_state::desired::{Command, Rejection};
use dunlin_state::model::{
    Facts, NodeId, Phase, Resources, RuntimeKind, ServiceKey, ServiceSpec, Slot,
};

use dunlin_state::observed::{Seal, SharedSecret};

use crate::engine::Engine;
use crate::io::{
    Adopted, Effect, Input, NodeConfig, Recovered, Running, RuntimeCommand, RuntimeEvent,
    WorkloadId, Write,
};

const LATENCY: u64 = 2;
const DISK: u64 = 3;
const RUNTIME: u64 = 5;

pub(super) struct Host {
    pub(super) engine: Option<Engine>,
    pub(super) boot: u64,
    pub(super) side: u32,
    pub(super) running: BTreeMap<WorkloadId, String>,
    pub(super) connected: BTreeSet<NodeId>,
    pub(super) document: Option<(Bytes, Vec<Bytes>)>,
    pub(super) recovered: Recovered,
    pub(super) holders: BTreeMap<NodeId, Bytes>,
    pub(super) answers: Vec<Result<bool, Rejection>>,
}

pub(super) struct Net {
    pub(super) now: u64,
    pub(super) hosts: BTreeMap<NodeId, Host>,
    pub(super) queue: BTreeMap<(u64, u64), (NodeId, Input)>,
    pub(super) seq: u64,
    pub(super) events: Vec<String>,
    pub(super) log: blake3::Hasher,
}

pub(super) fn seal(id: NodeId) -> Arc<dyn Seal> {
    Arc::new(SharedSecret::new(id, [7; 32]))
}

pub(super) fn node_id(index: u8) -> NodeId {
    NodeId::from_bytes([index + 1; 32])
}

pub(super) fn address(index: u8) -> SocketAddr {
    ([10, 0, 0, index + 1], 7_000).into()
}

fn index_of(node: NodeId) -> u8 {
    node.as_bytes()[0] - 1
}

pub(super) fn key() -> ServiceKey {
    "web".parse().unwrap()
}

pub(super) fn deploy(replicas: u32, version: &str) -> Command {
    let spec = ServiceSpec {
        runtime: RuntimeKind::Process,
        command: vec!["serve".to_owned(), version.to_owned()],
        ..ServiceSpec::default()
    };
    Command::Deploy {
        service: key(),
        spec: Box::new(spec),
        replicas: Some(replicas),
    }
}

impl Net {
    pub(super) fn new(count: u8) -> Self {
        let mut net = Self {
            now: 1_000,
            hosts: BTreeMap::new(),
            queue: BTreeMap::new(),
            seq: 0,
            events: Vec::new(),
            log: blake3::Hasher::new(),
        };
        for index in 0..count {
            let host = Host {
                engine: None,
                boot: 0,
                side: 0,
                running: BTreeMap::new(),
                connected: BTreeSet::new(),
                document: None,
                recovered: Recovered::default(),
                holders: BTreeMap::new(),
                answers: Vec::new(),
            };
            net.hosts.insert(node_id(index), host);
            net.boot(index);
            if index > 0 {
                net.input(node_id(index), Input::Join(address(0)));
            }
        }
        let all = usize::from(count) - 1;
        let joined = |net: &Self| {
            let mut engines = net.engines();
            engines.all(|e| e.members().len() == all && e.observed().count() == all + 1)
        };
        net.run_until(10_000, joined)
            .expect("the nodes find each other");
        net
    }

    pub(super) fn time(&self) -> Now {
        Now {
            mono: self.now,
            wall: 1_700_000_000_000 + self.now,
        }
    }

    pub(super) fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.hosts.values().filter_map(|h| h.engine.as_ref())
    }

    pub(super) fn host(&mut self, index: u8) -> &mut Host {
        self.hosts.get_mut(&node_id(index)).unwrap()
    }

    pub(super) fn boot(&mut self, index: u8) {
        let now = self.time();
        let host = self.host(index);
        host.boot += 1;
        let config = NodeConfig {
            member: MemberId {
                node: node_id(index),
                boot: host.boot,
                address: address(index),
            },
            name: format!("n{index}"),
            profile: Profile::Lan,
            seed: u64::from(index) * 1_000 + host.boot,
            labels: BTreeMap::new(),
            facts: Facts {
                os: "linux".to_owned(),
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
        };
        host.recovered.document.clone_from(&host.document);
        let recovered = host.recovered.clone();
        let (engine, effects) = Engine::new(config, seal(node_id(index)), recovered, now).unwrap();
        self.host(index).engine = Some(engine);
        self.perform(node_id(index), effects);
    }

    /// The host loses power.
    pub(super) fn kill(&mut self, index: u8) {
        let host = self.host(index);
        host.engine = None;
        host.running.clear();
        self.cut(node_id(index));
    }

    fn cut(&mut self, node: NodeId) {
        let peers = std::mem::take(&mut self.hosts.get_mut(&node).unwrap().connected);
        for peer in peers {
            self.hosts.get_mut(&peer).unwrap().connected.remove(&node);
            // A dead host closes nothing; the peer's transport notices the silence.
            self.push(1_500, peer, Input::Disconnected(node));
        }
    }

    pub(super) fn split(&mut self, side_b: &[u8]) {
        for index in side_b {
            self.host(*index).side = 1;
        }
        let pairs: Vec<(NodeId, NodeId)> = self
            .hosts
            .iter()
            .flat_map(|(id, host)| host.connected.iter().map(|peer| (*id, *peer)))
            .filter(|(a, b)| self.hosts[a].side != self.hosts[b].side)
            .collect();
        for (a, b) in pairs {
            self.hosts.get_mut(&a).unwrap().connected.remove(&b);
            self.push(1_500, a, Input::Disconnected(b));
        }
    }

    pub(super) fn heal(&mut self) {
        for host in self.hosts.values_mut() {
            host.side = 0;
        }
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let (Some(a), Some(b)) = (self.hosts.get(&from), self.hosts.get(&to)) else {
            return false;
        };
        a.side == b.side && a.engine.is_some() && b.engine.is_some()
    }

    fn push(&mut self, delay: u64, to: NodeId, input: Input) {
        self.seq += 1;
        let at = (self.now + delay, self.seq);
        self.queue.insert(at, (to, input));
    }

    pub(super) fn propose(&mut self, index: u8, command: Command) {
        let input = Input::Propose {
            id: ProposalId(self.seq),
            commands: vec![command],
            author: "test".to_owned(),
        };
        self.input(node_id(index), input);
    }

    pub(super) fn input(&mut self, to: NodeId, input: Input) {
        let now = self.time();
        let Some(engine) = self.hosts.get_mut(&to).and_then(|h| h.engine.as_mut()) else {
            return;
        };
        self.log
            .update(format!("{now:?} {to} {input:?}").as_bytes());
        let effects = engine.handle(input, now);
        self.perform(to, effects);
    }

    pub(super) fn run(&mut self, duration: u64) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    pub(super) fn run_until(&mut self, limit: u64, done: impl Fn(&Self) -> bool) -> Option<u64> {
        let start = self.now;
        while !done(self) {
            if !self.step(start + limit) {
                return None;
            }
        }
        Some(self.now - start)
    }

    fn step(&mut self, end: u64) -> bool {
        let delivery = self.queue.first_key_value().map(|((at, _), _)| *at);
        let timers = self.hosts.iter().filter_map(|(id, host)| {
            let due = host.engine.as_ref()?.poll_timeout()?;
            Some((due, *id))
        });
        let timer = timers.min();
        match (delivery, timer) {
            (Some(at), timer) if at <= end && timer.is_none_or(|(t, _)| at <= t) => {
                self.now = self.now.max(at);
                if let Some((_, (to, input))) = self.queue.pop_first() {
                    self.input(to, input);
                }
                true
            }
            (_, Some((at, id))) if at <= end => {
                self.now = self.now.max(at);
                self.input(id, Input::Timeout);
                true
            }
            _ => false,
        }
    }

    fn perform(&mut self, id: NodeId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::SendDatagram { to, bytes } => {
                    let SocketAddr::V4(v4) = to else { continue };
                    let to = node_id(v4.ip().octets()[3] - 1);
                    if self.reaches(id, to) {
                        let from = address(index_of(id));
                        self.push(LATENCY, to, Input::Datagram { from, bytes });
                    }
                }
                Effect::SendMessage { to, message, .. } => {
                    let bytes = crate::wire::encode(&message).unwrap();
                    self.connect(id, to);
                    if self.hosts[&id].connected.contains(&to) {
                        self.push(LATENCY, to, Input::Message { from: id, bytes });
                    }
                }
                Effect::Connect { node, .. } => self.connect(id, node),
                Effect::Disconnect(node) => {
                    if self.hosts.get_mut(&id).unwrap().connected.remove(&node) {
                        self.hosts.get_mut(&node).unwrap().connected.remove(&id);
                        self.push(0, id, Input::Disconnected(node));
                        self.push(LATENCY, node, Input::Disconnected(id));
                    }
                }
                Effect::Probe { node, .. } => {
                    let reachable = self.reaches(id, node);
                    let delay = if reachable { LATENCY * 2 } else { 1_000 };
                    self.push(delay, id, Input::ProbeDone { node, reachable });
                }
                Effect::Persist {
                    id: request,
                    writes,
                } => {
                    self.write(id, writes);
                    self.push(DISK, id, Input::Persisted(request));
                }
                Effect::Proposed { result, .. } => {
                    self.hosts.get_mut(&id).unwrap().answers.push(result);
                }
                Effect::Runtime(command) => self.run_command(id, command),
                // No test here has a secret.
                Effect::Changed(_) | Effect::Secret(_) => {}
                Effect::Event(event) => self.events.push(event.text),
            }
        }
    }

    fn connect(&mut self, a: NodeId, b: NodeId) {
        if self.reaches(a, b) && self.hosts.get_mut(&a).unwrap().connected.insert(b) {
            self.hosts.get_mut(&b).unwrap().connected.insert(a);
            self.push(LATENCY, a, Input::Connected(b));
            self.push(LATENCY, b, Input::Connected(a));
        }
    }

    fn write(&mut self, id: NodeId, writes: Vec<Write>) {
        let host = self.hosts.get_mut(&id).unwrap();
        for write in writes {
            match write {
                Write::Document(saved) => host.document = Some((saved, Vec::new())),
                Write::Change(change) => host.document.as_mut().unwrap().1.push(change),
                Write::Claims(claims) => host.recovered.claims = claims,
                Write::Peers(peers) => host.recovered.peers = peers,
                Write::Volumes(volumes) => host.recovered.volumes = volumes,
                Write::Holder(node, bytes) => {
                    host.holders.insert(node, bytes);
                    let kept = host.holders.values().filter(|bytes| !bytes.is_empty());
                    host.recovered.holders = kept.cloned().collect();
                }
            }
        }
    }

    fn run_command(&mut self, id: NodeId, command: RuntimeCommand) {
        let host = self.hosts.get_mut(&id).unwrap();
        let event = match command {
            RuntimeCommand::Adopt => {
                let found = host.running.iter().map(|(workload, revision)| Adopted {
                    running: running(workload),
                    revision: revision.clone(),
                    exited: None,
                    outputs: Ok(dunlin_state::model::Outputs::default()),
                });
                RuntimeEvent::Adopted(found.collect())
            }
            RuntimeCommand::Start(workload) => {
                host.running.insert(workload.id.clone(), workload.revision);
                RuntimeEvent::Started(running(&workload.id))
            }
            RuntimeCommand::Stop { id: workload, .. } => {
                host.running.remove(&workload);
                RuntimeEvent::Lost(workload)
            }
            RuntimeCommand::Remove { .. }
            | RuntimeCommand::Refresh { .. }
            | RuntimeCommand::Extend { .. } => return,
            RuntimeCommand::Probe(order) => RuntimeEvent::Probed {
                id: order.id,
                result: Ok(()),
            },
        };
        self.push(RUNTIME, id, Input::Runtime(event));
    }

    /// Whether every living node sees each slot of the service ready exactly once.
    pub(super) fn is_settled(&self) -> bool {
        let mut engines = self.engines();
        engines.all(|engine| {
            let Some(service) = engine.desired().services.get(&key()) else {
                return false;
            };
            let claims = engine
                .observed()
                .filter(|r| engine.standing(r.node).holds_claims())
                .flat_map(|r| &r.report.claims);
            let claims: Vec<_> = claims.collect();
            let ready: BTreeSet<Slot> = claims
                .iter()
                .filter(|c| c.ready && c.phase == Phase::Running && !c.leaving)
                .filter(|c| c.revision == service.revision)
                .map(|c| c.slot.slot)
                .collect();
            let wanted = service.wanted_replicas() as usize;
            claims.len() == wanted
                && ready.len() == wanted
                && engine.route_table().services[&key()].backends.len() == wanted
        })
    }

    pub(super) fn running_count(&self) -> usize {
        self.hosts.values().map(|h| h.running.len()).sum()
    }
}

fn running(id: &WorkloadId) -> Running {
    Running {
        id: id.clone(),
        workload: "w".to_owned(),
        endpoints: Vec::new(),
        image_health: None,
    }
}
