//! News from the runtimes.

use dunlin_state::Now;
use dunlin_state::model::{
    BadOutputs, ExitReport, MAX_LAST_WORDS, MAX_LAST_WORDS_BYTES, Outputs, Phase, RestartCondition,
    RestartPolicy, SlotId, Trial,
};

use super::held::{Held, Stage, Then};
use super::restart::{CRASH_LOOP_FAILURES, Sequel, delay, sequel};
use super::{Effect, MAX_REFUSALS, REFUSE_MS, Reconciler, Refusal, World};
use crate::io::{Running, RuntimeCommand, RuntimeEvent, WorkloadId};

/// Hopeless starts in a row after which the slot goes to another node: the second try is for a
/// registry or a disk that was just hiccuping.
const HOPELESS_TRIES: u32 = 2;

/// Milliseconds before the second try of a start that the runtime calls hopeless.
const HOPELESS_DELAY_MS: u64 = 500;

/// Milliseconds before the second try of a start that failed.
const START_DELAY_MS: u64 = 1_000;

/// Short runs in a row that are worth an alarm: once may be an accident.
const BRIEF_RUNS: u32 = 2;

/// The end of an attempt.
pub(super) struct End {
    pub(super) exit: ExitReport,
    /// What it has told.
    pub(super) outputs: Result<Outputs, BadOutputs>,
}

impl Reconciler {
    /// Takes news from the runtimes.
    pub(crate) fn runtime(
        &mut self,
        event: RuntimeEvent,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        match event {
            RuntimeEvent::Adopted(found) => self.on_adopted(found, world, now),
            RuntimeEvent::Preparing(id) => self.on_preparing(&id),
            RuntimeEvent::Started(running) => self.on_started(running, world, now),
            RuntimeEvent::StartFailed {
                id,
                reason,
                hopeless,
            } => self.on_start_failed(&id, &reason, hopeless, world, now),
            RuntimeEvent::Exited {
                id,
                code,
                oom,
                last_words,
                outputs,
            } => {
                let exit = ExitReport {
                    code,
                    oom,
                    at: now.wall,
                    last_words: cut_words(last_words),
                };
                self.on_ended(&id, Some(End { exit, outputs }), world, now)
            }
            RuntimeEvent::Lost(id) => self.on_ended(&id, None, world, now),
            RuntimeEvent::Probed { id, result } => self.on_probed(&id, &result, now),
        }
    }

    /// The claim whose present attempt this is.
    pub(super) fn current(&mut self, id: &WorkloadId) -> Option<&mut Held> {
        let held = self.claims.get_mut(&id.slot)?;
        (held.id() == *id).then_some(held)
    }

    fn on_preparing(&mut self, id: &WorkloadId) -> Vec<Effect> {
        if let Some(held) = self.current(id)
            && matches!(held.stage, Stage::Starting { .. })
        {
            held.claim.phase = Phase::Preparing;
            self.changes.report = true;
        }
        Vec::new()
    }

    fn on_started(&mut self, running: Running, world: &World<'_>, now: Now) -> Vec<Effect> {
        let slot = running.id.slot.clone();
        let Some(held) = self.current(&running.id) else {
            // An attempt that was given up meanwhile.
            return vec![stop_stray(running.id)];
        };
        match held.stage {
            Stage::Starting { .. } => {
                held.set_running(running, now.wall, now.mono);
                self.changes.report = true;
                self.use_volumes(&slot, world, now);
                self.run_due(&slot, world, now)
            }
            // The order to stop may have come before there was anything to stop.
            Stage::Stopping { .. } => vec![Effect::Runtime(super::stop_command(held))],
            Stage::Running { .. } | Stage::Draining { .. } => Vec::new(),
            Stage::Recovering | Stage::Parked | Stage::Waiting { .. } | Stage::Ended => {
                vec![stop_stray(running.id)]
            }
        }
    }

    fn on_start_failed(
        &mut self,
        id: &WorkloadId,
        reason: &str,
        hopeless: bool,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        let random = self.random();
        let Some(held) = self.current(id) else {
            return Vec::new();
        };
        match held.stage {
            Stage::Starting { .. } => {}
            Stage::Stopping { .. } => return self.on_ended(id, None, world, now),
            Stage::Recovering
            | Stage::Parked
            | Stage::Waiting { .. }
            | Stage::Running { .. }
            | Stage::Draining { .. }
            | Stage::Ended => return Vec::new(),
        }
        held.set_dead();
        held.say(reason);
        held.failures = held.failures.saturating_add(1);
        held.hopeless = if hopeless { held.hopeless + 1 } else { 0 };
        let given_up = held.hopeless >= HOPELESS_TRIES;
        let retries = held
            .spec
            .as_ref()
            .and_then(|s| s.job.as_ref())
            .map(|j| j.retries);
        if retries.is_some_and(|retries| given_up || held.failures > retries) {
            return self.fail_run(id, reason);
        }
        let mut effects = self.note_failed_start(&id.slot, given_up);
        if given_up && !self.stays_for_rollout(&id.slot, world) {
            effects.extend(self.give_up(&id.slot, reason, now));
            return effects;
        }
        let Some(held) = self.current(id) else {
            return effects;
        };
        let first = if hopeless {
            HOPELESS_DELAY_MS
        } else {
            START_DELAY_MS
        };
        let wait = delay(first, held.failures, random);
        held.wait_for_restart(now.mono.saturating_add(wait));
        let previous = held.residue.replace(id.clone());
        self.changes.report = true;
        self.set_timer(&id.slot);
        let text = format!("{} did not start: {reason}", id.slot);
        effects.push(self.event(&id.slot, true, text));
        effects.extend(previous.map(remove));
        effects
    }

