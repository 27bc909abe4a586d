//! Weeks of load on a service that people use during the day, and what scaling makes of it.
//!
//! One load is made up: `made-up.txt` holds what [`generate`] makes with its seed, the open
//! connections every five minutes. Working days have a steep morning, a dip at noon and an evening,
//! weekends are quieter, days differ from each other, and now and then many come at once.
//!
//! The other was recorded: `nasa-1995-07.csv` says where and by whom. A request of that time took a
//! connection of its own. It was one request in a second or two, so every count is taken a hundred
//! times.

use std::collections::{BTreeMap, VecDeque};

use dunlin_core::autoscale::{Scaler, Seen};
use dunlin_state::Now;
use dunlin_state::model::{Aim, Autoscale, Metric, Resources};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Seeds the load that is made up.
const SEED: u64 = 20_26;

/// Its days.
const DAYS: u64 = 21;

/// Days for learning, of which nothing is counted.
const LEARNING: u64 = 7;

/// Seconds between two values.
const EVERY: u64 = 300;

/// Seconds between two looks of the scaler, as the agent has it.
const LOOK: u64 = LOOK_STEP as u64;
const LOOK_STEP: usize = 5;

/// Seconds that what the scaler sees is old: half of what is averaged, and the way.
const DELAY: u64 = 10;

/// Seconds from a decision to a replica that serves.
const STARTS: u64 = 60;

/// A load, and what one replica shall have of it.
pub(crate) struct Load {
    /// What it is.
    pub(crate) name: &'static str,
    metric: Metric,
    /// Every five minutes, in units of the metric.
    values: Vec<u64>,
    /// What one replica shall have to do; a tenth more is tolerated, as the scaler has it.
    target: u64,
}

impl Load {
    /// What was made up.
    pub(crate) fn made_up() -> Self {
        let lines = include_str!("made-up.txt").lines();
        Self {
            name: "made up, 100 connections a replica",
            metric: Metric::Connections,
            values: lines.filter_map(|line| line.parse().ok()).collect(),
            target: 100,
        }
    }

    /// What was recorded, a hundred times.
    pub(crate) fn recorded() -> Self {
        let lines = include_str!("nasa-1995-07.csv").lines();
        let hours = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        let counts = hours.flat_map(|line| line.split(',').skip(2));
        // Thousandths of a connection a second.
        let rate = |count: u64| count * 100 * 1_000 / EVERY;
        let counts = counts.filter_map(|count| count.parse().ok());
        Self {
            name: "recorded, 20 new connections a second for a replica",
            metric: Metric::NewConnections,
            values: counts.map(rate).collect(),
            target: 20_000,
        }
    }

    /// Every five minutes, in units of the metric.
    #[allow(dead_code, reason = "for the test of what was made up")]
    pub(crate) fn values(&self) -> &[u64] {
        &self.values
    }

    fn days(&self) -> u64 {
        self.values.len() as u64 * EVERY / DAY
    }

    /// Days of which the outcome is counted.
    pub(crate) fn counted_days(&self) -> u64 {
        self.days() - LEARNING
    }

    /// Replicas with which nobody ever waits.
    pub(crate) fn enough(&self) -> u64 {
        let most = self.values.iter().max().copied();
        most.unwrap_or(0).div_ceil(self.target)
    }

    fn at(&self, second: u64) -> u64 {
        let index = usize::try_from(second / EVERY).unwrap_or(0);
        let from = self.values.get(index).copied().unwrap_or(0);
        let to = self.values.get(index + 1).copied().unwrap_or(from);
        let into = second % EVERY;
        (from * (EVERY - into) + to * into) / EVERY
    }
}

const DAY: u64 = 86_400;

/// What is compared: a name, and the length of the season in seconds.
pub(crate) const CASES: [(&str, Option<u64>); 3] = [
    ("reactive", None),
    ("forecast, season of a day", Some(DAY)),
    ("forecast, season of a week", Some(7 * DAY)),
];

