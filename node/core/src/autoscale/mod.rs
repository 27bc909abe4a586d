//! How many replicas a service shall have that follows its load.
//!
//! Three small machines, all of them functions of what they are told and of the time:
//!
//! - [`Meter`]: what one node measures of a service, smoothed, and told to others only when it has
//!   changed by more than a step. So a steady load costs nothing.
//! - [`Scaler`]: what all nodes have told, turned into a number of replicas. It goes up at once and
//!   down late, never down on what it does not know, and never out of the bounds.
//! - [`forecast`]: what a load that repeats itself will be soon.
//!
//! Who decides, and how any other node goes on where one has ended, is the agent's part
//! (`agent/autoscale.rs`).

pub mod forecast;
mod meter;
mod scaler;
#[cfg(test)]
mod tests;

pub(crate) use meter::Meter;
pub use scaler::{Scaler, Seen, Wish};
