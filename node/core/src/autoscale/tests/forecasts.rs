//! What is learned of a load that repeats itself.

use dunlin_state::model::{Autoscale, Season};
use proptest::prelude::*;

use crate::autoscale::forecast::Steps;

const DAY: u64 = 86_400_000;
const QUARTER: u64 = 900_000;

fn steps(season_ms: u64) -> Steps {
    let policy = Autoscale {
        season_ms: Some(season_ms),
        ..Autoscale::default()
    };
    Steps::of(&policy, 1).expect("a season")
}

/// A day with a busy middle, in thousandths of replicas.
fn of_day(step: u64) -> u64 {
    let hour = step / 4 % 24;
    2_000 + 1_000 * hour.min(24 - hour)
}

fn learned(days: u64) -> (Steps, Season) {
    let steps = steps(DAY);
    let mut season = steps.new_season();
    for step in 1_000..1_000 + days * 96 {
        steps.learn(&mut season, step, of_day(step));
    }
    (steps, season)
}

#[test]
fn knows_a_day_after_one() {
    let (steps, season) = learned(1);
    for ahead in 0..96 {
        let step = 1_096 + ahead;
        let middle = step * QUARTER + QUARTER / 2;
        let expected = of_day(step);
        let found = steps
            .forecast(&season, middle)
            .expect("a whole day was seen");
        assert!(found.abs_diff(expected) <= 5, "{found} for {expected}");
    }
}

#[test]
fn says_nothing_before_a_whole_season_and_long_after_the_last() {
    let steps = steps(DAY);
    let mut season = steps.new_season();
    for step in 0..95 {
        steps.learn(&mut season, step, 1_000);
        assert_eq!(steps.forecast(&season, step * QUARTER), None);
    }
    let (steps, season) = learned(2);
    assert!(steps.forecast(&season, (1_192 + 90) * QUARTER).is_some());
    assert_eq!(steps.forecast(&season, (1_192 + 100) * QUARTER), None);
}

#[test]
fn follows_a_load_that_grows() {
    let steps = steps(DAY);
    let mut season = steps.new_season();
    for step in 0..96 * 14 {
        steps.learn(&mut season, step, of_day(step) + step);
    }
    let step = 96 * 14 + 40;
    let found = steps.forecast(&season, step * QUARTER + QUARTER / 2);
    let expected = of_day(step) + step;
    let found = found.expect("two weeks were seen");
    assert!(
        found.abs_diff(expected) < expected / 20,
        "{found} for {expected}"
    );
}

#[test]
fn another_season_or_target_begins_anew() {
    let (_, season) = learned(2);
    assert!(steps(DAY).fits(&season));
    assert!(!steps(DAY / 2).fits(&season));
    let policy = Autoscale {
        season_ms: Some(DAY),
        ..Autoscale::default()
    };
    assert!(!Steps::of(&policy, 2).expect("a season").fits(&season));
}

proptest! {
    /// Whatever a register says, nothing overflows, and what comes out can be sent.
    #[test]
    fn made_up_seasons_do_no_harm(
        season_ms in Autoscale::MIN_SEASON_MS..=Autoscale::MAX_SEASON_MS,
        level: i64,
        trend: i64,
        learned: u32,
        step: u64,
        habit: i32,
        looks in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20),
    ) {
        let steps = steps(season_ms);
        let mut season = steps.new_season();
        prop_assert!(season.cycle.len() <= Season::MAX_STEPS);
        (season.level, season.trend, season.learned, season.step) = (level, trend, learned, step);
        season.cycle.fill(habit);
        for (at, need) in looks {
            let _unless_it_panics = steps.forecast(&season, at);
            steps.learn(&mut season, steps.step(at), need);
        }
    }

    /// Nodes that were told the same know the same.
    #[test]
    fn gaps_are_bridged_alike(needs in prop::collection::vec((1_u64..9, 0_u64..9_000), 0..400)) {
        let steps = steps(DAY);
        let (mut a, mut b) = (steps.new_season(), steps.new_season());
        let mut step = 5_000;
        for (gap, need) in needs {
            step += gap;
            steps.learn(&mut a, step, need);
            steps.learn(&mut b, step, need);
            steps.learn(&mut b, step, need + 1);
        }
        prop_assert_eq!(&a, &b);
        let most = steps.forecast(&a, step * QUARTER + QUARTER).unwrap_or(0);
        prop_assert!(most <= 40_000, "{most}");
    }
}
