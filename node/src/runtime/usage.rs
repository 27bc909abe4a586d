//! What a replica has used, as its runtime counts it.

use std::time::Duration;

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

impl Usage {
    /// Thousandths of a core used since an earlier moment; nothing when it was started anew in
    /// between.
    pub(crate) fn cpu_millis_since(&self, before: &Self, passed: Duration) -> Option<u64> {
        let used = self.cpu_us?.checked_sub(before.cpu_us?)?;
        let micros = u64::try_from(passed.as_micros()).ok()?.max(1);
        Some(used.saturating_mul(1_000) / micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu_us: u64) -> Usage {
        Usage {
            cpu_us: Some(cpu_us),
            ..Usage::default()
        }
    }

    #[test]
    fn the_rate_is_what_was_used_meanwhile() {
        let second = Duration::from_secs(1);
        assert_eq!(
            used(1_500_500).cpu_millis_since(&used(500), second),
            Some(1_500)
        );
        assert_eq!(used(0).cpu_millis_since(&used(0), second), Some(0));
        assert_eq!(
            used(4).cpu_millis_since(&used(5), second),
            None,
            "started anew"
        );
        assert_eq!(Usage::default().cpu_millis_since(&used(5), second), None);
        assert_eq!(
            used(7).cpu_millis_since(&used(0), Duration::ZERO),
            Some(7_000)
        );
    }
}
