//! Time as an argument.

/// The instant at which a machine is asked to decide. Both clocks come in together, so that no
/// pure code reads either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; the zero is arbitrary. All timers use it.
    pub mono: u64,
    /// Milliseconds since the Unix epoch. It may jump; it is shown to people and breaks ties,
    /// and no timer depends on it.
    pub wall: u64,
}
