//! Where a service may and would better run.

use std::collections::BTreeSet;

use super::{SpecFault, check_list, check_text};
use crate::model::{
    Constraint, NodeId, Placement, Policy, Preference, Preferred, ScoreWeights, SpreadRule,
};

pub(super) fn check_placement(placement: &Placement) -> Result<(), SpecFault> {
    check_list("constraints", placement.constraints.len())?;
    check_list("anti-affinities", placement.anti_affinity.len())?;
    check_list("affinities", placement.affinity.len())?;
    check_list("preferences", placement.preferences.len())?;
    check_list("spreads", placement.spread.len())?;
    placement
        .constraints
        .iter()
        .try_for_each(check_constraint)?;
    for preference in &placement.preferences {
        let most = Preference::MAX_WEIGHT;
        if preference.weight == 0 || !(-most..=most).contains(&preference.weight) {
            return Err(SpecFault::BadPreference(preference.weight));
        }
        match &preference.of {
            Preferred::Service(_) => {}
            Preferred::Constraint(constraint) => check_constraint(constraint)?,
        }
    }
    for rule in &placement.spread {
        check_key(&rule.key)?;
        if rule.weight == 0 || rule.weight > SpreadRule::MAX_WEIGHT {
            return Err(SpecFault::BadWeight("a spread", rule.weight));
        }
        if rule.max_skew == Some(0) {
            return Err(SpecFault::Zero("the skew of a spread"));
        }
    }
    let weights = placement.weights.all();
    if let Some(bad) = weights.iter().find(|w| **w > ScoreWeights::MAX_WEIGHT) {
        return Err(SpecFault::BadWeight("a resource", *bad));
    }
    if weights.iter().all(|w| *w == 0) {
        return Err(SpecFault::Zero("one weight of the score"));
    }
    if placement.max_per_node == Some(0) {
        return Err(SpecFault::Zero("the number of replicas per node"));
    }
    Ok(())
}

pub(super) fn check_policy(policy: &Policy) -> Result<(), SpecFault> {
    let most = Policy::MAX_PRIORITY;
    if !(-most..=most).contains(&policy.priority) {
        return Err(SpecFault::BadPriority(policy.priority));
    }
    let voters: BTreeSet<&NodeId> = policy.voters.iter().collect();
    let count = policy.voters.len();
    if count > Policy::MAX_VOTERS || count.is_multiple_of(2) && count > 0 || voters.len() < count {
        return Err(SpecFault::BadVoters(count));
    }
    match policy.stop_isolated_after_ms {
        Some(ms) if ms > Policy::MAX_ISOLATED_MS => Err(SpecFault::BadIsolation(ms)),
        Some(_) | None => Ok(()),
    }
}

fn check_constraint(constraint: &Constraint) -> Result<(), SpecFault> {
    check_key(constraint.key())?;
    check_text("the value of a constraint", constraint.value())?;
    match constraint.fault() {
        Some((fault, fix)) => Err(SpecFault::BadConstraint { fault, fix }),
        None => Ok(()),
    }
}

fn check_key(key: &str) -> Result<(), SpecFault> {
    if !Constraint::is_known_key(key) {
        return Err(SpecFault::BadConstraintKey(key.chars().take(80).collect()));
    }
    check_text("a constraint", key)
}
