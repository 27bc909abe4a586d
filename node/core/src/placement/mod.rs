//! May this node take a replica of that service, and how well would it sit there?
//!
//! [`judge`] is a pure function of a specification and a [`NodeView`]. Hard conditions decide
//! *whether*: all that fail are reported, not only the first, because a person who fixes one thing
//! at a time loses patience. Soft ones decide *how well* as one integer, so that every machine
//! computes the same order. The same function answers calls for bids on a node and `explain` for
//! all nodes.

mod facts;
mod judge;
mod reason;
mod score;
mod spread;
#[cfg(test)]
mod tests;
mod view;

pub use crate::volumes::{Elsewhere, Keeper};
pub(crate) use judge::reserves_anything;
pub use judge::{Verdict, judge, marginal_scores, matches_constraints, resolve_runtime};
pub use reason::Reason;
pub(crate) use score::{fullness, wishes};
pub(crate) use spread::Domains;
pub use view::NodeView;
