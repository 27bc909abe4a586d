//! What tests the whole of Dunlin: the deterministic simulator, hostile input for every decoder, labs with real daemons, benchmarks
//! beside other programs, and (under `tests/`) the test of the architecture.

pub mod bench;
pub mod fuzz;
pub mod lab;
pub mod sim;
