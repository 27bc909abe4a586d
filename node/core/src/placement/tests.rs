use std::collections::{BTreeMap, BTreeSet};

use dunlin_state::model::{
    Availability, Constraint, ConstraintOp, Facts, HostPort, NodeId, PortSpec, Preference,
    Preferred, Protocol, PublishMode, Resources, RuntimeKind, ScoreWeights, ServiceKey,
    ServiceSpec, SpreadRule, Strategy as Spread,
};
use proptest::prelude::*;

use super::*;
use crate::liveness::Standing;

fn key(name: &str) -> ServiceKey {
    name.parse().unwrap()
}

fn node(index: u8) -> NodeView {
    NodeView {
        id: NodeId::from_bytes([index; 32]),
        name: format!("n{index}"),
        facts: Facts {
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: 4,
            memory: 8 << 30,
            kernel: "6.1.10-21-amd64".to_owned(),
            devices: BTreeMap::from([("kvm".to_owned(), 1)]),
            ..Facts::default()
        },
        labels: BTreeMap::from([("zone".to_owned(), "North".to_owned())]),
        capacity: Resources {
            cpu_millis: 4_000,
            memory: 4 << 30,
            disk: 10 << 30,
        },
        committed: Resources::ZERO,
        offered: Resources::ZERO,
        host_ports: BTreeSet::new(),
        services: BTreeMap::new(),
        repelled: BTreeMap::new(),
        availability: Availability::Active,
        maintenance: None,
        runtimes: vec!["process".to_owned(), "docker".to_owned()],
        disk_ok: true,
        standing: Standing::Alive,
    }
}

fn spec() -> ServiceSpec {
    ServiceSpec {
        command: vec!["serve".to_owned()],
        ..ServiceSpec::default()
    }
}

fn constrained(key: &str, op: ConstraintOp, value: &str) -> ServiceSpec {
    let mut spec = spec();
    spec.placement.constraints = vec![Constraint::new(key, op, value)];
    spec
}

fn fits(spec: &ServiceSpec, node: &NodeView) -> bool {
    matches!(judge(spec, &key("web"), node), Verdict::Fit { .. })
}

#[test]
fn constraints_compare_labels_and_facts() {
    use ConstraintOp::{AtLeast, Equal, Greater, In, Less, Matches, MatchesNot, NotEqual, NotIn};
    let id = NodeId::from_bytes([1; 32]).to_string();
    let table = [
        ("node.labels.zone", Equal, "north", true),
        ("node.labels.zone", Equal, "south", false),
        ("node.labels.zone", NotEqual, "south", true),
        ("node.labels.zone", NotEqual, "North", false),
        ("node.labels.Zone", Equal, "north", false),
        ("node.labels.ssd", Equal, "", false),
        ("node.labels.ssd", NotEqual, "yes", true),
        ("node.hostname", Equal, "n1", true),
        ("Node.Hostname", Equal, "N1", true),
        ("node.id", Equal, id.as_str(), true),
        ("node.platform.os", Equal, "linux", true),
        ("node.platform.arch", Equal, "amd64", true),
        ("node.platform.arch", Equal, "arm64", false),
        ("node.platform.arch", NotEqual, "amd64", false),
        ("node.favourite.colour", Equal, "red", false),
        ("node.favourite.colour", NotEqual, "red", true),
        ("node.kernel", AtLeast, "6.1.9", true),
        ("node.kernel", Less, "6.1.10", false),
        ("node.cpus", Greater, "3", true),
        ("node.cpus", Greater, "4", false),
        ("node.memory", AtLeast, "8g", true),
        ("node.memory", Greater, "8g", false),
        ("node.labels.zone", In, "east, north", true),
        ("node.labels.zone", NotIn, "east, north", false),
        ("node.hostname", Matches, "^n[0-9]$", true),
        ("node.hostname", MatchesNot, "1", false),
        ("node.devices.kvm", Equal, "1", true),
        ("node.devices.nvidia", AtLeast, "1", false),
        ("node.devices.nvidia", Equal, "0", true),
        ("node.engine", AtLeast, "20", false),
    ];
    for (name, op, value, expected) in table {
        let spec = constrained(name, op, value);
        assert_eq!(fits(&spec, &node(1)), expected, "{name} {op:?} {value}");
    }
}

