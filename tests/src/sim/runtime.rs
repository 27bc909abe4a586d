//! The virtual runtime of one host: workloads that start slowly, crash, and outlive the daemon.

use std::collections::BTreeMap;

use dunlin_core::io::{Adopted, Running, RuntimeCommand, RuntimeEvent, Workload, WorkloadId};
use dunlin_state::model::{BadOutputs, Endpoint, HostPort, Outputs, Slot, SlotId, VolumeId};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// Images with this beginning do not exist anywhere.
pub const MISSING_IMAGE: &str = "missing/";

/// How the runtimes behave.
#[derive(Debug, Clone, Copy)]
pub struct Temper {
    /// Longest start in microseconds.
    pub start_max: u64,
    /// Share of starts that fetch an image first, for up to five seconds.
    pub pulls: f64,
    /// Share of starts that fail for a passing reason.
    pub fails: f64,
    /// Share of answers that are lost.
    pub lost: f64,
}

impl Temper {
    /// Everything works at once.
    pub const CALM: Self = Self {
        start_max: 60_000,
        pulls: 0.0,
        fails: 0.0,
        lost: 0.0,
    };
    /// Slow, failing, forgetful.
    pub const MOODY: Self = Self {
        start_max: 800_000,
        pulls: 0.3,
        fails: 0.1,
        lost: 0.05,
    };
}

/// How a workload ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With code 0, and something told if it is a part of a job.
    Well,
    /// With code 1.
    Failed,
    /// With code 0, and outputs that make no sense if it is a part of a job.
    Babbling,
}

/// One workload as it truly is.
#[derive(Debug, Clone)]
struct Process {
    revision: String,
    endpoints: Vec<Endpoint>,
    host_ports: Vec<HostPort>,
    /// When its start is answered.
    started_at: u64,
    /// When its port accepts connections.
    answers_at: u64,
    exited: Option<i32>,
    /// What it wrote to its file before it ended by itself.
    told: Result<Outputs, BadOutputs>,
    /// Whether that counts.
    tells: bool,
    /// When its lease ends, if it has one.
    dies_at: Option<u64>,
    /// Whether its specification has a check that would notice.
    checked: bool,
    /// Until when it runs and answers nobody.
    unwell_until: u64,
}

impl Process {
    fn answers(&self, now: u64) -> bool {
        self.exited.is_none() && self.answers_at <= now && self.unwell_until <= now
    }
}

/// The workloads of one host.
#[derive(Debug)]
pub struct Runtime {
    temper: Temper,
    host: usize,
    processes: BTreeMap<WorkloadId, Process>,
    /// The volumes that something was written to, and when the first time.
    volumes: BTreeMap<VolumeId, u64>,
}

