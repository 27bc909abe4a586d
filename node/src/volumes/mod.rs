//! The data of volumes as a tar archive, out of a directory and into one.
//!
//! What is packed may be written to by a hostile workload at that moment, so nothing on the way is
//! followed: directories are opened one below the other, never by a path. What is unpacked may come
//! from anywhere, so whatever would reach outside the volume is refused.

mod pack;
mod shelf;
#[cfg(test)]
mod tests;
mod unpack;

pub(crate) use pack::pack;
pub(crate) use shelf::{discard, put_in_place, scratch, set_aside, sweep};
pub(crate) use unpack::unpack;

/// Directories below each other, at most: each holds a file descriptor open while it is packed.
const MAX_DEPTH: usize = 128;