#[test]
fn what_a_node_has_is_told_as_people_write_it() {
    let told = |text: &str| {
        let mut spec = spec();
        spec.placement.constraints = vec![text.parse().unwrap()];
        match judge(&spec, &key("web"), &node(1)) {
            Verdict::Refused(reasons) => reasons[0].to_string(),
            Verdict::Fit { .. } => panic!("{text} fits"),
        }
    };
    let cases = [
        ("node.memory >= 16g", "needs node.memory >= 16g, has 8 GiB"),
        (
            "node.kernel > 6.1.10",
            "needs node.kernel > 6.1.10, has '6.1.10-21-amd64'",
        ),
        (
            "node.labels.zone in (a,b)",
            "needs node.labels.zone in (a, b), has 'North'",
        ),
        (
            "node.labels.disk =~ ssd",
            "needs node.labels.disk =~ ssd, has none",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(told(text), expected);
    }
}

#[test]
fn runtimes_are_resolved_by_what_the_service_names_and_the_node_offers() {
    let with = |kind, image: &str, command: &[&str]| ServiceSpec {
        runtime: kind,
        image: image.to_owned(),
        command: command.iter().map(|c| (*c).to_owned()).collect(),
        ..ServiceSpec::default()
    };
    let both = ["process", "docker"].map(str::to_owned);
    let process = ["process".to_owned()];
    let docker = ["docker".to_owned()];
    let no = |name: &str| Err(Reason::Runtime(name.to_owned()));
    use RuntimeKind::{Auto, Docker, Process};
    let table = [
        (with(Auto, "nginx", &[]), &both[..], Ok(Docker)),
        (
            with(Auto, "nginx", &[]),
            &process[..],
            Err(Reason::NoCommand),
        ),
        (with(Auto, "nginx", &["x"]), &process[..], Ok(Process)),
        (with(Auto, "", &["x"]), &both[..], Ok(Process)),
        (with(Auto, "", &["x"]), &docker[..], no("process")),
        (with(Docker, "nginx", &[]), &process[..], no("docker")),
        (with(Docker, "nginx", &[]), &docker[..], Ok(Docker)),
        (with(Process, "nginx", &["x"]), &both[..], Ok(Process)),
        (
            with(Process, "nginx", &[]),
            &both[..],
            Err(Reason::NoCommand),
        ),
    ];
    for (spec, runtimes, expected) in table {
        assert_eq!(
            resolve_runtime(&spec, runtimes),
            expected,
            "{spec:?} {runtimes:?}"
        );
    }
}

#[test]
fn every_reason_is_told_with_a_way_out() {
    let mut spec = constrained("node.labels.zone", ConstraintOp::Equal, "south");
    spec.runtime = RuntimeKind::Docker;
    spec.reservation = Resources {
        cpu_millis: 2_000,
        memory: 3 << 30,
        disk: 20 << 30,
    };
    spec.ports = vec![PortSpec {
        target: 80,
        published: Some(8080),
        publish_mode: PublishMode::Host,
        ..PortSpec::default()
    }];
    spec.placement.max_per_node = Some(1);
    spec.placement.anti_affinity = vec![key("db")];
    let mut node = node(1);
    node.runtimes = vec!["process".to_owned()];
    node.committed.cpu_millis = 3_500;
    node.committed.memory = 2 << 30;
    node.host_ports.insert(HostPort {
        port: 8080,
        protocol: Protocol::Tcp,
    });
    node.services = BTreeMap::from([(key("web"), 1), (key("db"), 1)]);
    node.repelled = BTreeMap::from([(key("web"), key("hermit"))]);
    node.availability = Availability::Drained;
    node.disk_ok = false;
    node.standing = Standing::Suspect;
    let Verdict::Refused(reasons) = judge(&spec, &key("web"), &node) else {
        panic!("it fits");
    };
    let texts: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "misses its probes",
            "is drained",
            "its disk does not accept writes",
            "needs node.labels.zone == south, has 'North'",
            "does not offer the docker runtime",
            "already runs its maximum of 1 per node",
            "must not share a node with default/db",
            "must not share a node with default/hermit",
            "needs 2.0 CPUs, 0.5 of 4.0 free",
            "needs 3 GiB of memory, 2 GiB of 4 GiB free",
            "needs 20 GiB of disk, 10 GiB of 10 GiB free",
            "host port 8080/tcp is taken",
        ]
    );
    assert!(reasons.iter().all(|r| !r.fix().is_empty()));
    assert_eq!(
        reasons[8].fix(),
        "free 1.5 CPUs or lower deploy.resources.reservations.cpus"
    );
    assert_eq!(
        reasons[3].fix(),
        "set the label zone=south on the node or drop the constraint"
    );
}

