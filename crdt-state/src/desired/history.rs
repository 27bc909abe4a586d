//! Who wanted what, and which edits lost against concurrent ones.
//!
//! Each register names the stamp of the value its writer saw and replaced. From the current value
//! this gives a chain of versions that were replaced knowingly; a version that is newer than the
//! end of the chain and not in it was overwritten by someone who had not seen it: it lost.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::keys::{Aspect, Key};
use super::register::{Register, Stamp, newest};
use crate::model::ServiceKey;

/// One version of an aspect of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Which aspect.
    pub aspect: Aspect,
    /// Orders it among the versions of the cluster; equal counters are concurrent.
    pub counter: u64,
    /// Milliseconds since the Unix epoch, by the clock of the node that took it.
    pub time: u64,
    /// Who asked for it.
    pub author: String,
    /// What it did, in a few words.
    pub summary: String,
    /// The value; `None` where it was removed.
    pub value: Option<serde_json::Value>,
    /// Whether it is the value in force.
    pub current: bool,
    /// Whether it lost against a concurrent edit: nobody who replaced it had seen it.
    pub lost: bool,
}

/// An aspect for which concurrent edits disagree and that nobody has edited since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// Which service.
    pub service: ServiceKey,
    /// Which aspect.
    pub aspect: Aspect,
    /// The edit in force.
    pub winner: HistoryEntry,
    /// The edits that lost against it, newest first.
    pub lost: Vec<HistoryEntry>,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service, winner, ..
        } = self;
        write!(
            f,
            "two sides have changed its {} unseen by each other: '{}' by {} is in force",
            self.aspect, winner.summary, winner.author
        )?;
        if let Some(lost) = self.lost.first() {
            write!(f, ", '{}' by {} is not", lost.summary, lost.author)?;
        }
        write!(
            f,
            "; another change settles it, `dunlin history {service}` tells more"
        )
    }
}

impl Document {
    /// The kept versions of a service, newest first; also of a service that has been removed.
    pub fn history(&self, service: &ServiceKey) -> Vec<HistoryEntry> {
        let mut entries: Vec<(Stamp, HistoryEntry)> = Aspect::ALL
            .iter()
            .flat_map(|aspect| self.versions(service, *aspect))
            .collect();
        entries.sort_by(|(a, x), (b, y)| (b, x.aspect).cmp(&(a, y.aspect)));
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Concurrent edits that disagree and have not been settled by a later edit. They come from
    /// partitions; the cluster follows the winner.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let services = self.table.service_keys();
        services.flat_map(|key| self.conflicts_of(key)).collect()
    }

    /// The same of one service.
    pub fn conflicts_of(&self, service: &ServiceKey) -> Vec<Conflict> {
        let aspects = Aspect::ALL.iter();
        aspects
            .filter_map(|aspect| self.conflict(service, *aspect))
            .collect()
    }

    fn conflict(&self, service: &ServiceKey, aspect: Aspect) -> Option<Conflict> {
        let current = self.table.service(service)?.stamp(aspect)?;
        // Most have one version, which need not be read to know that it disagrees with none.
        self.table.revisions(service, aspect).nth(1)?;
        let base = self.register(service, aspect, current)?.base;
        let versions = self.versions(service, aspect);
        let winner = versions.iter().find(|(stamp, _)| *stamp == current)?;
        let winner = winner.1.clone();
        let lost: Vec<HistoryEntry> = versions
            .into_iter()
            .filter(|(stamp, entry)| entry.lost && base.is_none_or(|base| *stamp > base))
            .map(|(_, entry)| entry)
            .collect();
        (!lost.is_empty()).then(|| Conflict {
            service: service.clone(),
            aspect,
            winner,
            lost,
        })
    }

    /// The kept versions of one aspect, newest first.
    fn versions(&self, service: &ServiceKey, aspect: Aspect) -> Vec<(Stamp, HistoryEntry)> {
        let registers: Vec<Register> = self
            .table
            .revisions(service, aspect)
            .rev()
            .filter_map(|stamp| self.register(service, aspect, stamp))
            .collect();
        let current = self.table.service(service).and_then(|c| c.stamp(aspect));
        let chain = chain(&registers, current);
        let in_force = registers.iter().find(|r| Some(r.stamp) == current);
        registers
            .iter()
            .map(|register| {
                let stamp = register.stamp;
                let known = chain.seen.contains(&stamp) || stamp < chain.end;
                let differs = in_force.is_some_and(|r| r.value != register.value);
                let base = registers.iter().find(|r| Some(r.stamp) == register.base);
                let entry = HistoryEntry {
                    aspect,
                    counter: stamp.counter,
                    time: register.time,
                    author: register.author.clone(),
                    summary: summary(aspect, register, base),
                    value: (!register.is_tombstone()).then(|| register.value.clone()),
                    current: Some(stamp) == current,
                    lost: !known && differs,
                };
                (stamp, entry)
            })
            .collect()
    }

