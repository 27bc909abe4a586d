//! What a container uses, as the engine counts it.

use bollard::models::ContainerStatsResponse;
use bollard::query_parameters::StatsOptions;
use dunlin_core::io::WorkloadId;
use futures::StreamExt as _;

use super::super::usage::Usage;
use super::Inner;
use super::execute::{INSPECT_LIMIT, SILENT};
use super::start::status;

impl Inner {
    /// What the container of an attempt has used.
    pub(super) async fn usage(&self, id: &WorkloadId) -> Option<Result<Usage, String>> {
        let engine = self.client()?;
        let options = StatsOptions {
            stream: false,
            one_shot: true,
        };
        let name = self.owner.name(id);
        let mut answers = Box::pin(engine.client.stats(&name, Some(options)));
        match tokio::time::timeout(INSPECT_LIMIT, answers.next()).await {
            Ok(Some(Ok(counted))) => Some(Ok(usage(counted))),
            // Another runtime's, or it has just ended.
            Ok(Some(Err(error))) if matches!(status(&error), Some(404 | 409)) => None,
            Ok(Some(Err(error))) => Some(Err(error.to_string())),
            Ok(None) | Err(_) => Some(Err(SILENT.to_owned())),
        }
    }
}

fn usage(counted: ContainerStatsResponse) -> Usage {
    let cpu = counted.cpu_stats.and_then(|cpu| cpu.cpu_usage);
    let networks = counted.networks.filter(|networks| !networks.is_empty());
    let network = networks.map(|networks| {
        let sum = |(received, sent): (u64, u64), (more, still): (u64, u64)| {
            (received.saturating_add(more), sent.saturating_add(still))
        };
        let each = networks.into_values();
        each.map(|n| (n.rx_bytes.unwrap_or(0), n.tx_bytes.unwrap_or(0)))
            .fold((0, 0), sum)
    });
    let memory = counted.memory_stats.and_then(|memory| {
        let parts = memory.stats.unwrap_or_default();
        // By the names of the two versions of cgroups.
        let inactive = parts
            .get("total_inactive_file")
            .or(parts.get("inactive_file"));
        let inactive = inactive.copied().unwrap_or(0);
        memory.usage.map(|all| all.saturating_sub(inactive))
    });
    Usage {
        cpu_us: cpu
            .and_then(|cpu| cpu.total_usage)
            .map(|nanos| nanos / 1_000),
        memory,
        processes: counted.pids_stats.and_then(|pids| pids.current),
        network,
    }
}