/// Connections at each hour of a working day.
const HOURS: [i64; 25] = [
    260, 200, 170, 160, 170, 220, 420, 900, 2_100, 3_100, 3_400, 3_300, 2_700, 2_900, 3_300, 3_200,
    2_900, 2_300, 1_900, 2_000, 2_100, 1_700, 1_000, 500, 260,
];

/// Makes the load anew.
pub(crate) fn generate() -> Vec<u64> {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let (mut drift, mut rush, mut of_day) = (0_i64, 0_i64, 1_000_i64);
    let per_day = DAY / EVERY;
    let values = (0..DAYS * per_day).map(|n| {
        if n % per_day == 0 {
            of_day = rng.random_range(900..=1_100);
        }
        let (hour, into) = (n % per_day / 12, n % 12);
        let at = |hour: u64| HOURS[usize::try_from(hour).unwrap_or(0)];
        let into = i64::try_from(into).unwrap_or(0);
        let usual = at(hour) + (at(hour + 1) - at(hour)) * into / 12;
        let weekend = n / per_day % 7 >= 5;
        let usual = if weekend { usual * 2 / 5 } else { usual };
        drift = drift * 9 / 10 + rng.random_range(-25..=25);
        rush = rush * 3 / 4;
        if rng.random_range(0..400) == 0 {
            rush = 400;
        }
        let noise = rng.random_range(-15..=15);
        let permille = (1_000 + drift + rush + noise) * of_day / 1_000;
        u64::try_from(usual * permille / 1_000).unwrap_or(0)
    });
    values.collect()
}

/// What scaling has made of the load.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Ten-thousandths of the time in which replicas had more to do than their target and the tenth
    /// that is tolerated.
    pub(crate) under_permyriad: u64,
    /// The same in seconds.
    pub(crate) under_seconds: u64,
    /// The longest stretch of it.
    pub(crate) longest_seconds: u64,
    /// Seconds of replicas that were asked for.
    pub(crate) replica_seconds: u64,
    /// How often the number changed.
    pub(crate) changes: u64,
}

/// Scales by a load.
pub(crate) fn run(load: &Load, season: Option<u64>) -> Found {
    let policy = Autoscale {
        min: 2,
        max: 60,
        targets: BTreeMap::from([(load.metric, Aim::Each(load.target))]),
        season_ms: season.map(|s| s * 1_000),
        ..Autoscale::default()
    };
    let (mut scaler, mut found) = (Scaler::default(), Found::default());
    let (mut wanted, mut ready) = (2_u32, 2_u32);
    let mut starting: VecDeque<(u64, u32)> = VecDeque::new();
    let mut under = 0;
    for second in (0..load.days() * DAY).step_by(LOOK_STEP) {
        let seen = Seen {
            amounts: BTreeMap::from([(load.metric, load.at(second.saturating_sub(DELAY)))]),
            may_shrink: true,
            ..Seen::default()
        };
        let now = Now {
            mono: second * 1_000,
            wall: second * 1_000,
        };
        let wish = scaler.step(&policy, Resources::ZERO, &seen, wanted, now);
        if wish.replicas > wanted {
            starting.push_back((second + STARTS, wish.replicas));
        }
        let changed = wish.replicas != wanted;
        wanted = wish.replicas;
        while let Some((_, replicas)) = starting.pop_front_if(|(due, _)| *due <= second) {
            ready = ready.max(replicas);
        }
        ready = ready.min(wanted);
        if second < LEARNING * DAY {
            continue;
        }
        found.changes += u64::from(changed);
        found.replica_seconds += u64::from(wanted) * LOOK;
        under = match load.at(second) > u64::from(ready) * (load.target + load.target / 10) {
            true => under + LOOK,
            false => 0,
        };
        found.under_seconds += LOOK.min(under);
        found.longest_seconds = found.longest_seconds.max(under);
    }
    found.under_permyriad = found.under_seconds * 10_000 / (load.counted_days() * DAY);
    found
}