    /// A part of a run could not be started, often enough: that is seen, instead of going round all
    /// nodes.
    fn fail_run(&mut self, id: &WorkloadId, reason: &str) -> Vec<Effect> {
        let Some(held) = self.current(id) else {
            return Vec::new();
        };
        held.say(&format!("did not start: {reason}"));
        held.set_ended(Phase::Failed);
        let previous = held.residue.replace(id.clone());
        self.changes.report = true;
        self.changes.durable = true;
        self.set_timer(&id.slot);
        let text = format!("{} did not start: {reason}", id.slot);
        let mut effects = vec![self.event(&id.slot, true, text)];
        effects.extend(previous.map(remove));
        effects
    }

    /// Lets another node have a slot that cannot be started here.
    fn give_up(&mut self, slot: &SlotId, reason: &str, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get(slot) else {
            return Vec::new();
        };
        let key = (slot.service.clone(), held.claim.revision.clone());
        let last = held.id();
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals.pop_first();
        }
        let until = now.mono.saturating_add(REFUSE_MS);
        let reason = reason.chars().take(300).collect::<String>();
        self.revisits.set(&slot.service, Some(until));
        let text = format!("{slot} cannot start here and goes to another node: {reason}");
        self.refusals.insert(key, Refusal { until, reason });
        let mut effects = vec![self.event(slot, true, text), remove(last)];
        effects.extend(self.release(slot));
        effects
    }

    fn on_ended(
        &mut self,
        id: &WorkloadId,
        end: Option<End>,
        world: &World<'_>,
        now: Now,
    ) -> Vec<Effect> {
        let Some(held) = self.current(id) else {
            return Vec::new();
        };
        match held.stage {
            Stage::Starting { .. } | Stage::Running { .. } => self.on_died(id, end, now),
            Stage::Stopping {
                then: Then::Recover,
                ..
            } => self.on_died(id, end, now),
            Stage::Stopping { then, .. } | Stage::Draining { then, .. } => {
                held.set_dead();
                let exit = end.map(|end| end.exit);
                held.claim.last_exit = exit.or(held.claim.last_exit.take());
                let previous = held.residue.replace(id.clone());
                let mut effects: Vec<Effect> = previous.map(remove).into_iter().collect();
                effects.extend(match then {
                    Then::Release => self.release(&id.slot),
                    Then::Restart | Then::Recover => self.restart_anew(&id.slot, world, now),
                });
                effects
            }
            Stage::Recovering | Stage::Parked | Stage::Waiting { .. } | Stage::Ended => Vec::new(),
        }
    }

    /// The old revision has stopped; start the present one.
    fn restart_anew(&mut self, slot: &SlotId, world: &World<'_>, now: Now) -> Vec<Effect> {
        let Some(held) = self.claims.get_mut(slot) else {
            return Vec::new();
        };
        let service = world.desired.services.get(&slot.service);
        // While it was stopping another revision may have come, which waits for something.
        let bars = |service| world.gate().bars(&slot.service, service, slot.slot);
        if let Some(service) = service.filter(|s| held.spec.is_none() || bars(s).is_none()) {
            held.adopt_spec(service);
        }
        held.attempt = held.attempt.saturating_add(1);
        held.stage = Stage::Waiting { at: now.mono };
        held.claim.phase = Phase::Claimed;
        self.changes.report = true;
        // The wish may have changed while it was stopping.
        let mut effects = self.review_slot(slot, world, now);
        effects.extend(self.run_due(slot, world, now));
        effects
    }

    pub(super) fn on_died(&mut self, id: &WorkloadId, end: Option<End>, now: Now) -> Vec<Effect> {
        let random = self.random();
        let (exit, outputs) = self.take_end(end);
        let Some(held) = self.current(id) else {
            return Vec::new();
        };
        let policy = held.spec.as_ref().map(|s| s.restart.clone());
        let policy = policy.unwrap_or_default();
        let ran = match held.stage {
            Stage::Running { since, .. } => Some(now.mono.saturating_sub(since)),
            Stage::Recovering
            | Stage::Parked
            | Stage::Waiting { .. }
            | Stage::Starting { .. }
            | Stage::Ended
            | Stage::Draining { .. }
            | Stage::Stopping { .. } => None,
        };
        held.forgive(now.mono);
        held.failures = held.failures.saturating_add(1);
        let failures = held.failures;
        let condemned = held.condemned.take();
        held.set_dead();
        let well = condemned.is_none() && exit.as_ref().is_some_and(|e| e.code == 0 && !e.oom);
        let clean = well && outputs.is_ok();
        let how = match (condemned, &outputs) {
            (Some(why), _) => format!("was stopped: {why}"),
            (None, Err(error)) if well => {
                format!("has written outputs that cannot be taken: {error}")
            }
            (None, Ok(_) | Err(_)) => describe_exit(exit.as_ref()),
        };
        held.claim.last_exit = exit;
        held.say(&how);
        let sequel = sequel(&policy, clean, held.failures, random);
        let completed = sequel == Sequel::Complete;
        match sequel {
            Sequel::Restart { delay_ms } => {
                held.wait_for_restart(now.mono.saturating_add(delay_ms));
            }
            Sequel::Complete => {
                held.set_ended(Phase::Completed);
                held.claim.outputs = outputs.unwrap_or_default();
                held.claim.trial = Trial::Proven;
            }
            Sequel::Fail => held.set_ended(Phase::Failed),
        }
        let previous = held.residue.replace(id.clone());
        self.changes.report = true;
        self.changes.durable = true;
        self.set_timer(&id.slot);
        let text = format!("{} {how}", id.slot);
        let mut effects = vec![self.event(&id.slot, !clean, text)];
        if !completed {
            effects.extend(self.fail_trial(&id.slot, "ended"));
        }
        effects.extend(self.alarm(&id.slot, failures, ran, &policy, &how));
        effects.extend(previous.map(remove));
        effects
    }

    /// How it ended, and what it has told, if there is room for that.
    fn take_end(&mut self, end: Option<End>) -> (Option<ExitReport>, Result<Outputs, BadOutputs>) {
        let Some(End { exit, outputs }) = end else {
            return (None, Ok(Outputs::default()));
        };
        let outputs = outputs.and_then(|new| self.make_room(&new).map(|()| new));
        (Some(exit), outputs)
    }

    /// Tells an operator of a replica that fails too often, at the fifth time in a row and at each
    /// doubling, or that runs too briefly, the second time.
    fn alarm(
        &self,
        slot: &SlotId,
        failures: u32,
        ran: Option<u64>,
        policy: &RestartPolicy,
        how: &str,
    ) -> Option<Effect> {
        let text = if failures.is_multiple_of(CRASH_LOOP_FAILURES)
            && (failures / CRASH_LOOP_FAILURES).is_power_of_two()
        {
            format!("alarm: {slot} has failed {failures} times in a row; the last time it {how}")
        } else if failures == BRIEF_RUNS
            && policy.condition == RestartCondition::Any
            && let Some(ran) = ran.filter(|ran| *ran < policy.window_ms)
        {
            let seconds = ran.div_ceil(1_000);
            format!(
                "alarm: {slot} runs too briefly: it {how} within {seconds} s, {failures} times in \
                 a row, and is started again and again"
            )
        } else {
            return None;
        };
        Some(self.event(slot, true, text))
    }
}

