//! A whole cluster in one thread, deterministic from its seed.
//!
//! Every node is the very [`dunlin_core::engine::Engine`] that the daemon runs. What surrounds it is
//! virtual: [`network`] delays, loses, duplicates and cuts; [`disk`] forgets what was not synced;
//! [`runtime`] starts slowly, fails, and loses answers; clocks are skewed and jump; hosts stall,
//! crash and come back. [`check`] looks at the invariants while it runs and after the faults have
//! ended. The same seed gives the same run, bit for bit: [`world::World::digest`] says so.

pub mod check;
pub mod disk;
pub mod faults;
pub mod network;
pub mod report;
pub mod runtime;
pub mod scenario;
pub mod world;

mod herd;
mod load;
mod node;
mod queue;
mod story;
mod workload;

pub use report::{Outcome, Summary};
pub use scenario::{Scenario, run};
