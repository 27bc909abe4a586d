//! Three weeks of load on a service that people use during the day, and what scaling makes of it.
//!
//! The load is made up: `load.txt` holds what [`generate`] makes with its seed, the open
//! connections every five minutes. Working days have a steep morning, a dip at noon and an evening,
//! weekends are quieter, days differ from each other, and now and then many come at once.

use std::collections::{BTreeMap, VecDeque};

use dunlin_core::autoscale::{Scaler, Seen};
use dunlin_state::Now;
use dunlin_state::model::{Aim, Autoscale, Metric, Resources};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Seeds the load.
const SEED: u64 = 20_26;

/// Days of load, of which the first seven are for learning.
const DAYS: u64 = 21;
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

/// Connections that one replica shall have.
const TARGET: u64 = 100;

/// Connections above that which are no reason for another replica: a tenth, as the scaler has it.
const TOLERATED: u64 = TARGET / 10;

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

/// The recorded load.
pub(crate) fn recorded() -> Vec<u64> {
    let lines = include_str!("load.txt").lines();
    lines.filter_map(|line| line.parse().ok()).collect()
}

/// Replicas with which nobody ever waits.
pub(crate) fn enough_for_all() -> u64 {
    recorded().into_iter().max().unwrap_or(0).div_ceil(TARGET)
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

/// Scales by the recorded load.
pub(crate) fn run(season: Option<u64>) -> Found {
    let load = recorded();
    let policy = Autoscale {
        min: 2,
        max: 60,
        targets: BTreeMap::from([(Metric::Connections, Aim::Each(TARGET))]),
        season_ms: season.map(|s| s * 1_000),
        ..Autoscale::default()
    };
    let at = |second: u64| {
        let index = usize::try_from(second / EVERY).unwrap_or(0);
        let from = load.get(index).copied().unwrap_or(0);
        let to = load.get(index + 1).copied().unwrap_or(from);
        let into = second % EVERY;
        (from * (EVERY - into) + to * into) / EVERY
    };
    let (mut scaler, mut found) = (Scaler::default(), Found::default());
    let (mut wanted, mut ready) = (2_u32, 2_u32);
    let mut starting: VecDeque<(u64, u32)> = VecDeque::new();
    let mut under = 0;
    for second in (0..DAYS * DAY).step_by(LOOK_STEP) {
        let seen = Seen {
            amounts: BTreeMap::from([(Metric::Connections, at(second.saturating_sub(DELAY)))]),
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
        under = match at(second) > u64::from(ready) * (TARGET + TOLERATED) {
            true => under + LOOK,
            false => 0,
        };
        found.under_seconds += LOOK.min(under);
        found.longest_seconds = found.longest_seconds.max(under);
    }
    found.under_permyriad = found.under_seconds * 10_000 / ((DAYS - LEARNING) * DAY);
    found
}