impl Held {
    /// The next attempt starts at `at`.
    pub(super) fn wait_for_restart(&mut self, at: u64) {
        self.attempt = self.attempt.saturating_add(1);
        self.stage = Stage::Waiting { at };
        self.claim.phase = if self.failures >= CRASH_LOOP_FAILURES {
            Phase::CrashLoop
        } else {
            Phase::BackOff
        };
    }
}

pub(super) fn remove(id: WorkloadId) -> Effect {
    Effect::Runtime(RuntimeCommand::Remove { id })
}

/// Stops something that no claim stands for.
pub(super) fn stop_stray(id: WorkloadId) -> Effect {
    Effect::Runtime(RuntimeCommand::Stop {
        id,
        signal: None,
        grace_ms: dunlin_state::model::ServiceSpec::DEFAULT_STOP_GRACE_MS,
    })
}

/// The newest of the lines, within what a claim may carry.
fn cut_words(lines: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut room = MAX_LAST_WORDS_BYTES;
    for line in lines.into_iter().rev().take(MAX_LAST_WORDS) {
        let clean = line.chars().filter(|c| !c.is_control());
        let mut text = String::new();
        for c in clean {
            if text.len() + c.len_utf8() > room {
                break;
            }
            text.push(c);
        }
        room -= text.len();
        if !text.is_empty() {
            kept.push(text);
        }
    }
    kept.reverse();
    kept
}

fn describe_exit(exit: Option<&ExitReport>) -> String {
    match exit {
        None => "disappeared".to_owned(),
        Some(exit) if exit.oom => "ran out of memory and was killed (OOM)".to_owned(),
        Some(exit) if exit.code > 128 => {
            format!(
                "was ended by signal {} (exit code {})",
                exit.code - 128,
                exit.code
            )
        }
        Some(exit) => format!("exited with code {}", exit.code),
    }
}
