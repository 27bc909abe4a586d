//! What is written of the runs of jobs: what people asked for, and how runs have ended.
//!
//! `job/<namespace>/<name>/<run>` is a person's wish regarding one run: that it be, or that it be
//! cancelled. `svc/<namespace>/<name>/jobs` is what nodes have recorded of all runs of the job. That
//! has to outlive the registers of the nodes that ran them, or a run would begin again when its node
//! is gone. It is written by nodes whose operators may write there, never by one in particular.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::value::Value;
use crate::model::{BadOutputs, Outputs, RunId, ServiceKey};

/// Runs of one job that are recorded at a time; the oldest that have ended give way.
pub const MAX_RUNS: usize = 48;

/// Runs of one job that people may ask for, or have cancelled, at a time.
pub const MAX_ASKS: usize = 64;

/// Characters of the reason of an end.
const MAX_REASON: usize = 200;

/// Everything that desired state says of the runs of one job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Jobs {
    /// When its specification was written, in milliseconds since the Unix epoch, by the clock of
    /// the node that took it: earlier instants of its schedule are no concern of it.
    pub since: u64,
    /// The last instant of its schedule, in the same unit, that a run was recorded for.
    pub until: u64,
    /// What is recorded of its runs.
    pub runs: BTreeMap<RunId, RunState>,
    /// What the last run that has succeeded has told. It stays when that run is forgotten, or the
    /// job is deployed anew, until another one succeeds.
    pub told: Option<Told>,
    /// What people said of its runs; of one that they asked for, that it is there.
    pub asks: BTreeMap<RunId, Ask>,
    /// Which run this service is, where it is one and not the job itself. That is nowhere written:
    /// nodes derive it.
    pub run: Option<Run>,
}

/// A service that stands for one run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The job.
    pub job: ServiceKey,
    /// The run.
    pub id: RunId,
    /// Slots that have ended with success.
    pub done: BTreeSet<u32>,
    /// How many slots run at a time.
    pub parallelism: u32,
    /// How it has ended, if it has.
    pub result: Option<RunResult>,
}

impl Run {
    /// Slots that nobody needs to fill: those that are done, and those whose turn has not come.
    pub fn closed(&self, completions: u32) -> BTreeSet<u32> {
        if self.result.is_some() {
            return (0..completions).collect();
        }
        let left = (0..completions).filter(|slot| !self.done.contains(slot));
        let open: BTreeSet<u32> = left.take(self.parallelism as usize).collect();
        (0..completions).filter(|s| !open.contains(s)).collect()
    }
}

/// What is recorded of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunState {
    /// When it was recorded first, in milliseconds since the Unix epoch.
    pub since: u64,
    /// Slots that have ended with success.
    #[serde(with = "ranges", skip_serializing_if = "BTreeSet::is_empty")]
    pub done: BTreeSet<u32>,
    /// What these have told, as long as the run has not ended.
    #[serde(skip_serializing_if = "Collected::is_empty")]
    pub outputs: Collected,
    /// How it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<RunResult>,
}

/// What a run that has succeeded has told those that wait for its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which run.
    pub run: RunId,
    /// When its end was recorded, in milliseconds since the Unix epoch.
    pub at: u64,
    /// All of it.
    #[serde(default, skip_serializing_if = "Outputs::is_empty")]
    pub outputs: Outputs,
}

/// What the slots of a run have told so far. Where several tell the same name, the highest slot
/// counts, in whichever order they end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<u32, Outputs>", into = "BTreeMap<u32, Outputs>")]
pub struct Collected {
    /// All of it.
    outputs: Outputs,
    /// Whose word each of them is.
    slots: BTreeMap<String, u32>,
}

impl Collected {
    /// Adds what a slot has told.
    ///
    /// # Errors
    /// When that is more than a run may tell; a part of it may have been added.
    pub fn add(&mut self, slot: u32, outputs: &Outputs) -> Result<(), BadOutputs> {
        for (name, value) in outputs.iter() {
            if self.slots.get(name).is_none_or(|known| *known < slot) {
                self.outputs.set(name, value)?;
                self.slots.insert(name.to_owned(), slot);
            }
        }
        Ok(())
    }

    /// All of it.
    pub fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    /// Whether nothing was told.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    fn by_slot(&self) -> BTreeMap<u32, Outputs> {
        let mut slots: BTreeMap<u32, Outputs> = BTreeMap::new();
        for (name, value) in self.outputs.iter() {
            let slot = self.slots.get(name).copied().unwrap_or_default();
            // A part of what fits fits.
            let _fits = slots.entry(slot).or_default().set(name, value);
        }
        slots
    }
}

impl TryFrom<BTreeMap<u32, Outputs>> for Collected {
    type Error = BadOutputs;

    fn try_from(slots: BTreeMap<u32, Outputs>) -> Result<Self, BadOutputs> {
        let mut collected = Self::default();
        for (slot, outputs) in &slots {
            collected.add(*slot, outputs)?;
        }
        Ok(collected)
    }
}

