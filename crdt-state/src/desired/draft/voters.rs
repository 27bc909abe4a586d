//! Who votes about a strict singleton is not changed while it runs: a majority of those before and one
//! of those after need not share a node, so each could let a replica run.

use std::collections::BTreeSet;

use crate::desired::rejection::Rejection;
use crate::desired::snapshot::Service;
use crate::model::{NodeId, ServiceKey, ServiceSpec};

fn voters(spec: &ServiceSpec) -> BTreeSet<NodeId> {
    spec.policy.voters.iter().copied().collect()
}

/// Refuses other voters for what runs. Giving up, or beginning, to be a singleton is no change of
/// voters: nothing is promised for that moment.
pub(super) fn check(key: &ServiceKey, now: &Service, then: &ServiceSpec) -> Result<(), Rejection> {
    let both = now.spec.policy.is_strict() && then.policy.is_strict();
    match now.running && both && voters(&now.spec) != voters(then) {
        true => Err(Rejection::VotersInUse(key.clone())),
        false => Ok(()),
    }
}

/// A specification that is gone back to keeps the voters of the present one.
pub(super) fn keep(mut spec: ServiceSpec, now: &Service) -> ServiceSpec {
    if now.running && now.spec.policy.is_strict() && spec.policy.is_strict() {
        spec.policy.voters.clone_from(&now.spec.policy.voters);
    }
    spec
}
