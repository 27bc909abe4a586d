//! The process runtime with real processes. Needs no root; what needs it says so and returns.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "../support/runtime.rs"]
mod support;

mod ending;
mod ports;
mod starting;
mod surviving;
mod telling;
