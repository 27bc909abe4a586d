//! What tests the whole of Dunlin: the deterministic simulator, hostile input for every decoder, and (under `tests/`) the labs with
//! real daemons and the test of the architecture.

pub mod fuzz;
pub mod lab;
pub mod sim;
