//! One claim of this node and the state of its replica.

use std::sync::Arc;

use dunlin_state::desired::Service;
use dunlin_state::model::{
    Claim, MAX_HISTORY, Outputs, Phase, PhaseChange, Protocol, Resources, RunId, ServiceSpec,
    SlotId, Trial,
};

use crate::health::{Monitor, Plan};
use crate::io::{Running, WorkloadId};

/// Characters of a claim's message.
const MAX_MESSAGE_CHARS: usize = 300;

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
    /// Since when it is on trial with its revision.
    pub(super) trial_since: Option<u64>,
    /// The round of the rollout that its trial is part of.
    pub(super) round: u32,
    /// Whether it has taken the place of an earlier revision here.
    pub(super) in_place: bool,
    /// Since when its turn in a rollout has been there.
    pub(super) turn_since: Option<u64>,
    /// Since when it has been ready without a break.
    pub(super) ready_since: Option<u64>,
    /// Why it was condemned by a health check.
    pub(super) condemned: Option<String>,
    /// Whether it waits because a secret or config is missing.
    pub(super) waits_for_files: bool,
    /// Whether it waits for the votes that it needs to run.
    pub(super) waits_for_votes: bool,
    /// Whether it waits for a volume.
    pub(super) waits_for_volume: bool,
    /// The revision that has been started, so that what it waited for is known.
    pub(super) given_to: Option<String>,
    /// Until when its first start waits for what it might do without.
    pub(super) outputs_until: Option<u64>,
    /// Whether the run that it is a part of is recorded to have ended.
    pub(super) is_recorded: bool,
    /// Whether it is to take the place of a replica that is moved, and has not served yet.
    pub(super) moving: bool,
    /// Until when it may try that.
    pub(super) move_until: Option<u64>,
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
    Running { since: u64, health: Monitor },
    /// It runs and is offered to nobody any more: connections end until this instant.
    Draining {
        since: u64,
        health: Monitor,
        then: Then,
        until: u64,
    },
    /// It ended for good.
    Ended,
    /// It was asked to stop at this instant.
    Stopping { then: Then, asked: u64 },
}

/// What follows when a stopping replica has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Give the slot up.
    Release,
    /// Start it again by the specification of that moment.
    Restart,
    /// It was unwell: what comes next is the restart policy's.
    Recover,
}

impl Held {
    /// A slot that was just won.
    pub(super) fn new(slot: SlotId, epoch: u64, service: &Service, wall: u64, mono: u64) -> Self {
        let (revision, spec) = service.target(slot.slot);
        Self {
            claim: Claim::won(slot, epoch, revision, spec, wall),
            spec: Some(Arc::clone(spec)),
            stage: Stage::Waiting { at: mono },
            attempt: 0,
            failures: 0,
            hopeless: 0,
            trial_since: None,
            round: 0,
            in_place: false,
            turn_since: None,
            ready_since: None,
            condemned: None,
            waits_for_files: false,
            waits_for_votes: false,
            waits_for_volume: false,
            given_to: None,
            outputs_until: None,
            is_recorded: false,
            residue: None,
            moving: false,
            move_until: None,
        }
    }

    /// A slot held in an earlier life.
    pub(super) fn recovered(mut claim: Claim, spec: Option<Arc<ServiceSpec>>) -> Self {
        let attempt = claim.restarts;
        claim.ready = false;
        claim.endpoints.clear();
        let ended = claim.phase == Phase::Completed || claim.phase == Phase::Failed;
        // Retries of a part of a run are counted across lives of the daemon.
        let failures = match RunId::of_service(&claim.slot.service) {
            Some(_) => attempt,
            None => 0,
        };
        let moving = claim.moved_from.is_some() && claim.phase != Phase::Running;
        let given_to = (claim.phase != Phase::Claimed).then(|| claim.revision.clone());
        Self {
            claim,
            spec,
            stage: if ended {
                Stage::Ended
            } else {
                Stage::Recovering
            },
            attempt,
            failures,
            hopeless: 0,
            trial_since: None,
            round: 0,
            in_place: false,
            turn_since: None,
            ready_since: None,
            condemned: None,
            waits_for_files: false,
            waits_for_votes: false,
            waits_for_volume: false,
            given_to,
            outputs_until: None,
            is_recorded: false,
            residue: None,
            moving,
            move_until: None,
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
            | Stage::Draining { .. }
            | Stage::Stopping { .. } => true,
            Stage::Parked | Stage::Waiting { .. } | Stage::Ended => false,
        }
    }

