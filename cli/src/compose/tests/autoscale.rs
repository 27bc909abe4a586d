//! Services that follow their load.

use dunlin_state::model::{Aim, Autoscale, Metric};

use super::{bad, good};

fn file(autoscale: &str) -> String {
    format!(
        "services:\n  web:\n    image: web\n    ports: ['80']\n    x-dunlin:\n      autoscale: \
         {autoscale}\n"
    )
}

fn read(autoscale: &str) -> Autoscale {
    let project = good(&file(autoscale));
    let read = project.services[0].spec.autoscale.as_deref();
    read.expect("it follows its load").clone()
}

#[test]
fn bounds_targets_and_times_are_read() {
    let read = read(
        "{min: 0, max: 12, targets: {connections: 100, new_connections: 20, cpu: 0.5, memory: \
         200m}, up_window: 10s, down_window: 2m, zero_after: 1h, forecast: 1d}",
    );
    assert_eq!((read.min, read.max), (0, 12));
    let targets = [
        (Metric::Cpu, Aim::Each(500)),
        (Metric::Memory, Aim::Each(200 << 20)),
        (Metric::Connections, Aim::Each(100)),
        (Metric::NewConnections, Aim::Each(20_000)),
    ];
    assert_eq!(read.targets, targets.into());
    assert_eq!(
        (read.up_window_ms, read.down_window_ms()),
        (10_000, 120_000)
    );
    assert_eq!(read.zero_after_ms(), Some(3_600_000));
    assert_eq!(read.season_ms, Some(86_400_000));
}

#[test]
fn little_has_to_be_said() {
    let read = read("{max: 3, targets: {connections: 1}}");
    assert_eq!((read.min, read.max, read.up_window_ms), (1, 3, 0));
    assert_eq!(read.down_window_ms(), 300_000);
    assert_eq!((read.zero_after_ms(), read.season_ms), (None, None));
}

#[test]
fn a_share_is_of_what_is_reserved() {
    let text = "services:\n  web:\n    image: web\n    deploy: {resources: {reservations: {cpus: \
                '2'}}}\n    x-dunlin: {autoscale: {max: 3, targets: {cpu: 70%}}}\n";
    let project = good(text);
    let spec = &project.services[0].spec;
    let read = spec.autoscale.as_deref().expect("it follows its load");
    assert_eq!(read.target(Metric::Cpu, spec.reservation), Some(1_400));
    let shown = bad(&file("{max: 3, targets: {cpu: 70%}}"));
    assert!(shown.contains("nothing is reserved"), "{shown}");
    assert!(shown.contains(":6:"), "{shown}");
}

#[test]
fn what_makes_no_sense_is_told_with_its_place() {
    for (text, said) in [
        ("{targets: {connections: 1}}", "no maximum"),
        ("{max: 3}", "no target"),
        ("{max: 3, targets: {}}", "no target"),
        ("{max: 0, targets: {connections: 1}}", "1"),
        (
            "{min: 5, max: 3, targets: {connections: 1}}",
            "turn them round",
        ),
        ("{max: 3, targets: {requests: 5}}", "do not see requests"),
        ("{max: 3, targets: {connections: 0}}", "1"),
        ("{max: 3, targets: {conections: 5}}", "connections"),
        ("{max: 3, targets: {cpu: 0%}}", "not a share"),
        (
            "{max: 3, targets: {connections: 1}, zero_after: 5m}",
            "zero_after",
        ),
        (
            "{max: 3, targets: {connections: 1}, forecast: 5s}",
            "season",
        ),
        (
            "{max: 3, targets: {connections: 1}, down_window: 9d}",
            "longer than a day",
        ),
    ] {
        let shown = bad(&file(text));
        assert!(shown.contains(said), "{text}: {shown}");
        assert!(shown.contains(":6:"), "{text}: {shown}");
    }
}

#[test]
fn only_replicated_services_follow_their_load() {
    let with = |more: &str| {
        format!(
            "services:\n  web:\n    image: web\n    ports: ['80']\n    x-dunlin:\n      autoscale: \
             {{max: 3, targets: {{connections: 1}}}}\n{more}"
        )
    };
    let voter = "a".repeat(64);
    for (more, said) in [
        ("    deploy: {mode: global}\n".to_owned(), "global"),
        ("      job: {}\n".to_owned(), "jobs"),
        (
            format!("      singleton: {{voters: [{voter}]}}\n"),
            "singleton",
        ),
    ] {
        let shown = bad(&with(&more));
        assert!(shown.contains(said), "{more}: {shown}");
    }
    let host = "services:\n  web:\n    image: web\n    ports: [{target: 80, published: 80, mode: \
                host}]\n    x-dunlin: {autoscale: {max: 3, targets: {connections: 1}}}\n";
    let shown = bad(host);
    assert!(shown.contains("no port that the proxies serve"), "{shown}");
}
