//! What one node measures of a service, smoothed, and whether others have to hear of it.

use std::collections::{BTreeMap, VecDeque};

use dunlin_state::model::{Autoscale, Load, Metric, Resources};

/// Samples whose average is told: at three seconds each, as slow as Kubernetes' metrics (15 s), so
/// that one busy moment adds no replica.
const SAMPLES: usize = 4;

/// A change by less than this part of what was told last is not told.
const STEP: u64 = 10;

/// Nor is one by less than this part of what one replica shall have to do.
const STEP_OF_TARGET: u64 = 20;

/// The last samples of one service on this node.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    samples: VecDeque<Load>,
}

impl Meter {
    /// Takes a sample. Returns what is to be said of the load from now on: what was told before,
    /// unless it has changed by more than a step.
    pub(crate) fn take(
        &mut self,
        sample: Load,
        told: Option<&Load>,
        policy: &Autoscale,
        reservation: Resources,
    ) -> Load {
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        let smooth = self.smooth(policy);
        match told {
            Some(told) if is_near(told, &smooth, policy, reservation) => told.clone(),
            Some(_) | None => smooth,
        }
    }

    fn smooth(&self, policy: &Autoscale) -> Load {
        let count = self.samples.len().max(1) as u64;
        let average = |metric: Metric| {
            let amounts = self.samples.iter().map(|s| s.amounts.get(&metric).copied());
            let sum = amounts.flatten().fold(0, u64::saturating_add);
            // Rounded up: what is there is never nothing.
            (metric, sum.div_ceil(count))
        };
        let amounts = policy.measured().map(average);
        let latest = self.samples.back();
        Load {
            amounts: amounts.filter(|(_, amount)| *amount > 0).collect(),
            replicas: latest.map_or(0, |s| s.replicas),
            waits: latest.is_some_and(|s| s.waits),
        }
    }
}

fn is_near(told: &Load, new: &Load, policy: &Autoscale, reservation: Resources) -> bool {
    let of = |amounts: &BTreeMap<Metric, u64>, metric| amounts.get(&metric).copied().unwrap_or(0);
    let near = |metric: Metric| {
        let (old, new) = (of(&told.amounts, metric), of(&new.amounts, metric));
        let target = policy.target(metric, reservation).unwrap_or(0);
        let step = (old / STEP).max(target / STEP_OF_TARGET);
        (old == 0) == (new == 0) && old.abs_diff(new) <= step
    };
    (told.replicas, told.waits) == (new.replicas, new.waits) && policy.measured().all(near)
}
