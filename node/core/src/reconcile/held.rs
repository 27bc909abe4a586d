//! One claim of this node and the state of its replica.

use std::sync::Arc;

use dunlin_state::desired::Service;
use dunlin_state::model::{Claim, Phase, Protocol, Resources, ServiceSpec, SlotId};

use crate::io::{Running, WorkloadId};

/// Characters of a claim's message.
const MAX_MESSAGE_CHARS: usize = 300;

/// Milliseconds before the second readiness check: a process that binds its port at once is ready
/// in that time.
const FIRST_CHECK_DELAY_MS: u64 = 50;

/// Milliseconds between readiness checks at most.
const MAX_CHECK_DELAY_MS: u64 = 1_000;

/// Milliseconds after which a lost answer to a check is not waited for any more; the shell promises
/// one within a second.
pub(super) const CHECK_TIMEOUT_MS: u64 = 2_000;

/// A claim and what the node knows beyond what it reports.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) claim: Claim,
    /// The specification of the claim's revision; unknown after a restart that found a replica of
    /// an older one.
    pub(super) spec: Option<Arc<ServiceSpec>>,
    pub(super) stage: Stage,
    pub(super) attempt: u32,
    /// Ends and failed starts in a row.
    pub(super) failures: u32,
    /// Failed starts in a row that the runtime calls hopeless.
    pub(super) hopeless: u32,
    /// What the last dead attempt left behind, kept so that its log can be read.
    pub(super) residue: Option<WorkloadId>,
}

/// Where the replica is, more precisely than its reported [`Phase`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// From an earlier life; the runtime has not said yet what still runs.
    Recovering,
    /// From an earlier life, not running; the others have not been heard yet.
    Parked,
    /// To be started at this instant.
    Waiting { at: u64 },
    /// The runtime was asked to start it at this instant.
    Starting { asked: u64 },
    /// It runs since this instant.
    Running { since: u64, check: Check },
    /// It ended for good.
    Ended,
    /// It was asked to stop at this instant.
    Stopping { then: Then, asked: u64 },
}

/// Readiness of a running replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// It is ready.
    Passed,
    /// Ask at this instant.
    Due { at: u64, delay: u64 },
    /// Asked at this instant.
    Sent { at: u64, delay: u64 },
}

/// What follows when a stopping replica has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Give the slot up.
    Release,
    /// Start it again by the specification of that moment.
    Restart,
}

impl Check {
    pub(super) fn first(now: u64) -> Self {
        Self::Due {
            at: now,
            delay: FIRST_CHECK_DELAY_MS,
        }
    }

    pub(super) fn again(delay: u64, now: u64) -> Self {
        Self::Due {
            at: now.saturating_add(delay),
            delay: (delay + delay / 2).min(MAX_CHECK_DELAY_MS),
        }
    }
}

impl Held {
    /// A slot that was just won.
    pub(super) fn new(slot: SlotId, epoch: u64, service: &Service, wall: u64, mono: u64) -> Self {
        let spec = &service.spec;
        Self {
            claim: Claim {
                slot,
                epoch,
                revision: service.revision.clone(),
                phase: Phase::Claimed,
                ready: false,
                leaving: false,
                since: wall,
                resources: spec.reservation,
                host_ports: spec.host_ports().collect(),
                endpoints: Vec::new(),
                restarts: 0,
                last_exit: None,
                message: None,
                workload: None,
                started_at: None,
            },
            spec: Some(Arc::clone(spec)),
            stage: Stage::Waiting { at: mono },
            attempt: 0,
            failures: 0,
            hopeless: 0,
            residue: None,
        }
    }

    /// A slot held in an earlier life.
    pub(super) fn recovered(mut claim: Claim, spec: Option<Arc<ServiceSpec>>) -> Self {
        let attempt = claim.restarts;
        claim.ready = false;
        claim.endpoints.clear();
        let ended = claim.phase == Phase::Completed || claim.phase == Phase::Failed;
        Self {
            claim,
            spec,
            stage: if ended {
                Stage::Ended
            } else {
                Stage::Recovering
            },
            attempt,
            failures: 0,
            hopeless: 0,
            residue: None,
        }
    }

    /// The present attempt.
    pub(super) fn id(&self) -> WorkloadId {
        WorkloadId {
            slot: self.claim.slot.clone(),
            epoch: self.claim.epoch,
            attempt: self.attempt,
        }
    }

    /// Whether it gets traffic.
    pub(super) fn serves(&self) -> bool {
        self.claim.phase == Phase::Running && self.claim.ready
    }

    /// Whether a process or container of it may exist.
    pub(super) fn may_run(&self) -> bool {
        match self.stage {
            Stage::Recovering
            | Stage::Starting { .. }
            | Stage::Running { .. }
            | Stage::Stopping { .. } => true,
            Stage::Parked | Stage::Waiting { .. } | Stage::Ended => false,
        }
    }

    pub(super) fn say(&mut self, message: &str) {
        self.claim.message = Some(message.chars().take(MAX_MESSAGE_CHARS).collect());
    }

    /// Takes over the specification as it is now; nothing of it runs.
    pub(super) fn adopt_spec(&mut self, service: &Service) {
        self.spec = Some(Arc::clone(&service.spec));
        self.claim.revision.clone_from(&service.revision);
        self.claim.resources = service.spec.reservation;
        self.claim.host_ports = service.spec.host_ports().collect();
        self.failures = 0;
        self.hopeless = 0;
    }

    /// Reserves for the next specification what it needs beyond the present one: the switch takes
    /// a moment in which nobody else may take it.
    pub(super) fn reserve_also(&mut self, spec: &ServiceSpec) {
        let (mine, next) = (self.claim.resources, spec.reservation);
        self.claim.resources = Resources {
            cpu_millis: mine.cpu_millis.max(next.cpu_millis),
            memory: mine.memory.max(next.memory),
            disk: mine.disk.max(next.disk),
        };
        for port in spec.host_ports() {
            if !self.claim.host_ports.contains(&port) {
                self.claim.host_ports.push(port);
            }
        }
    }

    /// It runs; whether it is ready has to be found out, if it has a TCP port.
    pub(super) fn set_running(&mut self, running: Running, wall: u64, now: u64) {
        let has_tcp = running
            .endpoints
            .iter()
            .any(|e| e.protocol == Protocol::Tcp);
        let check = if has_tcp {
            Check::first(now)
        } else {
            Check::Passed
        };
        self.stage = Stage::Running { since: now, check };
        self.claim.phase = Phase::Running;
        self.claim.ready = !has_tcp;
        self.claim.endpoints = running.endpoints;
        self.claim.workload = Some(running.workload);
        self.claim.started_at = Some(wall);
        self.claim.message = None;
        self.hopeless = 0;
    }

    /// It does not run any more.
    pub(super) fn set_dead(&mut self) {
        self.claim.ready = false;
        self.claim.endpoints.clear();
        self.claim.workload = None;
        self.claim.started_at = None;
    }

    /// It ended for good and takes nothing from the node.
    pub(super) fn set_ended(&mut self, phase: Phase) {
        self.stage = Stage::Ended;
        self.claim.phase = phase;
        self.claim.resources = Resources::ZERO;
        self.claim.host_ports.clear();
    }
}
