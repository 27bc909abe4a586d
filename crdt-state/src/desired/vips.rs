//! Which virtual address each service has.
//!
//! The node that creates a service draws a number from the hash of its name, goes on to the next
//! free one when that is taken, and writes it down. From then on the number is the service's for
//! as long as it exists, whatever else comes and goes.
//!
//! Two services created at the same time, or on two sides of a partition, may have been given the
//! same number. [`settle`] decides that the same way everywhere: the one whose number was written
//! earlier by its stamp keeps it, and the other moves on to the next number that nobody has
//! written. The next change that anybody makes also writes down where it moved, so that it stays
//! there when the first one is removed.

use std::collections::{BTreeMap, BTreeSet};

use super::register::Stamp;
use crate::model::{ServiceKey, VipIndex};

/// Numbers that one proposal writes down for services that it does not name. The rest waits for
/// the next one: collisions are rare, and a change has to stay small.
pub(super) const MAX_SETTLED: usize = 64;

/// The number of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// The number.
    pub index: VipIndex,
    /// Whether it is the one that is written down.
    pub written: bool,
}

/// Gives every service a number of its own, of which `written` says what was written and when.
pub(super) fn settle<'a>(
    services: impl Iterator<Item = (&'a ServiceKey, Option<(Stamp, VipIndex)>)>,
) -> BTreeMap<ServiceKey, Assigned> {
    let mut with = Vec::new();
    let mut without = Vec::new();
    for (service, written) in services {
        match written {
            Some((stamp, index)) => with.push((stamp, service, index)),
            None => without.push(service),
        }
    }
    // One change may write many numbers with one stamp; then the names decide.
    with.sort_unstable();
    let mut taken = BTreeSet::new();
    let mut assigned = BTreeMap::new();
    let mut losers = Vec::new();
    for (_stamp, service, index) in with {
        if taken.insert(index) {
            let written = true;
            assigned.insert(service.clone(), Assigned { index, written });
        } else {
            losers.push(service);
        }
    }
    without.sort_unstable();
    for service in losers.into_iter().chain(without) {
        let Some(index) = free(service, &taken) else {
            continue;
        };
        taken.insert(index);
        let written = false;
        assigned.insert(service.clone(), Assigned { index, written });
    }
    assigned
}

/// The number for a new service; `None` when all are taken, which the bound on services prevents.
pub(super) fn free(service: &ServiceKey, taken: &BTreeSet<VipIndex>) -> Option<VipIndex> {
    let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 virtual address");
    hasher.update(service.to_string().as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    let first = u64::from_be_bytes(first) % u64::from(VipIndex::COUNT);
    (0..u64::from(VipIndex::COUNT))
        .map(|step| VipIndex::nth(first + step))
        .find(|index| !taken.contains(index))
}

#[cfg(test)]
pub(super) mod tests;
