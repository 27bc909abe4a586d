//! SWIM membership as a deterministic machine.

mod io;

pub use io::{Effect, Input, MemberEvent, MemberId, MemberState, Profile};
