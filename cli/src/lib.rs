//! What the `dunlin` binary is made of, as a library so that tests reach it: `main.rs` only calls
//! [`main`].
//!
//! A command line becomes [`args::Cli`]; each command, in a file of its own under [`commands`],
//! turns its words into calls of the typed client and the answers into a table or JSON. What they
//! all need is in [`context::Context`]; how they fail is in [`failure`], with the exit codes of the
//! API's contract.

pub mod args;
pub mod commands;
pub mod compose;
pub mod context;
pub mod contexts;
pub mod demo;
mod entry;
pub mod failure;
mod keyboard;
pub mod output;
mod progress;
#[cfg(test)]
mod testing;
pub mod whoami;
mod words;

pub use entry::main;