#[test]
fn what_is_only_on_offer_is_a_passing_reason() {
    let mut spec = spec();
    spec.reservation.cpu_millis = 1_000;
    let mut node = node(1);
    node.offered.cpu_millis = 3_500;
    let verdict = judge(&spec, &key("web"), &node);
    assert_eq!(verdict, Verdict::Refused(vec![Reason::Busy]));
    assert!(Reason::Busy.is_passing());
}

#[test]
fn spreading_prefers_company_of_others_and_packing_the_fullest() {
    let score = |spec: &ServiceSpec, node: &NodeView| match judge(spec, &key("web"), node) {
        Verdict::Fit { score } => score,
        Verdict::Refused(reasons) => panic!("{reasons:?}"),
    };
    let empty = node(1);
    let mut busy = node(2);
    busy.committed.cpu_millis = 3_000;
    busy.services.insert(key("db"), 10);
    let mut same = node(3);
    same.services.insert(key("web"), 1);
    let spread = spec();
    assert!(score(&spread, &empty) > score(&spread, &busy));
    assert!(score(&spread, &busy) > score(&spread, &same));
    let mut pack = spec();
    pack.placement.strategy = Spread::Pack;
    assert!(score(&pack, &busy) > score(&pack, &empty));
}

fn scored(spec: &ServiceSpec, node: &NodeView) -> i64 {
    match judge(spec, &key("web"), node) {
        Verdict::Fit { score } => score,
        Verdict::Refused(reasons) => panic!("{reasons:?}"),
    }
}

#[test]
fn preferences_outweigh_load_by_their_weight_and_company_only_together() {
    let prefers = |of, weight| {
        let mut spec = spec();
        spec.placement.preferences = vec![Preference { of, weight }];
        spec
    };
    let empty = node(1);
    let mut half = node(2);
    half.committed.cpu_millis = 4_000;
    half.services.insert(key("cache"), 1);
    half.labels.insert("disk".to_owned(), "ssd".to_owned());
    let near = |weight| prefers(Preferred::Service(key("cache")), weight);
    let fast = Preferred::Constraint("node.labels.disk == ssd".parse().unwrap());
    for spec in [near(100), prefers(fast, 100)] {
        assert!(scored(&spec, &half) > scored(&spec, &empty));
    }
    // A third of the load is the CPU; a weight of 10 is less than that.
    assert!(scored(&near(10), &half) < scored(&near(10), &empty));
    assert!(scored(&near(-100), &half) < scored(&spec(), &half));
    half.services.insert(key("web"), 1);
    assert!(scored(&near(100), &half) < scored(&near(100), &empty));
    let mut twice = near(100);
    twice
        .placement
        .preferences
        .push(twice.placement.preferences[0].clone());
    twice
        .placement
        .preferences
        .push(twice.placement.preferences[0].clone());
    assert!(scored(&twice, &half) > scored(&twice, &empty));
}

#[test]
fn weights_say_what_load_is() {
    let mut cpu_full = node(1);
    cpu_full.committed.cpu_millis = 3_000;
    let mut memory_full = node(2);
    memory_full.committed.memory = 3 << 30;
    let mut spec = spec();
    spec.placement.weights = ScoreWeights {
        cpu: 5,
        memory: 1,
        disk: 0,
        replicas: 0,
    };
    assert!(scored(&spec, &memory_full) > scored(&spec, &cpu_full));
    spec.placement.weights = ScoreWeights {
        cpu: 1,
        memory: 5,
        disk: 0,
        replicas: 0,
    };
    assert!(scored(&spec, &memory_full) < scored(&spec, &cpu_full));
}

#[test]
fn random_placement_looks_at_no_load_and_draws_anew_for_each_replica() {
    let mut spec = spec();
    spec.placement.strategy = Spread::Random;
    let empty = node(1);
    let mut busy = node(1);
    busy.committed.cpu_millis = 3_000;
    busy.services.insert(key("db"), 10);
    assert_eq!(scored(&spec, &empty), scored(&spec, &busy));
    let mut wins = BTreeMap::new();
    for round in 0..300 {
        let nodes = (1..=3).map(|index| {
            let mut node = node(index);
            node.services.insert(key("web"), round);
            node
        });
        let best = nodes.max_by_key(|node| scored(&spec, node)).unwrap();
        *wins.entry(best.id).or_insert(0) += 1;
    }
    assert!(
        wins.len() == 3 && wins.values().all(|won| *won > 50),
        "{wins:?}"
    );
}

