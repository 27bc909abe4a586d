//! What a replica has used, as its runtime counts it.

use serde::{Deserialize, Serialize};

/// Counters of a replica at one moment. What cannot be known is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Time of a CPU since it started, in microseconds.
    pub cpu_us: Option<u64>,
    /// Bytes of memory now, without what the kernel could drop at once.
    pub memory: Option<u64>,
    /// Processes now.
    pub processes: Option<u64>,
    /// Bytes received and sent since it started. Processes share their host's network.
    pub network: Option<(u64, u64)>,
}
