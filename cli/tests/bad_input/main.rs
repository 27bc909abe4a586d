//! What a person gets wrong, and what hosts do wrong, against real daemons: every mistake is told
//! with its cause and a way out, ends with the promised exit code, and costs nothing.

mod commands;
#[expect(dead_code, reason = "its other half is for the tests of traffic")]
mod daemon;
mod hosts;
mod remote;
mod rules;
mod secrets;
mod starting;
