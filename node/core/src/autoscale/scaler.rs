//! What all nodes have told, turned into a number of replicas.
//!
//! The rules are those of Kubernetes' HorizontalPodAutoscaler ("Horizontal Pod Autoscaling",
//! algorithm details and stabilization window): what is measured is divided by the target of one
//! replica and rounded up; within a tenth nothing changes; of all that was recommended within the
//! window for going down, the highest counts, and within that for going up, the lowest. Where
//! something could not be measured, fewer are never recommended.

use std::collections::{BTreeMap, VecDeque};

use dunlin_state::Now;
use dunlin_state::model::{Autoscale, Metric, Resources, ScaleDecision, Season};

use super::forecast::Steps;

/// Thousandths by which load and target may differ without a change, as Kubernetes has it.
const TOLERANCE_PERMILLE: u64 = 100;

/// Thousandths of replicas that are counted at most.
const MOST_NEED: u64 = 100_000_000;

/// Thousandths of a replica that a forecast has to ask for before it keeps or wakes a service that
/// nobody connects to: less is the echo of other hours.
const WAKE_NEED: u64 = 500;

/// What is known of the load at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// What was measured on all nodes together.
    pub amounts: BTreeMap<Metric, u64>,
    /// Whether something is missing: a node that does not answer, or a replica that was not
    /// measured.
    pub missing: bool,
    /// Whether connections wait for a replica.
    pub waits: bool,
    /// Whether replicas may be taken away: not while a new specification is being rolled out.
    pub may_shrink: bool,
}

/// What should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// How many replicas.
    pub replicas: u32,
    /// Why, in words.
    pub reason: String,
}

/// How many replicas the load needs, and what says so.
struct Need {
    permille: u64,
    reason: String,
}

/// Follows the load of one service.
#[derive(Debug, Default)]
pub struct Scaler {
    /// What was recommended, as far as nothing higher came after it.
    peaks: VecDeque<(u64, u32)>,
    /// What was recommended, as far as nothing lower came after it.
    dips: VecDeque<(u64, u32)>,
    /// Since when nobody connects, in milliseconds of the monotonic clock.
    idle_since: Option<u64>,
    season: Option<Season>,
    /// The step that is being seen, the sum of what it needed, and how often that was looked at.
    step: Option<(u64, u64, u64)>,
}

impl Scaler {
    /// What was learned of the load, to be passed on.
    pub fn season(&self) -> Option<&Season> {
        self.season.as_ref()
    }

    /// Another node has learned more.
    pub fn adopt(&mut self, season: &Season) {
        let newer = |own: &Season| own.basis != season.basis || own.step < season.step;
        if self.season.as_ref().is_none_or(newer) {
            self.season = Some(season.clone());
        }
    }

    /// Whether nothing has been seen yet.
    pub fn is_new(&self) -> bool {
        self.peaks.is_empty()
    }

    /// Looks at the load. `current` is how many replicas there should be now.
    pub fn step(
        &mut self,
        policy: &Autoscale,
        reservation: Resources,
        seen: &Seen,
        current: u32,
        now: Now,
    ) -> Wish {
        let measured = need(policy, reservation, seen);
        let expected = self.season_needs(policy, reservation, &measured, seen, now.wall);
        let need = match &expected {
            Some(expected) if expected.permille > measured.permille => expected,
            Some(_) | None => &measured,
        };
        let mut recommended = recommend(need.permille, current);
        if seen.missing {
            recommended = recommended.max(current);
        }
        // Nothing below one: whether there is any at all is decided by connections.
        let recommended = recommended.clamp(policy.min.max(1), policy.max.max(1));
        self.remember(policy, recommended, current, now.mono);
        let ahead = expected.as_ref().is_some_and(|e| e.permille >= WAKE_NEED);
        if let Some(wish) = self.zero(policy, seen, current, recommended, ahead, now.mono) {
            return wish;
        }
        let wished = self.stabilised(current, seen.may_shrink && !seen.missing);
        let replicas = policy.clamp(wished);
        let enough = u64::from(replicas) * (1_000 + TOLERANCE_PERMILLE);
        let bound = match need.permille > enough && replicas == policy.max {
            true => "; there may be no more",
            false => "",
        };
        let mut reason = format!("{}{bound}", need.reason);
        reason.truncate(reason.floor_char_boundary(ScaleDecision::MAX_REASON));
        Wish { replicas, reason }
    }

