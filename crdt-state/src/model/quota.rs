//! What the services of a namespace may reserve together.

use serde::{Deserialize, Serialize};

/// Bounds on the sum over all services of a namespace; no bound where absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quota {
    /// Reserved CPU time, in thousandths of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Reserved memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
}

/// What the services of a namespace want together: scale times reservation of those that run. A
/// service for every node counts as one replica, since how many nodes there are is no part of what
/// people asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Usage {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes.
    pub memory: u64,
    /// Replicas.
    pub replicas: u64,
}

/// A bound that is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Excess {
    /// Which one.
    pub of: QuotaOf,
    /// What is wanted.
    pub wanted: u64,
    /// What is allowed.
    pub allowed: u64,
}

/// What a quota bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum QuotaOf {
    /// CPU time, in thousandths of a core.
    Cpu,
    /// Memory, in bytes.
    Memory,
    /// Replicas.
    Replicas,
}

impl Quota {
    /// Whether it bounds nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The bounds that `usage` exceeds.
    pub fn exceeded(&self, usage: &Usage) -> Vec<Excess> {
        let pairs = [
            (QuotaOf::Cpu, self.cpu_millis, usage.cpu_millis),
            (QuotaOf::Memory, self.memory, usage.memory),
            (QuotaOf::Replicas, self.replicas, usage.replicas),
        ];
        let bounds = pairs.into_iter();
        bounds
            .filter_map(|(of, allowed, wanted)| {
                let allowed = allowed.filter(|allowed| wanted > *allowed)?;
                Some(Excess {
                    of,
                    wanted,
                    allowed,
                })
            })
            .collect()
    }
}

impl Usage {
    /// How much of one kind.
    pub fn of(&self, of: QuotaOf) -> u64 {
        match of {
            QuotaOf::Cpu => self.cpu_millis,
            QuotaOf::Memory => self.memory,
            QuotaOf::Replicas => self.replicas,
        }
    }
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            of,
            wanted,
            allowed,
        } = self;
        match of {
            QuotaOf::Cpu => {
                let cores = |millis: u64| format!("{}.{:03}", millis / 1_000, millis % 1_000);
                write!(f, "{} of {} cores", cores(*wanted), cores(*allowed))
            }
            QuotaOf::Memory => {
                // Rounded up and down, so that what is exceeded looks so.
                let mib = 1 << 20;
                write!(
                    f,
                    "{} of {} MiB of memory",
                    wanted.div_ceil(mib),
                    allowed / mib
                )
            }
            QuotaOf::Replicas => write!(f, "{wanted} of {allowed} replicas"),
        }
    }
}
