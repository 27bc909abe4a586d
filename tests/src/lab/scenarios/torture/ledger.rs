//! What people asked for and were promised, and so what may be wanted in the end.
//!
//! The greater stamp wins, and outsiders see no stamps. What they know: a host's later write beats
//! its earlier ones, and any accepted write beats what all agreed on before. So the end is the last
//! accepted write of one of the hosts, or one of which nobody knows what came of it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_api::ServiceDetail;

use super::Lab;
use super::people::{Change, name};
use super::view::inspect;
use crate::lab::net::LabError;

/// How many services there are to fight over.
pub(super) const SERVICES: usize = 6;
/// The published port of the first service; the others follow.
pub(super) const PORT: u16 = 18_100;
/// The variable that says which deploy a specification is from.
pub(super) const TAG: &str = "TORTURE";

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was promised.
    Accepted,
    /// It surely has no effect.
    Refused(String),
    /// Nobody answered in time, or broke off.
    Unclear(String),
}

/// One thing that can be written, as outsiders know it.
#[derive(Debug, Default)]
struct Register<T> {
    /// What all agreed on when the cluster was last at rest.
    base: T,
    /// The last accepted write of each host since.
    accepted: BTreeMap<usize, T>,
    unclear: BTreeSet<T>,
}

impl<T: Ord + Clone> Register<T> {
    fn write(&mut self, at: usize, value: T, outcome: &Outcome) {
        match outcome {
            Outcome::Accepted => drop(self.accepted.insert(at, value)),
            Outcome::Unclear(_) => drop(self.unclear.insert(value)),
            Outcome::Refused(_) => {}
        }
    }

    fn possible(&self) -> BTreeSet<T> {
        let mut all = self.unclear.clone();
        all.extend(self.accepted.values().cloned());
        if self.accepted.is_empty() {
            all.insert(self.base.clone());
        }
        all
    }

    fn settle(&mut self, value: T) {
        self.base = value;
        self.accepted.clear();
        self.unclear.clear();
    }
}

#[derive(Debug, Default)]
struct Entry {
    /// The number of the deploy, or nothing: no such service.
    tag: Register<Option<u64>>,
    scale: Register<u32>,
    /// Whether it was created or removed since the last rest: which scale survives then depends
    /// on stamps that nobody sees.
    came_or_went: bool,
}

/// All promises.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    services: BTreeMap<usize, Entry>,
    tags: u64,
    accepted: usize,
    refused: usize,
    unclear: usize,
}

impl Ledger {
    /// A number that no specification has yet.
    pub(super) fn next_tag(&mut self) -> u64 {
        self.tags += 1;
        self.tags
    }

    /// Notes what came of a change on a host.
    pub(super) fn record(&mut self, at: usize, change: &Change, outcome: &Outcome) {
        match outcome {
            Outcome::Accepted => self.accepted += 1,
            Outcome::Refused(_) => self.refused += 1,
            Outcome::Unclear(_) => self.unclear += 1,
        }
        match *change {
            Change::Deploy {
                service,
                tag,
                replicas,
            } => {
                let entry = self.services.entry(service).or_default();
                entry.came_or_went |= entry.tag.base.is_none();
                entry.tag.write(at, Some(tag), outcome);
                entry.scale.write(at, replicas, outcome);
            }
            Change::Scale { service, replicas } => {
                let entry = self.services.entry(service).or_default();
                entry.scale.write(at, replicas, outcome);
            }
            Change::Remove { service } => {
                let entry = self.services.entry(service).or_default();
                entry.came_or_went = true;
                entry.tag.write(at, None, outcome);
            }
            Change::Availability { .. } => {}
        }
    }

    /// What is wrong with what a host wants of a service.
    pub(super) fn judge(&self, service: usize, wanted: Option<&ServiceDetail>) -> Option<String> {
        let name = name(service);
        let Some(entry) = self.services.get(&service) else {
            return wanted.map(|_| format!("nobody ever asked for {name}"));
        };
        let tag = wanted.and_then(tag);
        let possible = entry.tag.possible();
        if !possible.contains(&tag) {
            return Some(format!(
                "an accepted deploy or removal of {name} is lost: wanted is {tag:?}, and possible {possible:?}"
            ));
        }
        let scale = wanted?.scale;
        let possible = entry.scale.possible();
        if !entry.came_or_went && !possible.contains(&scale) {
            return Some(format!(
                "an accepted scale of {name} is lost: wanted are {scale}, and possible {possible:?}"
            ));
        }
        None
    }

    /// What is wanted now is the new beginning: all have it.
    pub(super) async fn settle(&mut self, lab: &Lab) -> Result<(), LabError> {
        for (service, entry) in &mut self.services {
            let detail = inspect(&lab.hosts[0].client(), &name(*service)).await;
            let detail = detail.map_err(LabError::broken)?;
            entry.tag.settle(detail.as_ref().and_then(tag));
            entry.scale.settle(detail.map_or(0, |d| d.scale));
            entry.came_or_went = false;
        }
        Ok(())
    }

    /// How many changes there were.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} accepted, {} refused, {} unclear",
            self.accepted, self.refused, self.unclear
        )
    }
}

fn tag(detail: &ServiceDetail) -> Option<u64> {
    detail.spec.environment.get(TAG)?.parse().ok()
}
