//! That docs/benchmarks.md and its plots are made from the samples beside them, and from nothing else.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dunlin_tests::bench::page;
use dunlin_tests::bench::results::Results;

#[test]
fn the_page_and_its_plots_are_made_from_the_samples() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let results = Results::load(&docs.join("benchmarks/results.json")).unwrap();
    let made = page::files(&results).unwrap();
    for (name, text) in &made {
        let there = fs::read_to_string(docs.join(name)).unwrap();
        assert!(there == *text, "{name} is stale: run scripts/bench --page");
    }
    let plots = fs::read_dir(docs.join("benchmarks")).unwrap();
    let plots: BTreeSet<String> = plots
        .map(|entry| format!("benchmarks/{}", entry.unwrap().file_name().display()))
        .filter(|name| name.ends_with(".svg"))
        .collect();
    let wanted: BTreeSet<String> = made
        .into_keys()
        .filter(|name| name.ends_with(".svg"))
        .collect();
    assert_eq!(plots, wanted, "a plot of nothing is left over");
}
