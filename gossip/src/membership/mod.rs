//! SWIM membership as a deterministic machine.
//!
//! [`Membership`] wraps the `foca` crate (Das et al., "SWIM", 2002, with suspicion and
//! infection-style gossip), which is itself free of clocks and sockets, and adds what a small
//! edge cluster needs beside it:
//!
//! - **Identity**: a member is its key. A later boot, or another address in the same life,
//!   supersedes; a process that was declared down while it lived comes back as the same life.
//! - **Lossy paths**: transmissions are numbered, receivers report what they miss, and datagrams
//!   go out in as many copies as keep the loss that SWIM sees below 4 %. An unanswered probe
//!   is repeated over the reliable path before anybody is suspected.
//! - **Neighbours are watched** besides foca's random probes, so that no crash stays unseen by bad
//!   luck.
//! - **Suspects are told** with every ping and by every way there is, since only they can refute.
//!   Whoever answers this node during the suspicion is not convicted by it.
//! - **Local health** ("Lifeguard", 2018): a node that stood still moves all of its deadlines by
//!   the length of the stall, so nobody is convicted for it; a node that finds several others
//!   unreachable in a row stretches its timeouts. Nodes also say how long they lately stalled,
//!   and get that much time.
//! - **Views are compared** by digest with every datagram, and repaired over the reliable path.
//! - **Goodbyes** are told apart from crashes.
//! - **Healing**: members that are down, forgotten ones and seeds are called again and again.
//!
//! Simulated (`--example swim_figures`), preset `lan`, 9 nodes: a black-holed node is down at all
//! others after 1.25 s (p50) and 1.5 s (p99), the same at 20 % loss; with 20 % loss and stalls of
//! 0.5 to 2 s of a third of the nodes for ten hours, 3,297 stalls, two were reported as "down",
//! both the first long one of that node, and none would have passed the core's check.
//!
//! What it does not do: it does not decide that anything moves (the core checks a "down" first),
//! and a stall longer than the suspicion of a node that never stalled before is reported as
//! "down", since from outside it is one.

mod codec;
mod contacts;
mod health;
mod hearsay;
mod identity;
mod io;
mod machine;
mod path;
mod peers;
mod profile;
mod queue;
mod receiving;
mod sending;
mod tasks;
#[cfg(test)]
mod tests;
mod views;
mod watch;

pub use codec::sender;
pub use io::{Effect, Input, MemberEvent, MemberId, MemberState, MemberView, Profile};
pub use machine::Membership;
