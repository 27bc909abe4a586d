//! What the cluster wants and what each node reports, mergeable; and the snapshots everyone reads.
//!
//! Two planes live here and never mix. *Desired state* ([`desired`]) is what people wrote: an
//! automerge document of flat registers, kept with its history. *Observed state* ([`observed`])
//! is what nodes see: one register per node, written by that node alone, newest wins, no history.
//! [`model`] holds the vocabulary both speak and [`route`] the projection that DNS and the proxies
//! read.
//!
//! The crate is pure: time, randomness and identities are arguments, and bytes to be written to
//! disk are returned to the caller.

pub mod desired;
pub mod model;
pub mod observed;
pub mod route;
mod time;
pub mod timetable;
pub mod windows;

pub use time::Now;
