//! How fast an accepted write is visible everywhere.

use std::time::{Duration, Instant};

use super::{deploy, key, remove, whoami};
use crate::lab::net::LabError;
use crate::lab::{Figures, Lab};

pub(super) async fn run(
    lab: &mut Lab,
    times: usize,
    figures: &mut Figures,
) -> Result<(), LabError> {
    for turn in 0..times * 5 {
        let taken = write_seen(lab, turn % lab.hosts.len()).await?;
        figures.add("spread: accepted write visible on all nodes", taken);
    }
    remove(lab, "seen").await
}

/// A host accepts a write of a service without replicas; the time from its answer until all show it.
pub async fn write_seen(lab: &Lab, at: usize) -> Result<Duration, LabError> {
    let wanted = lowest(&numbers(lab).await?) + 1;
    let mut spec = whoami();
    spec.labels.insert("turn".to_owned(), wanted.to_string());
    deploy(lab, at, "seen", spec, 0).await?;
    let start = Instant::now();
    loop {
        let shown = numbers(lab).await?;
        if lowest(&shown) == wanted {
            return Ok(start.elapsed());
        }
        if start.elapsed() > Duration::from_secs(10) {
            let what = format!(
                "write {wanted}, accepted by h{at}, has not reached everyone in 10 s: {shown:?}"
            );
            return Err(LabError::broken(&what));
        }
    }
}

/// The number that each host shows.
async fn numbers(lab: &Lab) -> Result<Vec<u64>, LabError> {
    let service = key("seen")?;
    let clients: Vec<_> = lab.hosts.iter().map(super::super::Host::client).collect();
    let mut numbers = Vec::with_capacity(clients.len());
    for client in &clients {
        let label = match client.inspect(&service).await {
            Ok(detail) => detail.spec.labels.get("turn").and_then(|t| t.parse().ok()),
            Err(_not_there_yet) => None,
        };
        numbers.push(label.unwrap_or(0));
    }
    Ok(numbers)
}

fn lowest(numbers: &[u64]) -> u64 {
    numbers.iter().copied().min().unwrap_or(0)
}