impl Runtime {
    /// An empty host.
    pub fn new(host: usize, temper: Temper) -> Self {
        Self {
            temper,
            host,
            processes: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    /// Changes its behaviour.
    pub fn set_temper(&mut self, temper: Temper) {
        self.temper = temper;
    }

    /// Takes a command; answers come after the given delays in microseconds.
    pub fn command(
        &mut self,
        command: RuntimeCommand,
        now: u64,
        rng: &mut ChaCha8Rng,
    ) -> Vec<(u64, RuntimeEvent)> {
        let mut answers = match command {
            RuntimeCommand::Adopt => vec![(2_000, RuntimeEvent::Adopted(self.adopted()))],
            RuntimeCommand::Start(workload) => self.start(*workload, now, rng),
            RuntimeCommand::Stop { id, .. } => self.stop(id, now, rng),
            RuntimeCommand::Refresh { .. } => Vec::new(),
            RuntimeCommand::Extend { id, lease_ms } => {
                if let Some(process) = self.processes.get_mut(&id) {
                    process.dies_at = Some(now + lease_ms * 1_000);
                }
                Vec::new()
            }
            RuntimeCommand::Remove { id } => {
                self.processes.remove(&id);
                Vec::new()
            }
            RuntimeCommand::Probe(order) => {
                let delay = rng.random_range(200..3_000);
                let id = order.id;
                let process = self.processes.get(&id.workload);
                let well = process.is_some_and(|p| p.answers(now + delay));
                // One that is unwell refuses, or lets the probe hang until it is given up.
                let hangs = !well && rng.random_bool(0.5);
                let delay = if hangs {
                    order.timeout_ms * 1_000
                } else {
                    delay
                };
                let result = if well {
                    Ok(())
                } else {
                    Err("refused".to_owned())
                };
                vec![(delay, RuntimeEvent::Probed { id, result })]
            }
        };
        answers.retain(|(_, answer)| {
            let lost = rng.random_bool(self.temper.lost);
            // The list of what runs is a local call: it is late or it is whole.
            !lost || matches!(answer, RuntimeEvent::Adopted(_))
        });
        answers
    }

    /// A workload dies by itself.
    pub fn crash_one(&mut self, rng: &mut ChaCha8Rng) -> Option<RuntimeEvent> {
        let alive: Vec<WorkloadId> = self
            .processes
            .iter()
            .filter(|(_, p)| p.exited.is_none())
            .map(|(i, _)| i.clone())
            .collect();
        if alive.is_empty() {
            return None;
        }
        let id = alive[rng.random_range(0..alive.len())].clone();
        if let Some(process) = self.processes.get_mut(&id) {
            process.exited = Some(1);
        }
        Some(RuntimeEvent::Exited {
            id,
            code: 1,
            oom: false,
            last_words: Vec::new(),
            outputs: Ok(Outputs::default()),
        })
    }

    /// Kills what has outlived its lease, as a supervisor does also when no daemon lives.
    pub fn end_leases(&mut self, now: u64) -> Vec<RuntimeEvent> {
        let over = self.processes.iter_mut().filter(|(_, p)| {
            let due = p.dies_at.is_some_and(|at| at <= now);
            due && p.exited.is_none()
        });
        let events = over.map(|(id, process)| {
            process.exited = Some(137);
            RuntimeEvent::Exited {
                id: id.clone(),
                code: 137,
                oom: false,
                last_words: Vec::new(),
                outputs: Ok(Outputs::default()),
            }
        });
        events.collect()
    }

    /// A workload has done its work; nothing when it has ended before.
    pub fn end(&mut self, id: &WorkloadId, end: End) -> Option<RuntimeEvent> {
        let process = self.processes.get_mut(id).filter(|p| p.exited.is_none())?;
        let code = match end {
            End::Well | End::Babbling => 0,
            End::Failed => 1,
        };
        process.exited = Some(code);
        process.told = match end {
            End::Well if process.tells => Ok(words(id)),
            End::Babbling if process.tells => Outputs::parse(b"no pair"),
            End::Well | End::Failed | End::Babbling => Ok(Outputs::default()),
        };
        Some(RuntimeEvent::Exited {
            id: id.clone(),
            code,
            oom: false,
            last_words: Vec::new(),
            outputs: process.told.clone(),
        })
    }

    /// A workload that is checked stops answering for a while, without ending.
    pub fn sicken_one(&mut self, until: u64, rng: &mut ChaCha8Rng) -> Option<SlotId> {
        let mut checked: Vec<(&WorkloadId, &mut Process)> = self
            .processes
            .iter_mut()
            .filter(|(_, p)| p.exited.is_none() && p.checked)
            .collect();
        if checked.is_empty() {
            return None;
        }
        let index = rng.random_range(0..checked.len());
        let (id, process) = &mut checked[index];
        process.unwell_until = until.max(process.unwell_until);
        Some(id.slot.clone())
    }

    /// Every workload answers again.
    pub fn cure(&mut self) {
        self.processes.values_mut().for_each(|p| p.unwell_until = 0);
    }

    /// Whether this attempt was unwell after that time: its checks may still act on it.
    pub fn was_unwell_since(&self, id: &WorkloadId, since: u64) -> bool {
        self.processes
            .get(id)
            .is_some_and(|p| p.unwell_until > since)
    }

    /// Since when there is data of a volume here. It outlives everything.
    pub fn data_since(&self, volume: &VolumeId) -> Option<u64> {
        self.volumes.get(volume).copied()
    }

    /// The host loses power.
    pub fn power_loss(&mut self) {
        self.processes.clear();
    }

    /// Whether this very attempt has not ended.
    pub fn is_alive(&self, id: &WorkloadId) -> bool {
        self.processes.get(id).is_some_and(|p| p.exited.is_none())
    }

    /// Slots that truly run here.
    pub fn running(&self) -> impl Iterator<Item = &SlotId> {
        self.processes
            .iter()
            .filter(|(_, p)| p.exited.is_none())
            .map(|(id, _)| &id.slot)
    }

    /// Workloads whose processes truly exist.
    pub fn alive(&self, now: u64) -> impl Iterator<Item = &WorkloadId> {
        let alive = self.processes.iter();
        alive
            .filter(move |(_, p)| p.exited.is_none() && p.started_at <= now)
            .map(|(id, _)| id)
    }

    /// Workloads that truly run here and accept connections.
    pub fn answering(&self, now: u64) -> impl Iterator<Item = (&WorkloadId, &str)> {
        self.processes
            .iter()
            .filter(move |(_, p)| p.answers(now))
            .map(|(id, p)| (id, p.revision.as_str()))
    }

    /// Since when a replica of this slot accepts connections here.
    pub fn answering_since(&self, slot: &SlotId, now: u64) -> Option<u64> {
        self.processes
            .iter()
            .filter(|(id, p)| id.slot == *slot && p.answers(now))
            .map(|(_, p)| p.answers_at.max(p.unwell_until))
            .min()
    }

    /// Ports of this host that other workloads than this one use.
    pub fn host_ports(&self, except: &WorkloadId) -> Vec<HostPort> {
        let others = self.processes.iter();
        let others = others.filter(|(id, p)| id.slot != except.slot && p.exited.is_none());
        others.flat_map(|(_, p)| p.host_ports.clone()).collect()
    }

    fn adopted(&self) -> Vec<Adopted> {
        self.processes
            .iter()
            .map(|(id, process)| Adopted {
                running: running(id, process),
                revision: process.revision.clone(),
                exited: process.exited.map(|code| (code, false)),
                outputs: process.told.clone(),
            })
            .collect()
    }

    fn start(
        &mut self,
        workload: Workload,
        now: u64,
        rng: &mut ChaCha8Rng,
    ) -> Vec<(u64, RuntimeEvent)> {
        let id = workload.id;
        if let Some(process) = self.processes.get(&id) {
            // Asked again, because the first answer was lost.
            let answer = match process.exited {
                None => RuntimeEvent::Started(running(&id, process)),
                Some(code) => RuntimeEvent::Exited {
                    id,
                    code,
                    oom: false,
                    last_words: Vec::new(),
                    outputs: process.told.clone(),
                },
            };
            return vec![(1_000, answer)];
        }
        let mut delay = rng.random_range(5_000..=self.temper.start_max);
        let mut answers = Vec::new();
        if rng.random_bool(self.temper.pulls) {
            answers.push((1_000, RuntimeEvent::Preparing(id.clone())));
            delay += rng.random_range(100_000..5_000_000);
        }
        if workload.spec.image.starts_with(MISSING_IMAGE) {
            let reason = format!("no image '{}'", workload.spec.image);
            answers.push((
                delay,
                RuntimeEvent::StartFailed {
                    id,
                    reason,
                    hopeless: true,
                },
            ));
            return answers;
        }
        if rng.random_bool(self.temper.fails) {
            let reason = "the engine is busy".to_owned();
            answers.push((
                delay,
                RuntimeEvent::StartFailed {
                    id,
                    reason,
                    hopeless: false,
                },
            ));
            return answers;
        }
        for volume in workload
            .spec
            .volumes
            .iter()
            .filter_map(|m| m.volume(&id.slot))
        {
            self.volumes.entry(volume).or_insert(now);
        }
        let process = Process {
            revision: workload.revision,
            endpoints: self.endpoints(&workload.spec),
            host_ports: workload.spec.host_ports().collect(),
            started_at: now + delay,
            answers_at: now + delay + rng.random_range(1_000..100_000),
            exited: None,
            told: Ok(Outputs::default()),
            tells: workload.tells,
            dies_at: workload.lease_ms.map(|ms| now + ms * 1_000),
            checked: workload.spec.health.is_some() || workload.spec.readiness.is_some(),
            unwell_until: 0,
        };
        answers.push((delay, RuntimeEvent::Started(running(&id, &process))));
        self.processes.insert(id, process);
        answers
    }

    fn stop(&mut self, id: WorkloadId, now: u64, rng: &mut ChaCha8Rng) -> Vec<(u64, RuntimeEvent)> {
        let delay = rng.random_range(1_000..300_000);
        match self.processes.get_mut(&id) {
            Some(process) => {
                // A runtime does one thing after the other with the same workload.
                let delay = delay + process.started_at.saturating_sub(now);
                let code = *process.exited.get_or_insert(143);
                vec![(
                    delay,
                    RuntimeEvent::Exited {
                        id,
                        code,
                        oom: false,
                        last_words: Vec::new(),
                        outputs: process.told.clone(),
                    },
                )]
            }
            None => vec![(1_000, RuntimeEvent::Lost(id))],
        }
    }

    fn endpoints(&self, spec: &dunlin_state::model::ServiceSpec) -> Vec<Endpoint> {
        let ip = super::node::address(self.host).ip();
        spec.ports
            .iter()
            .map(|port| Endpoint {
                target: port.target,
                protocol: port.protocol,
                address: (ip, port.published.unwrap_or(port.target)).into(),
            })
            .collect()
    }
}

/// What an attempt writes: which one it was, alone and beside others.
pub(super) fn words(id: &WorkloadId) -> Outputs {
    let mut outputs = Outputs::default();
    let attempt = format!("{} {} {}", id.slot, id.epoch, id.attempt);
    let own = match id.slot.slot {
        Slot::Replica(index) => format!("PART_{index}"),
        Slot::Node(_) => "PART".to_owned(),
    };
    for name in [own.as_str(), "LAST"] {
        // Two short lines are always within bounds.
        let _set = outputs.set(name, &attempt);
    }
    outputs
}

fn running(id: &WorkloadId, process: &Process) -> Running {
    Running {
        id: id.clone(),
        workload: format!("{}-{}-{}", id.slot, id.epoch, id.attempt),
        endpoints: process.endpoints.clone(),
        image_health: None,
    }
}
