//! What tests the whole of Dunlin: the deterministic simulator, and (under `tests/`) the labs with
//! real daemons and the test of the architecture.

pub mod lab;
pub mod sim;
