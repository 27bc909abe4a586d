//! What the `dunlin` binary is made of, as a library so that tests reach it: `main.rs` only parses
//! words and calls in here.

pub mod compose;
pub mod demo;
pub mod whoami;