    fn register(&self, service: &ServiceKey, aspect: Aspect, stamp: Stamp) -> Option<Register> {
        let key = Key::Revision(service.clone(), aspect, stamp).to_string();
        newest(self.engine.values(&key))?.1.ok()
    }
}

/// The versions that were replaced knowingly on the way to the current one.
struct Chain {
    seen: BTreeSet<Stamp>,
    /// The oldest stamp that the chain reaches; older versions are not judged.
    end: Stamp,
}

fn chain(registers: &[Register], current: Option<Stamp>) -> Chain {
    let mut seen = BTreeSet::new();
    let mut end = current.unwrap_or_default();
    let mut next = current;
    while let Some(stamp) = next {
        // A base is always older; anything else is forged and must not loop.
        if !seen.insert(stamp) || stamp > end {
            break;
        }
        end = stamp;
        match registers.iter().find(|r| r.stamp == stamp) {
            // The first version ever: whatever else there is was concurrent to it.
            Some(register) if register.base.is_none() => {
                end = Stamp::default();
                break;
            }
            Some(register) => next = register.base,
            None => break,
        }
    }
    Chain { seen, end }
}

/// Field names that a summary lists at most.
const MAX_SUMMARY_FIELDS: usize = 5;

fn summary(aspect: Aspect, register: &Register, base: Option<&Register>) -> String {
    use serde_json::Value;
    if register.is_tombstone() {
        return "removed".to_owned();
    }
    match (aspect, &register.value) {
        (Aspect::Scale, Value::Number(n)) if n.as_u64() == Some(1) => "1 replica".to_owned(),
        (Aspect::Scale, Value::Number(n)) => format!("{n} replicas"),
        (Aspect::Image, Value::String(image)) if image.is_empty() => "no image".to_owned(),
        (Aspect::Image, Value::String(image)) => {
            format!("image {}", image.chars().take(200).collect::<String>())
        }
        (Aspect::Run, Value::Bool(true)) => "started".to_owned(),
        (Aspect::Run, Value::Bool(false)) => "stopped".to_owned(),
        (Aspect::Spec, Value::Object(fields)) => {
            let Some(Value::Object(old)) = base.map(|b| &b.value) else {
                return "deployed".to_owned();
            };
            // Fields with their default value are not stored, so both sides may lack some.
            let names: BTreeSet<&str> = fields
                .keys()
                .chain(old.keys())
                .map(String::as_str)
                .collect();
            let mut changed: Vec<&str> = names
                .into_iter()
                .filter(|name| *name != "image" && old.get(*name) != fields.get(*name))
                .collect();
            let more = changed.len().saturating_sub(MAX_SUMMARY_FIELDS);
            changed.truncate(MAX_SUMMARY_FIELDS);
            match (changed.is_empty(), more) {
                (true, _) => "deployed".to_owned(),
                (false, 0) => format!("changed {}", changed.join(", ")),
                (false, more) => format!("changed {} and {more} more", changed.join(", ")),
            }
        }
        (Aspect::Rollout, Value::Object(fields)) => rollout_summary(fields),
        (Aspect::Jobs, Value::Object(_)) => "runs recorded".to_owned(),
        (
            Aspect::Spec
            | Aspect::Image
            | Aspect::Scale
            | Aspect::Run
            | Aspect::Rollout
            | Aspect::Jobs,
            _,
        ) => "not readable by this version".to_owned(),
    }
}

fn rollout_summary(fields: &serde_json::Map<String, serde_json::Value>) -> String {
    let text = |name: &str| fields.get(name).and_then(serde_json::Value::as_str);
    let flag = |name: &str| fields.get(name).and_then(serde_json::Value::as_bool);
    let canary = fields.get("canary").and_then(serde_json::Value::as_u64);
    let what = match (flag("paused"), flag("rollback"), canary) {
        (Some(true), ..) => "rollout paused".to_owned(),
        (_, Some(true), _) => "rolled back".to_owned(),
        (_, _, Some(slots)) => format!("rollout to {slots} slots"),
        (_, _, None) => "rollout".to_owned(),
    };
    match text("reason") {
        Some(reason) => format!("{what}: {}", reason.chars().take(200).collect::<String>()),
        None => what,
    }
}
