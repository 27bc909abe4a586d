//! Push and anti-entropy of both state planes, as one deterministic machine.

mod io;

pub use io::{Effect, Input, Message, PersistId, ProposalId, Write};
