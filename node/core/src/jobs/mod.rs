//! Jobs: which runs there are, what each of them wants, and what has to be recorded of them.
//!
//! A run is a service of its own that nobody wrote down: every node derives it from the job's
//! specification, from what people asked for, from what is recorded, and from the time
//! ([`derive`]). So its slots are auctioned, held, logged and explained like those of any other
//! service, two runs never share a slot, and no leader decides that the time has come. Its name says
//! which run of which job it is, alike on all nodes.
//!
//! Who ran a slot to its end keeps the claim, *completed*, and whoever may write in the namespace
//! records it ([`record`]): the node that ranks first at once, later ones when nothing has come of
//! that. While nodes are connected, a slot whose end was seen is not started again; when a node is
//! gone before anybody saw or recorded the end, it is.

mod derive;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use derive::{Expanded, expand};
pub(crate) use record::{Recording, due};

/// Milliseconds after its instant within which a run may begin that does not catch up: nodes need a
/// moment to notice, and some may have been stalled.
const BEGIN_WITHIN_MS: u64 = 60_000;

/// Runs of one job at a time: more are a job that takes longer than its schedule, for ever.
const MAX_ACTIVE: usize = 16;

/// Runs that have ended and are remembered beyond the time for which their replicas are kept.
const MAX_ENDED: usize = 16;

/// Milliseconds until the schedules are looked at again although nothing is due: the host's clock
/// may have been set.
const LOOK_AGAIN_MS: u64 = 30_000;
