//! The daemon: builds, wires, supervises and stops the parts of a node, and performs the effects
//! that its engine asks for.

pub mod runtime;
pub mod supervisor;