    /// Whether it runs and nobody has asked it to stop.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Running { .. } | Stage::Draining { .. })
    }

    pub(super) fn say(&mut self, message: &str) {
        self.claim.message = Some(message.chars().take(MAX_MESSAGE_CHARS).collect());
    }

    /// Takes over the specification as it is now; nothing of it runs.
    pub(super) fn adopt_spec(&mut self, service: &Service) {
        let (revision, spec) = service.target(self.claim.slot.slot);
        if self.claim.revision != revision {
            self.in_place = true;
            self.claim.trial = Trial::Pending;
            self.trial_since = None;
            self.round = service.rollout.round;
        }
        self.spec = Some(Arc::clone(spec));
        revision.clone_into(&mut self.claim.revision);
        self.claim.resources = spec.reservation;
        self.claim.host_ports = spec.host_ports().collect();
        self.failures = 0;
        self.hopeless = 0;
        self.claim.outputs = Outputs::default();
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

    /// It runs; whether it is ready has to be found out, unless nobody cares.
    pub(super) fn set_running(&mut self, running: Running, wall: u64, now: u64) {
        let mut endpoints = running.endpoints.iter();
        let has_tcp = endpoints.any(|e| e.protocol == Protocol::Tcp);
        let image = running.image_health.as_ref();
        let plan = Plan::of(self.spec.as_deref(), image, has_tcp);
        let health = Monitor::new(plan, now);
        self.claim.phase = Phase::Running;
        self.claim.ready = health.is_ready();
        self.ready_since = self.claim.ready.then_some(now);
        self.stage = Stage::Running { since: now, health };
        self.claim.endpoints = running.endpoints;
        self.claim.workload = Some(running.workload);
        self.claim.started_at = Some(wall);
        self.claim.message = None;
        self.hopeless = 0;
        self.condemned = None;
    }

    /// Forgets earlier failures of a replica that was ready for long enough. Running alone is not
    /// enough: one that is restarted for its health ran for long, and was never well.
    pub(super) fn forgive(&mut self, now: u64) {
        let policy = self.spec.as_ref().map(|s| s.restart.clone());
        let window = policy.unwrap_or_default().window_ms;
        let since = self.ready_since.take();
        if since.is_some_and(|since| now.saturating_sub(since) >= window) {
            self.failures = 0;
        }
    }

    /// Adds the step to its history, if it has changed since the last one.
    pub(super) fn note_step(&mut self, wall: u64) {
        let (phase, ready) = (self.claim.phase, self.claim.ready);
        let last = self.claim.history.last();
        if phase == Phase::Claimed || last.is_some_and(|l| (l.phase, l.ready) == (phase, ready)) {
            return;
        }
        let ended = match phase {
            Phase::BackOff | Phase::CrashLoop | Phase::Completed | Phase::Failed => true,
            Phase::Claimed
            | Phase::Preparing
            | Phase::Starting
            | Phase::Running
            | Phase::Stopping => false,
        };
        let exit = self.claim.last_exit.as_ref().filter(|_| ended);
        if self.claim.history.len() >= MAX_HISTORY {
            self.claim.history.remove(0);
        }
        self.claim.history.push(PhaseChange {
            at: wall,
            phase,
            ready,
            exit: exit.map(|e| e.code),
            oom: exit.is_some_and(|e| e.oom),
        });
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
