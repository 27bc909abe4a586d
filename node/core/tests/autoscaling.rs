//! What is said of scaling ahead holds for both loads: docs/measurements.md has the figures.

#[path = "../examples/autoscaling/mod.rs"]
mod autoscaling;

use autoscaling::{CASES, Load, generate, run};

#[test]
fn the_load_that_is_made_up_is_what_its_seed_makes() {
    assert_eq!(generate(), Load::made_up().values());
}

#[test]
fn a_forecast_has_replicas_ready_before_they_are_needed() {
    for load in [Load::made_up(), Load::recorded()] {
        let [reactive, of_day, of_week] = CASES.map(|(_, season)| run(&load, season));
        let always = load.enough() * load.counted_days() * 86_400;
        for forecast in [&of_day, &of_week] {
            let (ahead, behind) = (forecast.under_seconds, reactive.under_seconds);
            assert!(
                ahead < behind * 9 / 10,
                "{}: {ahead} of {behind}",
                load.name
            );
            assert!(forecast.replica_seconds < reactive.replica_seconds * 6 / 5);
            assert!(forecast.replica_seconds < always * 3 / 4);
        }
    }
}