#[test]
fn affinity_needs_the_other_service_on_the_node() {
    let mut spec = spec();
    spec.placement.affinity = vec![key("db")];
    let mut node = node(1);
    let refused = Verdict::Refused(vec![Reason::Affinity(key("db"))]);
    assert_eq!(judge(&spec, &key("web"), &node), refused);
    node.services.insert(key("db"), 1);
    assert!(fits(&spec, &node));
}

#[test]
fn domains_count_by_value_and_hold_back_what_is_too_uneven() {
    let mut spec = spec();
    let rule = |key: &str, weight, max_skew| SpreadRule {
        key: key.to_owned(),
        weight,
        max_skew,
    };
    spec.placement.spread = vec![
        rule("node.labels.zone", 2, Some(1)),
        rule("node.hostname", 1, None),
    ];
    let placed = |index: u8, zone: &str, replicas| {
        let mut node = node(index);
        node.labels.insert("zone".to_owned(), zone.to_owned());
        (node, replicas)
    };
    let mut unlabelled = (node(4), 0);
    unlabelled.0.labels.clear();
    let mut nodes = vec![
        placed(1, "a", 1),
        placed(2, "a", 0),
        placed(3, "b", 0),
        unlabelled,
    ];
    let mut domains = Domains::of(&spec, &nodes);
    let id = |index: u8| NodeId::from_bytes([index; 32]);
    assert_eq!([1, 2, 3, 4].map(|n| domains.cost(id(n))), [3, 2, 0, 0]);
    assert!(matches!(
        domains.refusal(id(2)),
        Some(Reason::Skew {
            here: 1,
            fewest: 0,
            max: 1,
            ..
        })
    ));
    domains.place(id(3));
    // The nodes without the label count as one more value, and have none.
    assert!(domains.refusal(id(2)).is_some() && domains.refusal(id(4)).is_none());
    domains.place(id(4));
    assert_eq!(domains.refusal(id(2)), None);
    // A value none of whose nodes takes replicas holds nobody up.
    nodes[2].0.availability = Availability::Drained;
    nodes[3].0.availability = Availability::Cordoned;
    assert_eq!(Domains::of(&spec, &nodes).refusal(id(2)), None);
}

#[test]
fn marginal_scores_stop_where_the_room_ends() {
    let mut spec = spec();
    spec.reservation.cpu_millis = 1_500;
    let scores = marginal_scores(&spec, &key("web"), &node(1), 10).unwrap();
    assert_eq!(scores.len(), 2);
    assert!(scores[0] > scores[1]);
    spec.placement.max_per_node = Some(0);
    let refused = marginal_scores(&spec, &key("web"), &node(1), 10);
    assert_eq!(refused, Err(vec![Reason::MaxPerNode(0)]));
    // A host port is taken by the first replica.
    let mut spec = self::spec();
    spec.ports = vec![PortSpec {
        published: Some(80),
        publish_mode: PublishMode::Host,
        ..PortSpec::default()
    }];
    let scores = marginal_scores(&spec, &key("web"), &node(1), 10).unwrap();
    assert_eq!(scores.len(), 1);
}

proptest! {
    /// Whatever a node is asked for, what it offers fits; and one more would not.
    #[test]
    fn offers_fit(
        capacity in any::<(u64, u64, u64)>(),
        committed in any::<(u64, u64, u64)>(),
        need in (0..5_000u64, 0..1u64 << 34, 0..1u64 << 34),
        slots in 0..40u32,
    ) {
        let resources = |(cpu_millis, memory, disk)| Resources { cpu_millis, memory, disk };
        let mut node = node(1);
        node.capacity = resources(capacity);
        node.committed = resources(committed);
        let mut spec = spec();
        spec.reservation = resources(need);
        if let Ok(scores) = marginal_scores(&spec, &key("web"), &node, slots) {
            let mut total = Resources::ZERO;
            for _ in &scores {
                total = total.plus(spec.reservation);
            }
            let room = node.capacity.minus(node.committed);
            prop_assert!(total.fits_in(room));
            if scores.len() < slots as usize {
                prop_assert!(!total.plus(spec.reservation).fits_in(room));
            }
        }
    }
}
