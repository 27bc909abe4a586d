//! What is said of scaling ahead holds for the recorded load: docs/measurements.md has the figures.

#[path = "../examples/autoscaling/mod.rs"]
mod autoscaling;

use autoscaling::{CASES, enough_for_all, generate, recorded, run};

#[test]
fn the_recorded_load_is_what_its_seed_makes() {
    assert_eq!(generate(), recorded());
}

#[test]
fn a_forecast_has_replicas_ready_before_they_are_needed() {
    let [reactive, of_day, of_week] = CASES.map(|(_, season)| run(season));
    let always = enough_for_all() * 14 * 86_400;
    for forecast in [&of_day, &of_week] {
        assert!(forecast.under_seconds < reactive.under_seconds * 3 / 4);
        assert!(forecast.replica_seconds < reactive.replica_seconds * 6 / 5);
        assert!(forecast.replica_seconds < always * 3 / 4);
    }
}
