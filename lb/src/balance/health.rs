//! Whether a target is offered: ejection and probation.

/// Milliseconds for which the first failed connect ejects a replica. Membership takes 1 to 2 s to
/// notice a dead node, so ejection bridges about that time and then the table itself drops it.
pub const EJECTION: u64 = 1_000;

/// Most milliseconds of an ejection. Each further failure doubles it up to here; longer would keep
/// a replica idle long after it has recovered.
pub const MAX_EJECTION: u64 = 30_000;

/// Connections in a row that end before the replica said anything, until it is ejected. A client
/// that hangs up early looks the same, so that one or two prove nothing.
pub const STRIKES: u8 = 5;

/// The health of a target as connections have found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is offered.
    Good {
        /// Connections in a row that ended without a byte from it.
        strikes: u8,
    },
    /// It is not offered until then.
    Ejected {
        /// The time in milliseconds.
        until: u64,
        /// Failures in a row.
        failures: u32,
    },
    /// One connection tries it.
    Probation {
        /// Failures in a row.
        failures: u32,
    },
}

impl Default for Health {
    fn default() -> Self {
        Self::Good { strikes: 0 }
    }
}

impl Health {
    pub(super) fn admits(self, now: u64) -> bool {
        match self {
            Self::Good { .. } => true,
            Self::Ejected { until, .. } => until <= now,
            Self::Probation { .. } => false,
        }
    }

    pub(super) fn at(self, now: u64) -> Self {
        match self {
            Self::Ejected { until, failures } if until <= now => Self::Probation { failures },
            Self::Good { .. } | Self::Ejected { .. } | Self::Probation { .. } => self,
        }
    }

    /// One that is offered before its time, because nobody else is left, is not on trial: any
    /// number of connections may be given to it at once.
    pub(super) fn chosen(&mut self, now: u64) {
        if let Self::Ejected { until, failures } = *self
            && until <= now
        {
            *self = Self::Probation { failures };
        }
    }

    pub(super) fn connected(&mut self) {
        match self {
            Self::Good { .. } => {}
            Self::Ejected { .. } | Self::Probation { .. } => *self = Self::default(),
        }
    }

    /// Whether this ejects it. Connections that were under way when another one ejected it tell
    /// nothing new: counted, a burst of them would mean the longest time at once.
    pub(super) fn failed(&mut self, entropy: u64, now: u64) -> bool {
        if let Self::Ejected { until, .. } = *self
            && until > now
        {
            return false;
        }
        let failures = self.failures().saturating_add(1);
        let doubled = EJECTION.saturating_mul(1 << (failures - 1).min(16));
        let time = doubled.min(MAX_EJECTION);
        let until = now.saturating_add(time - time / 4 + entropy % (time / 2));
        *self = Self::Ejected { until, failures };
        true
    }

    /// Whether this ejects it.
    pub(super) fn judged(&mut self, answered: bool, entropy: u64, now: u64) -> bool {
        let Self::Good { strikes } = self else {
            return false;
        };
        if answered {
            *strikes = 0;
            return false;
        }
        *strikes += 1;
        *strikes >= STRIKES && self.failed(entropy, now)
    }

    /// A connection that ends before its outcome is known has taught nothing: the next may try.
    pub(super) fn closed(&mut self) {
        if let Self::Probation { failures } = *self {
            *self = Self::Ejected { until: 0, failures };
        }
    }

    fn failures(self) -> u32 {
        match self {
            Self::Good { .. } => 0,
            Self::Ejected { failures, .. } | Self::Probation { failures } => failures,
        }
    }
}
