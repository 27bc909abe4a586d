use std::collections::BTreeSet;

use dunlin_api::{Sample, parse_metrics};
use dunlin_lb::PortKey;
use dunlin_lb::balance::{Distance, Target, TargetView};
use dunlin_state::model::{NodeId, Protocol, Slot};

use super::*;

fn port(service: &str, tally: Tally) -> PortView {
    PortView {
        port: PortKey {
            service: service.parse().unwrap(),
            target: 80,
            protocol: Protocol::Tcp,
        },
        targets: Vec::new(),
        pending: 0,
        waits: false,
        now: 0,
        tally,
    }
}

fn target(n: u8, listed: bool, health: Health) -> TargetView {
    TargetView {
        target: Target {
            slot: Slot::Replica(n.into()),
            node: NodeId::from_bytes([n; 32]),
            epoch: 1,
            address: ([10, 0, 0, n], 80).into(),
        },
        listed,
        open: 0,
        latency: 0,
        health,
        distance: Distance::Far,
        weight: 1,
    }
}

fn value(samples: &[Sample], name: &str, label: (&str, &str)) -> f64 {
    let mut found = samples
        .iter()
        .filter(|s| s.name == name && s.labels.get(label.0).is_some_and(|l| l == label.1));
    let sample = found
        .next()
        .unwrap_or_else(|| panic!("no {name} {label:?}"));
    assert!(found.next().is_none(), "two of {name} {label:?}");
    sample.value
}

fn idle() -> Tally {
    Tally {
        latency: vec![0; LATENCY_BUCKETS.len() + 1],
        ..Tally::default()
    }
}

fn busy() -> PortView {
    let mut busy = port(
        "web",
        Tally {
            connections: 10,
            active: 2,
            received: 1 << 40,
            sent: 7,
            denied: 1,
            isolated: 5,
            limited: 2,
            overflowed: 3,
            unserved: 4,
            retries: 5,
            ejections: 6,
            broken: 1,
            idle: 2,
            cut: 3,
            dropped: 8,
            latency: vec![1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 4],
            latency_sum: 2_500_000,
        },
    );
    busy.pending = 9;
    let ejected = Health::Ejected {
        until: 1,
        failures: 1,
    };
    busy.targets = vec![
        target(0, true, Health::default()),
        target(1, true, ejected),
        target(2, true, Health::Probation { failures: 1 }),
        target(3, false, Health::default()),
    ];
    busy
}

#[test]
fn what_a_port_has_counted_can_be_read_back() {
    let mut text = Text::default();
    of_proxies(&mut text, &[busy(), port("shop/api", idle())]);
    let samples = parse_metrics(&text.finish()).unwrap();
    let web: Vec<Sample> = samples
        .iter()
        .filter(|s| s.labels["service"] == "web")
        .cloned()
        .collect();
    assert_eq!(web.len() * 2, samples.len(), "every port has every value");
    for sample in &samples {
        let names = ["namespace", "service", "port", "protocol"];
        assert!(
            names.iter().all(|n| sample.labels.contains_key(*n)),
            "{sample:?}"
        );
    }
    let all = ("protocol", "tcp");
    for (name, expected) in [
        ("dunlin_proxy_connections_total", 10.0),
        ("dunlin_proxy_received_bytes_total", (1_u64 << 40) as f64),
        ("dunlin_proxy_sent_bytes_total", 7.0),
        ("dunlin_proxy_retries_total", 5.0),
        ("dunlin_proxy_ejections_total", 6.0),
        ("dunlin_proxy_dropped_datagrams_total", 8.0),
        ("dunlin_proxy_connections_open", 2.0),
        ("dunlin_proxy_connections_waiting", 9.0),
        ("dunlin_proxy_connect_seconds_sum", 2.5),
        ("dunlin_proxy_connect_seconds_count", 7.0),
    ] {
        assert_eq!(value(&web, name, all), expected, "{name}");
    }
    for (reason, expected) in [
        ("denied", 1.0),
        ("isolated", 5.0),
        ("rate", 2.0),
        ("pending", 3.0),
        ("no_replica", 4.0),
    ] {
        let name = "dunlin_proxy_refused_total";
        assert_eq!(value(&web, name, ("reason", reason)), expected);
    }
    for (reason, expected) in [("broken", 1.0), ("idle", 2.0), ("drained", 3.0)] {
        let name = "dunlin_proxy_cut_total";
        assert_eq!(value(&web, name, ("reason", reason)), expected);
    }
    for (state, expected) in [("used", 1.0), ("ejected", 2.0), ("draining", 1.0)] {
        let name = "dunlin_proxy_replicas";
        assert_eq!(value(&web, name, ("state", state)), expected);
    }
    for (bound, expected) in [
        ("0.00025", 1.0),
        ("0.0005", 1.0),
        ("0.001", 3.0),
        ("1", 3.0),
        ("+Inf", 7.0),
    ] {
        let name = "dunlin_proxy_connect_seconds_bucket";
        assert_eq!(value(&web, name, ("le", bound)), expected, "{bound}");
    }
}

/// What Prometheus refuses: a family named twice, values outside of their family, two values with
/// the same labels.
#[test]
fn the_text_is_as_prometheus_wants_it() {
    let node = Node {
        version: "1 \"beta\"\\".to_owned(),
        uptime_s: 1.5,
        states: BTreeMap::from([("alive", 3), ("down", 0)]),
        services: 1,
        replicas: 2,
        ready: 1,
        connections: 2,
        health: 0,
        changes: 9,
        replication: Replication::default(),
    };
    let mut text = Text::default();
    of_daemon(&mut text, &node);
    of_replication(&mut text, &node);
    of_proxies(&mut text, &[busy(), port("shop/api", idle())]);
    of_hop(&mut text, &HopView::default());
    let text = text.finish();
    let (mut families, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut family = "";
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap();
            assert!(families.insert(family), "{family} stands twice");
        } else if !line.starts_with('#') {
            assert!(line.starts_with(family), "{line} is not of {family}");
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0), "{line}");
        }
    }
    let samples = parse_metrics(&text).unwrap();
    assert_eq!(samples.len(), seen.len());
    assert_eq!(value(&samples, "dunlin_nodes", ("state", "alive")), 3.0);
    assert_eq!(samples[0].labels["version"], node.version);
    for family in families {
        let is_counter = text.contains(&format!("# TYPE {family} counter"));
        assert_eq!(is_counter, family.ends_with("_total"), "{family}");
    }
}
