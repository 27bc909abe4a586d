//! Files as people write them.

use super::good;

/// Name and text.
pub(super) const FILES: &[(&str, &str)] = &[
    ("blog", include_str!("real/blog.yaml")),
    ("shop", include_str!("real/shop.yaml")),
    ("metrics", include_str!("real/metrics.yaml")),
    ("edge", include_str!("real/edge.yaml")),
    ("swarm", include_str!("real/swarm.yaml")),
    (
        "hello",
        include_str!("../../../../examples/hello/compose.yaml"),
    ),
    (
        "docker",
        include_str!("../../../../examples/docker/compose.yaml"),
    ),
];

fn text(name: &str) -> &'static str {
    let file = FILES.iter().find(|(n, _)| *n == name);
    file.map(|(_, text)| *text).expect("a file of that name")
}

#[test]
fn all_can_be_deployed() {
    for (name, text) in FILES {
        let project = good(text);
        assert!(!project.services.is_empty(), "{name}");
    }
}

#[test]
fn a_blog() {
    let project = good(text("blog"));
    assert_eq!(project.services.len(), 2);
    assert_eq!(project.services[1].spec.volumes[0].source, "blog_content");
    let ignored: Vec<&str> = project.warnings.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(ignored, [] as [&str; 0]);
    let networks = &project.services[1].spec.networks;
    assert_eq!(
        networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["front"]
    );
}

#[test]
fn a_swarm_stack() {
    let project = good(text("swarm"));
    let api = project
        .services
        .iter()
        .find(|s| s.key.name() == "api")
        .expect("api");
    assert_eq!(api.replicas, Some(6));
    assert_eq!(api.spec.update.parallelism, 2);
    assert_eq!(api.spec.placement.constraints.len(), 1);
}

#[test]
fn udp_ports_and_traffic_keys_are_honoured() {
    let text = "services:
  dns:
    image: coredns
    ports: ['53:53/udp']
    x-dunlin:
      balance: source-hash
      prefer: zone
      max_connections: 100
      max_pending: 10
      rate_limit: 20/s:40
      allow: [10.0.0.0/8, 'fd00::/8']
      deny: [10.6.6.6]
      proxy_protocol: v2
      split: {service: canary, percent: 5}
      connect_timeout: 2s
      idle_timeout: 5m
      drain: 30s
";
    let read = good(text);
    assert_eq!(read.warnings, []);
    let traffic = &read.services[0].spec.traffic;
    let json = serde_json::to_value(traffic).unwrap();
    let expected = serde_json::json!({
        "balance": "source-hash", "prefer": "zone",
        "max_connections": 100, "max_pending": 10,
        "rate_limit": {"per_second": 20, "burst": 40},
        "allow": ["10.0.0.0/8", "fd00::/8"], "deny": ["10.6.6.6/32"],
        "proxy_protocol": "v2", "split": {"service": "default/canary", "percent": 5},
        "connect_timeout_ms": 2_000, "idle_timeout_ms": 300_000, "drain_ms": 30_000,
    });
    assert_eq!(json, expected);
}

#[test]
fn the_examples_give_no_warning() {
    for name in ["hello", "docker"] {
        assert_eq!(good(text(name)).warnings, [], "{name}");
    }
    let hello = good(text("hello"));
    assert_eq!(hello.services[0].replicas, Some(3));
    assert_eq!(hello.services[0].spec.ports[0].target, 80);
}
