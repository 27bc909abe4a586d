//! Where replicas may and would better run.

use dunlin_state::model::{
    Constraint, NodeId, Preference, Preferred, ScoreWeights, SpreadRule, Strategy,
};

use super::faults::service as faulty;
use super::{good, service};

#[test]
fn constraints_are_on_what_the_cluster_knows() {
    for key in [
        "id",
        "hostname",
        "platform.os",
        "platform.arch",
        "kernel",
        "cpus",
        "memory",
        "disk",
        "engine",
        "distribution",
        "devices.kvm",
        "labels.a",
    ] {
        assert!(Constraint::is_known_key(&format!("node.{key}")), "{key}");
        service(&format!(
            "deploy: {{placement: {{constraints: [node.{key} == a]}}}}"
        ));
    }
}

#[test]
fn constraints_that_exclude_each_other_are_told() {
    let constraints = "[node.labels.zone in (a, b), node.cpus > 2, node.labels.zone == c]";
    let text = format!(
        "services:\n  a:\n    image: x\n    deploy: {{placement: {{constraints: {constraints}}}}}\n"
    );
    // In YAML's own brackets a value with a comma needs quotes.
    let quoted = text.replace("node.labels.zone in (a, b)", "'node.labels.zone in (a, b)'");
    let project = good(&quoted);
    assert_eq!(project.services[0].spec.placement.constraints.len(), 3);
    let warning = &project.warnings[0].text;
    let expected = "'node.labels.zone in (a, b)' and 'node.labels.zone == c' exclude each other: no \
                    node can meet them";
    assert_eq!(warning, expected);
}

#[test]
fn wishes_for_places_are_read() {
    let read = service(
        "\
deploy:
  placement:
    preferences: [{spread: node.labels.zone}, {spread: node.labels.rack}]
x-dunlin:
  strategy: random
  affinity: [db, other/cache, db]
  spread: [{key: node.hostname, weight: 7, max_skew: 2}]
  preferences:
    - {service: cache, weight: -30}
    - {constraint: 'node.devices.nvidia > 0', weight: 100}
    - {constraint: node.labels.disk == ssd}
  weights: {cpu: 3, memory: 0}",
    );
    let placement = &read.spec.placement;
    let rule = |key: &str, weight, max_skew| SpreadRule {
        key: key.to_owned(),
        weight,
        max_skew,
    };
    let mut spread = placement.spread.clone();
    spread.sort_by_key(|rule| rule.weight);
    let expected = [
        rule("node.hostname", 7, Some(2)),
        rule("node.labels.rack", 10, None),
        rule("node.labels.zone", 100, None),
    ];
    assert_eq!(spread, expected);
    assert_eq!(placement.strategy, Strategy::Random);
    let services: Vec<String> = placement.affinity.iter().map(ToString::to_string).collect();
    assert_eq!(services, ["default/db", "other/cache"]);
    let wish = |of, weight| Preference { of, weight };
    let on = |text: &str| Preferred::Constraint(text.parse().unwrap());
    let expected = [
        wish(Preferred::Service("cache".parse().unwrap()), -30),
        wish(on("node.devices.nvidia > 0"), 100),
        wish(on("node.labels.disk == ssd"), 50),
    ];
    assert_eq!(placement.preferences, expected);
    let weights = ScoreWeights {
        cpu: 3,
        memory: 0,
        ..ScoreWeights::default()
    };
    assert_eq!(placement.weights, weights);
}

#[test]
fn priority_and_isolation_are_read() {
    let policy = |text: &str| service(text).spec.policy.clone();
    let read = policy("x-dunlin: {priority: -7, on_isolation: stop-after 1m30s}");
    assert_eq!(
        (read.priority, read.stop_isolated_after_ms),
        (-7, Some(90_000))
    );
    let read = policy("x-dunlin: {on_isolation: keep}");
    assert_eq!((read.priority, read.stop_isolated_after_ms), (0, None));
    assert_eq!(read.rebalance, None);
    let read = policy("x-dunlin: {rebalance: false}");
    assert_eq!(read.rebalance, Some(false));
}

#[test]
fn the_voters_of_a_singleton_are_nodes() {
    let ids: Vec<NodeId> = (1..=3).map(|n| NodeId::from_bytes([n; 32])).collect();
    let listed = |ids: &[NodeId]| {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        format!("singleton: {{voters: [{}]}}", ids.join(", "))
    };
    let read = service(&format!("x-dunlin: {{{}}}", listed(&ids)));
    assert_eq!(read.spec.policy.voters, ids);
    assert!(read.spec.policy.is_strict());
    let own = |line: &str, place: &str, path: &str, words: &str| {
        let path = format!("services.web.x-dunlin.{path}");
        faulty(&format!("x-dunlin:\n  {line}"), &[(place, &path, words)]);
    };
    let two = listed(&ids[..2]);
    own(&two, "5:27", "singleton.voters", "no clear majority");
    let name = "singleton: {voters: [n1]}";
    own(name, "5:28", "singleton.voters[0]", "not the id of a node");
}

#[test]
fn constraints_that_make_no_sense() {
    let place = "services.web.deploy.placement.constraints[0]";
    let constraint = |text: &str, words: &str| {
        let lines = format!("deploy:\n  placement:\n    constraints:\n      - {text}");
        faulty(&lines, &[("7:13", place, words)]);
    };
    constraint("node.role == manager", "all nodes are equal");
    constraint("node.hostnme == a", "did you mean 'node.hostname'?");
    constraint("engine.labels.os == a", "node.labels.os");
    let at = |column: u32, text: &str, words: &str| {
        let lines = format!("deploy:\n  placement:\n    constraints:\n      - {text}");
        faulty(&lines, &[(&format!("7:{column}"), place, words)]);
    };
    // The place is that of the part which is wrong.
    at(26, "node.hostname", "compares nothing");
    at(27, "node.hostname ==", "no value to compare");
    at(27, "node.hostname is web", "'is' is not a comparison");
    at(31, "'node.hostname =~ we(b'", "unclosed group");
    at(26, "node.cpus >= many", "neither a number nor a version");
    at(33, "node.labels.zone in a, b", "in parentheses");
}

#[test]
fn wishes_that_make_no_sense() {
    let own = |line: &str, place: &str, path: &str, words: &str| {
        let path = format!("services.web.x-dunlin.{path}");
        faulty(&format!("x-dunlin:\n  {line}"), &[(place, &path, words)]);
    };
    own(
        "affinity: [web]",
        "5:18",
        "affinity[0]",
        "cannot name itself",
    );
    own("spread: [{weight: 2}]", "5:16", "spread[0]", "has no key");
    own(
        "spread: [{key: zone}]",
        "5:22",
        "spread[0].key",
        "nothing that nodes have",
    );
    own(
        "preferences: [{weight: 2}]",
        "5:21",
        "preferences[0]",
        "prefers nothing",
    );
    own(
        "priority: 1001",
        "5:17",
        "priority",
        "not a priority from -1000 to 1000",
    );
    own(
        "on_isolation: stop",
        "5:21",
        "on_isolation",
        "neither 'keep' nor 'stop-after'",
    );
    let path = "preferences[0].weight";
    own(
        "preferences: [{service: a, weight: 0}]",
        "5:42",
        path,
        "is not a weight",
    );
}
