//! What a load that repeats itself will be soon: additive Holt-Winters smoothing (Winters:
//! "Forecasting Sales by Exponentially Weighted Moving Averages", 1960, in the form of Hyndman and
//! Athanasopoulos: "Forecasting: Principles and Practice", 3rd edition, section 8.3).
//!
//! The state is a level, a trend and one number for each step of the season, so it fits into a
//! register and any node can go on with it. All of it is whole numbers, thousandths of replicas:
//! every node computes the same. The libraries that do this (`augurs`, `anofox-forecast`) fit their
//! parameters to the whole history in floating point, which would have to be kept and sent.

use dunlin_state::model::{Autoscale, Season};

/// Milliseconds of a step at most: load that changes within a quarter of an hour is for what is
/// measured to answer.
const LONGEST_STEP_MS: u64 = 900_000;

/// Milliseconds of a step at least: nodes look every five seconds.
const SHORTEST_STEP_MS: u64 = 10_000;

/// Steps that a season is cut into where the two bounds allow it: a quarter of an hour of a day.
const USUAL_STEPS: u64 = 96;

/// Thousandths by which the level follows what was seen: a day that is busier than others is
/// noticed within an hour.
const ALPHA: i64 = 200;

/// Thousandths by which the trend follows the level: growth over weeks, not the morning's.
const BETA: i64 = 5;

/// Thousandths by which the season follows what was seen: three days make a habit.
const GAMMA: i64 = 400;

/// Thousandths of replicas at most: ten times as many replicas as a service may have. Keeps sums of
/// made-up numbers within bounds.
const MOST: i64 = 100_000_000;

/// A season cut into steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Steps of one season.
    count: u64,
    /// Milliseconds of one.
    ms: u64,
    basis: u64,
}

impl Steps {
    /// Those of a policy; `None` when it asks for no forecast. `basis` identifies what need is
    /// counted in: what was learned under another one does not count.
    pub fn of(policy: &Autoscale, basis: u64) -> Option<Self> {
        let season = policy.season_ms?;
        let ms = (season / USUAL_STEPS).clamp(SHORTEST_STEP_MS, LONGEST_STEP_MS);
        let count = (season / ms).clamp(1, Season::MAX_STEPS as u64);
        Some(Self {
            count,
            ms: season / count,
            basis: basis ^ season.rotate_left(32),
        })
    }

    /// The step of a time since the Unix epoch.
    pub fn step(self, wall: u64) -> u64 {
        wall / self.ms
    }

    fn place(self, step: u64) -> usize {
        usize::try_from(step % self.count).unwrap_or(0)
    }

    fn len(self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// Whether something was learned in these steps.
    pub fn fits(self, season: &Season) -> bool {
        season.basis == self.basis && season.cycle.len() == self.len()
    }

    /// Nothing was learned yet.
    pub fn new_season(self) -> Season {
        Season {
            basis: self.basis,
            step: 0,
            learned: 0,
            level: 0,
            trend: 0,
            cycle: vec![0; self.len()],
        }
    }

    /// Learns what was needed in a step. Steps that nobody saw are left as they were.
    pub fn learn(self, season: &mut Season, step: u64, need: u64) {
        if step <= season.step && season.learned > 0 {
            return;
        }
        let need = i64::try_from(need).unwrap_or(MOST).min(MOST);
        let gap = step.saturating_sub(season.step);
        if u64::from(season.learned) < self.count {
            return self.learn_first(season, step, need, gap);
        }
        let place = self.place(step);
        let Some(habit) = season.cycle.get_mut(place) else {
            return;
        };
        // A register may say anything.
        let (before, trend) = (bound(season.level), bound(season.trend));
        let (usual, expected) = (bound(i64::from(*habit)), bound(before + trend));
        season.level = bound(mix(expected, bound(need - usual), ALPHA));
        season.trend = bound(mix(trend, season.level - before, BETA));
        *habit = narrow(mix(usual, bound(need - expected), GAMMA));
        season.step = step;
        season.learned = season.learned.saturating_add(1);
    }

    /// The first season is only written down; at its end the average becomes the level.
    fn learn_first(self, season: &mut Season, step: u64, need: i64, gap: u64) {
        if season.learned > 0 && gap >= self.count {
            *season = self.new_season();
        }
        // Those that nobody saw were probably like this one.
        let missed = match season.learned {
            0 => 0,
            _ => gap - 1,
        };
        for step in step.saturating_sub(missed)..=step {
            if let Some(habit) = season.cycle.get_mut(self.place(step)) {
                *habit = narrow(need);
            }
            season.learned = season.learned.saturating_add(1);
        }
        season.step = step;
        if u64::from(season.learned) >= self.count {
            let sum: i64 = season.cycle.iter().map(|need| i64::from(*need)).sum();
            season.level = sum / i64::try_from(self.count).unwrap_or(1);
            for habit in &mut season.cycle {
                *habit = narrow(i64::from(*habit) - season.level);
            }
        }
    }

    /// What will be needed at a time, in thousandths of replicas; `None` before a whole season was
    /// seen, and when the last that was seen is longer ago than a season.
    pub fn forecast(self, season: &Season, wall: u64) -> Option<u64> {
        let known = u64::from(season.learned) >= self.count && self.fits(season);
        // What was learned of a step is about its middle.
        let since_middle = wall.saturating_sub(self.ms / 2);
        let step = self.step(since_middle);
        let ahead = step.saturating_sub(season.step);
        if !known || ahead > self.count {
            return None;
        }
        let at = |step: u64, ahead: u64| {
            let habit = season.cycle.get(self.place(step)).copied();
            let ahead = i64::try_from(ahead).unwrap_or(0);
            let grown = season.trend.saturating_mul(ahead);
            bound(season.level) + bound(grown) + i64::from(habit.unwrap_or(0))
        };
        let (from, to) = (at(step, ahead), at(step + 1, ahead + 1));
        let into = i64::try_from(since_middle % self.ms).unwrap_or(0);
        let ms = i64::try_from(self.ms).unwrap_or(1).max(1);
        let need = from + bound(to - from).saturating_mul(into) / ms;
        Some(u64::try_from(need).unwrap_or(0))
    }

    /// Milliseconds for which it looks ahead: a third of a step, some minutes of a day, in which
    /// replicas are placed and become ready.
    pub fn lead_ms(self) -> u64 {
        self.ms / 3
    }
}

/// `permille` thousandths of the way from `old` to `new`.
fn mix(old: i64, new: i64, permille: i64) -> i64 {
    old + (new - old) * permille / 1_000
}

fn bound(need: i64) -> i64 {
    need.clamp(-MOST, MOST)
}

fn narrow(need: i64) -> i32 {
    i32::try_from(bound(need)).unwrap_or(0)
}
