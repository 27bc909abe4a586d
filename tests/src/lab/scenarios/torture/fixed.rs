//! Services that nobody changes, so that all that happens to them is for the daemons to answer for.

use std::collections::BTreeSet;

use dunlin_state::model::{NodeId, ServiceSpec};

use super::Lab;
use crate::lab::net::LabError;
use crate::lab::scenarios::{deploy, exactly, whoami};

/// Replicas so big that two fill a host.
pub(super) const STEADY: &str = "steady";
/// Of this one there are never two.
pub(super) const ALONE: &str = "alone";
/// All of them.
pub(super) const NAMES: [&str; 2] = [STEADY, ALONE];

/// How many replicas the first has: they fit on two hosts, should the others be in trouble.
const REPLICAS: u32 = 4;
/// How many of them fit on a host.
pub(super) const FIT: usize = 2;
/// What one of them takes of a host's CPUs, in percent: a third one does not fit, and there is room for
/// what people deploy.
const PERCENT: u64 = 42;
/// Hosts that vote on the second.
const VOTERS: usize = 3;
/// Seconds until both run.
const PATIENCE: u64 = 60;

/// Deploys them, and waits until they run.
pub(super) async fn deploy_all(lab: &Lab) -> Result<(), LabError> {
    let nodes = lab.hosts[0].client().nodes().await;
    let nodes = nodes.map_err(|e| LabError::new("list nodes", e))?;
    let least = nodes.iter().map(|n| n.capacity.cpu_millis).min();
    let mut steady = whoami();
    steady.reservation.cpu_millis = least.unwrap_or_default() * PERCENT / 100;
    let voters: BTreeSet<NodeId> = nodes.iter().map(|n| n.id).collect();
    let mut alone: ServiceSpec = whoami();
    alone.policy.voters = voters.into_iter().take(VOTERS).collect();
    deploy(lab, 0, STEADY, steady, REPLICAS).await?;
    deploy(lab, 0, ALONE, alone, 1).await?;
    exactly(lab, STEADY, REPLICAS as usize, PATIENCE).await?;
    exactly(lab, ALONE, 1, PATIENCE).await
}
