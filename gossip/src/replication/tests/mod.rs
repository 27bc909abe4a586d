//! Tests, by theme. [`world`] is the simulated cluster that most of them use.

mod cluster;
mod durable;
mod observed;
mod scale;
mod world;
