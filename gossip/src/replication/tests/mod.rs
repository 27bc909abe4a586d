//! Tests, by theme. [`world`] is the simulated cluster that most of them use.

mod cluster;
mod deltas;
mod durable;
mod hostile;
mod observed;
mod scale;
mod world;
