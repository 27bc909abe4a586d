//! Constraints that no node can meet together.
//!
//! Only constraints on one key can exclude each other. Where one of them names the values that it
//! accepts, each of these is tried with all the others. Where none does, an upper bound may lie
//! below a lower one. Two patterns may exclude each other as well; that is not looked for.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::{Constraint, ConstraintOp};

/// The first constraints that exclude each other whatever a node is like, as few as show it.
pub fn contradiction(constraints: &[Constraint]) -> Option<Vec<&Constraint>> {
    let mut by_key: BTreeMap<&str, Vec<&Constraint>> = BTreeMap::new();
    for constraint in constraints {
        by_key.entry(&constraint.key).or_default().push(constraint);
    }
    by_key.into_values().find_map(|group| {
        let pairs = group.iter().enumerate().flat_map(|(index, first)| {
            let later = group.iter().skip(index + 1);
            later.map(move |second| [*first, *second])
        });
        let mut pairs = pairs.filter(|pair| excludes(pair));
        let pair = pairs.next().map(|pair| pair.to_vec());
        pair.or_else(|| excludes(&group).then_some(group))
    })
}

/// Whether no value meets all of these, which are about one key.
fn excludes(group: &[&Constraint]) -> bool {
    let all = |value: &str| group.iter().all(|c| c.holds(Some(value)));
    let naming = group.iter().find(|c| match c.op {
        ConstraintOp::Equal | ConstraintOp::In => true,
        ConstraintOp::NotEqual
        | ConstraintOp::NotIn
        | ConstraintOp::Matches
        | ConstraintOp::MatchesNot
        | ConstraintOp::Less
        | ConstraintOp::AtMost
        | ConstraintOp::Greater
        | ConstraintOp::AtLeast => false,
    });
    if let Some(naming) = naming {
        return !naming.values().any(all);
    }
    let lower = group.iter().filter_map(|c| bound(c, true));
    lower.into_iter().any(|(low, low_open)| {
        let mut upper = group.iter().filter_map(|c| bound(c, false));
        upper.any(
            |(high, high_open)| match low.order(&low.value, &high.value) {
                Some(Ordering::Greater) => true,
                Some(Ordering::Equal) => low_open || high_open,
                Some(Ordering::Less) | None => false,
            },
        )
    })
}

/// A lower or upper bound, and whether it is itself excluded.
fn bound<'a>(constraint: &&'a Constraint, lower: bool) -> Option<(&'a Constraint, bool)> {
    match (constraint.op, lower) {
        (ConstraintOp::Greater, true) | (ConstraintOp::Less, false) => Some((constraint, true)),
        (ConstraintOp::AtLeast, true) | (ConstraintOp::AtMost, false) => Some((constraint, false)),
        _ => None,
    }
}
