//! What a node has and a replica takes.

use serde::{Deserialize, Serialize};

/// An amount of the divisible resources. Host ports are exclusive and stand apart
/// ([`super::HostPort`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resources {
    /// CPU time in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Disk in bytes.
    pub disk: u64,
}

impl Resources {
    /// Nothing.
    pub const ZERO: Self = Self {
        cpu_millis: 0,
        memory: 0,
        disk: 0,
    };

    /// The sum, saturating: a register from another node may hold any number.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory: self.memory.saturating_add(other.memory),
            disk: self.disk.saturating_add(other.disk),
        }
    }

    /// What is left after taking `other`; never below zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory: self.memory.saturating_sub(other.memory),
            disk: self.disk.saturating_sub(other.disk),
        }
    }

    /// Whether each part of `self` is at most that of `room`.
    pub fn fits_in(self, room: Self) -> bool {
        self.cpu_millis <= room.cpu_millis && self.memory <= room.memory && self.disk <= room.disk
    }
}
