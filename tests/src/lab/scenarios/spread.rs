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
    deploy(lab, 0, "seen", whoami(), 0).await?;
    for turn in 0..times * 5 {
        let at = turn % lab.hosts.len();
        let before = number_everywhere(lab).await?;
        let wanted = before + 1;
        let mut spec = whoami();
        spec.labels.insert("turn".to_owned(), wanted.to_string());
        deploy(lab, at, "seen", spec, 0).await?;
        let start = Instant::now();
        while number_everywhere(lab).await? != wanted {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(LabError::broken("a write has not reached everyone in 10 s"));
            }
        }
        figures.add(
            "spread: accepted write visible on all nodes",
            start.elapsed(),
        );
    }
    remove(lab, "seen").await
}

/// The lowest number that a host shows.
async fn number_everywhere(lab: &Lab) -> Result<u64, LabError> {
    let service = key("seen")?;
    let clients: Vec<_> = lab.hosts.iter().map(super::super::Host::client).collect();
    let mut lowest = u64::MAX;
    for client in &clients {
        let label = match client.inspect(&service).await {
            Ok(detail) => detail.spec.labels.get("turn").and_then(|t| t.parse().ok()),
            Err(_not_there_yet) => None,
        };
        lowest = lowest.min(label.unwrap_or(0));
    }
    Ok(lowest)
}