impl From<Collected> for BTreeMap<u32, Outputs> {
    fn from(collected: Collected) -> Self {
        collected.by_slot()
    }
}

/// How a run has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// Well or not.
    pub outcome: Outcome,
    /// When, in milliseconds since the Unix epoch, by the clock of the node that recorded it.
    pub at: u64,
    /// Why, in words, where it was not well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whether a run has ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// All its slots have ended with success.
    Succeeded,
    /// One of them has failed for good, or it took too long.
    Failed,
    /// A person, or the next run, has ended it.
    Cancelled,
}

/// What a person said of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ask {
    /// Whether it shall not run, or not any longer.
    pub cancelled: bool,
}

impl Value for Ask {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))
    }
}

/// What nodes want recorded: added to what is recorded already.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunRecord {
    /// See [`Jobs::until`].
    pub until: u64,
    /// See [`Jobs::runs`].
    pub runs: BTreeMap<RunId, RunState>,
    /// Runs that nobody needs to remember any more.
    pub forget: BTreeSet<RunId>,
}

/// The same as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct JobsValue {
    pub(super) until: u64,
    pub(super) runs: BTreeMap<RunId, RunState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) told: Option<Told>,
}

impl Value for JobsValue {
    fn read(json: serde_json::Value) -> Result<Self, String> {
        let mut value: Self =
            serde_json::from_value(json).map_err(|e| format!("it cannot be read: {e}"))?;
        if value.runs.len() > MAX_RUNS {
            return Err(format!("it names {} runs", value.runs.len()));
        }
        let results = value.runs.values_mut().filter_map(|r| r.result.as_mut());
        for reason in results.filter_map(|r| r.reason.as_mut()) {
            *reason = reason.chars().take(MAX_REASON).collect();
        }
        Ok(value)
    }
}

impl Jobs {
    /// Adds what nodes want recorded. What is done stays done, and the first end is the end.
    pub fn record(&mut self, record: &RunRecord) {
        self.until = self.until.max(record.until);
        for (id, new) in &record.runs {
            let state = self.runs.entry(id.clone()).or_insert_with(|| RunState {
                since: new.since,
                ..RunState::default()
            });
            state.done.extend(&new.done);
            if state.result.is_none() {
                let told = state.end(id, new);
                self.told = told.or(self.told.take());
            }
        }
        for id in &record.forget {
            self.runs.remove(id);
            self.asks.remove(id);
        }
        // Whoever recorded it saw less than is known here.
        while self.runs.len() > MAX_RUNS {
            let ended = self.runs.iter().filter(|(_, r)| r.result.is_some());
            let oldest = ended.min_by_key(|(_, r)| r.since).map(|(id, _)| id.clone());
            let Some(oldest) = oldest.or_else(|| self.runs.keys().next().cloned()) else {
                return;
            };
            self.runs.remove(&oldest);
        }
    }

    pub(super) fn stored(&self) -> JobsValue {
        JobsValue {
            until: self.until,
            runs: self.runs.clone(),
            told: self.told.clone(),
        }
    }
}

impl RunState {
    /// Adds what was told, and the end if it has come; returns what others are to be told of it.
    fn end(&mut self, id: &RunId, new: &Self) -> Option<Told> {
        self.result.clone_from(&new.result);
        for (slot, outputs) in new.outputs.by_slot() {
            if let Err(error) = self.outputs.add(slot, &outputs) {
                // Each of two sides had recorded what fits, and together it does not.
                let at = new.result.as_ref().map_or(new.since, |result| result.at);
                self.result = Some(RunResult::too_much(at, &error));
            }
        }
        let result = self.result.as_ref()?;
        let outputs = std::mem::take(&mut self.outputs).outputs;
        (result.outcome == Outcome::Succeeded).then(|| Told {
            run: id.clone(),
            at: result.at,
            outputs,
        })
    }
}

impl RunResult {
    /// The end of a run whose slots have told more than fits.
    pub fn too_much(at: u64, error: &BadOutputs) -> Self {
        Self {
            outcome: Outcome::Failed,
            at,
            reason: Some(format!(
                "the outputs of its slots cannot be taken together: {error}"
            )),
        }
    }
}

/// Sets of slots as text, `0-3,7`: most runs end with one range.
mod ranges {
    use std::collections::BTreeSet;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::desired::validate::MAX_COMPLETIONS;

    pub(super) fn serialize<S: Serializer>(
        slots: &BTreeSet<u32>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut parts: Vec<(u32, u32)> = Vec::new();
        for slot in slots {
            match parts.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(*slot) => *last = *slot,
                Some(_) | None => parts.push((*slot, *slot)),
            }
        }
        let parts = parts.into_iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        serializer.serialize_str(&parts.collect::<Vec<_>>().join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<u32>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut slots = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse::<u32>().map_err(D::Error::custom);
            let (first, last) = (number(first)?, number(last)?);
            if last >= MAX_COMPLETIONS {
                return Err(D::Error::custom("it names a slot that no run has"));
            }
            slots.extend(first..=last);
        }
        Ok(slots)
    }
}