    /// Whether there should be none, or the first again; `None` when the load decides.
    fn zero(
        &mut self,
        policy: &Autoscale,
        seen: &Seen,
        current: u32,
        recommended: u32,
        ahead: bool,
        now: u64,
    ) -> Option<Wish> {
        let after = policy.zero_after_ms()?;
        let of_proxies = seen.amounts.iter().filter(|(m, _)| m.is_of_proxies());
        let idle = !seen.waits && of_proxies.map(|(_, amount)| *amount).all(|a| a == 0);
        let since = match idle && !seen.missing && !ahead {
            true => Some(*self.idle_since.get_or_insert(now)),
            false => None,
        };
        self.idle_since = since;
        if current == 0 {
            let reason = match (seen.waits || !idle, ahead) {
                (true, _) => "a connection waits for it",
                (false, true) => "it was needed at this time before",
                (false, false) => {
                    let reason = "nobody connects".to_owned();
                    return Some(Wish {
                        replicas: 0,
                        reason,
                    });
                }
            };
            return Some(Wish {
                replicas: policy.clamp(recommended.max(1)),
                reason: reason.to_owned(),
            });
        }
        let over = since.is_some_and(|since| now >= since.saturating_add(after));
        (over && seen.may_shrink).then(|| Wish {
            replicas: 0,
            reason: format!("nobody has connected for {} s", after / 1_000),
        })
    }

    fn remember(&mut self, policy: &Autoscale, recommended: u32, current: u32, now: u64) {
        if self.is_new() {
            // What was there is taken to have been right: nobody knows what others saw before.
            self.peaks.push_back((now, current));
            self.dips.push_back((now, current));
        }
        let old = |at: u64, window: u64| at.saturating_add(window) < now;
        while self.peaks.back().is_some_and(|(_, r)| *r <= recommended) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, recommended));
        let down = policy.down_window_ms();
        while self.peaks.len() > 1 && self.peaks.front().is_some_and(|(at, _)| old(*at, down)) {
            self.peaks.pop_front();
        }
        while self.dips.back().is_some_and(|(_, r)| *r >= recommended) {
            self.dips.pop_back();
        }
        self.dips.push_back((now, recommended));
        let up = policy.up_window_ms;
        // A window of none looks at this moment only.
        let gone = |at: u64| old(at, up) || up == 0;
        while self.dips.len() > 1 && self.dips.front().is_some_and(|(at, _)| gone(*at)) {
            self.dips.pop_front();
        }
    }

    fn stabilised(&self, current: u32, may_shrink: bool) -> u32 {
        let lowest = self.dips.front().map_or(current, |(_, r)| *r);
        let highest = self.peaks.front().map_or(current, |(_, r)| *r);
        if lowest > current {
            lowest
        } else if highest < current && may_shrink {
            highest
        } else {
            current
        }
    }

    /// Learns what is needed, and says what will be soon.
    fn season_needs(
        &mut self,
        policy: &Autoscale,
        reservation: Resources,
        measured: &Need,
        seen: &Seen,
        wall: u64,
    ) -> Option<Need> {
        let Some(steps) = Steps::of(policy, basis(policy, reservation)) else {
            self.season = None;
            return None;
        };
        let step = steps.step(wall);
        // One of the future is of a clock that was wrong, or made up.
        let usable = |season: &Season| steps.fits(season) && season.step <= step.saturating_add(1);
        if !self.season.as_ref().is_some_and(usable) {
            self.season = Some(steps.new_season());
            self.step = None;
        }
        let season = self.season.as_mut()?;
        match &mut self.step {
            Some((at, sum, count)) if *at == step => {
                if !seen.missing {
                    *sum = sum.saturating_add(measured.permille);
                    *count += 1;
                }
            }
            before => {
                if let Some((at, sum, count)) = before.take()
                    && count > 0
                {
                    steps.learn(season, at, sum / count);
                }
                let first = u64::from(!seen.missing);
                *before = Some((step, measured.permille * first, first));
            }
        }
        let permille = steps.forecast(season, wall.saturating_add(steps.lead_ms()))?;
        let permille = permille.min(MOST_NEED);
        let reason = format!(
            "{}.{} replicas were needed at this time before",
            permille / 1_000,
            permille % 1_000 / 100
        );
        Some(Need { permille, reason })
    }
}

/// What need is counted in.
fn basis(policy: &Autoscale, reservation: Resources) -> u64 {
    let targets = policy.targets.keys();
    targets.fold(0, |basis: u64, metric| {
        let target = policy.target(*metric, reservation).unwrap_or(0);
        crate::hashing::mix(basis, target.wrapping_mul(4).wrapping_add(*metric as u64))
    })
}

/// How many replicas what was measured needs: the measure that asks for most decides.
fn need(policy: &Autoscale, reservation: Resources, seen: &Seen) -> Need {
    let mut most = Need {
        permille: 0,
        reason: "there is no load".to_owned(),
    };
    for metric in policy.targets.keys() {
        let amount = seen.amounts.get(metric).copied().unwrap_or(0);
        let Some(target) = policy.target(*metric, reservation) else {
            continue;
        };
        let permille = (amount.saturating_mul(1_000) / target).min(MOST_NEED);
        if permille > most.permille {
            let (all, each) = (metric.words(amount), metric.words(target));
            let reason = format!("{all}, with a target of {each} a replica");
            most = Need { permille, reason };
        }
    }
    most
}

fn recommend(permille: u64, current: u32) -> u32 {
    let held = u64::from(current) * 1_000;
    if permille.abs_diff(held) * 1_000 <= held * TOLERANCE_PERMILLE {
        return current;
    }
    u32::try_from(permille.div_ceil(1_000)).unwrap_or(u32::MAX)
}
