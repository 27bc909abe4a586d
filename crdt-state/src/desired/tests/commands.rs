use super::*;
use crate::model::{
    Availability, HealthCheck, HealthTest, Mode, PublishMode, Rebalancing, RuntimeKind, VolumeMount,
};

fn rejected(document: &mut Document, commands: &[Command]) -> Rejection {
    let before = (document.fingerprint(), document.snapshot());
    let rejection = document.propose(commands, "ada", at(1)).unwrap_err();
    assert_eq!((document.fingerprint(), document.snapshot()), before);
    rejection
}

#[test]
fn a_deployed_service_has_one_running_replica_unless_told_otherwise() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("nginx:1")), 1);
    let web = service(&document, "web").unwrap();
    assert_eq!((web.replicas, web.running), (1, true));
    assert_eq!(web.spec.image, "nginx:1");
    assert_eq!(web.revision.len(), 16);
}

#[test]
fn applying_the_same_again_writes_nothing() {
    let mut document = Document::new(actor(1));
    let commands = [
        deploy("web", publishing("nginx", 80)),
        scale("web", 3),
        Command::SetLabels {
            node: node(1),
            labels: [("zone".to_owned(), "north".to_owned())].into(),
        },
        Command::SetAvailability {
            node: node(1),
            availability: Availability::Drained,
        },
    ];
    assert!(document.propose(&commands, "ada", at(1)).unwrap().is_some());
    let before = document.fingerprint();
    assert_eq!(document.propose(&commands, "bob", at(2)).unwrap(), None);
    assert_eq!(document.fingerprint(), before);
}

#[test]
fn only_the_aspects_that_differ_are_written() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("nginx:1")), 1);
    write(&mut document, scale("web", 5), 2);
    write(&mut document, stop("web"), 3);
    let old = service(&document, "web").unwrap();
    write(&mut document, deploy("web", spec("nginx:2")), 4);
    let web = service(&document, "web").unwrap();
    assert_eq!(
        (web.replicas, web.running),
        (5, false),
        "scale and stop are kept"
    );
    assert_ne!(web.revision, old.revision);
    let newest: Vec<_> = document.history(&key("web")).into_iter().take(1).collect();
    assert_eq!(newest[0].aspect, Aspect::Image);
    assert_eq!(newest[0].summary, "image nginx:2");
}

#[test]
fn a_removed_service_keeps_its_history_and_comes_back_anew() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("nginx:1")), 1);
    write(&mut document, scale("web", 5), 2);
    write(&mut document, remove("web"), 3);
    assert_eq!(service(&document, "web"), None);
    let history = document.history(&key("web"));
    assert_eq!(history.len(), 4 + 1 + 4);
    assert_eq!(history[0].summary, "removed");
    assert!(matches!(
        rejected(&mut document, &[scale("web", 2)]),
        Rejection::NoSuchService { .. }
    ));
    write(&mut document, deploy("web", spec("nginx:2")), 4);
    let web = service(&document, "web").unwrap();
    assert_eq!((web.replicas, web.spec.image.as_str()), (1, "nginx:2"));
    assert!(document.conflicts().is_empty());
    assert_reads_the_same_from_disk(&document);
}

#[test]
fn all_commands_or_none() {
    let mut document = Document::new(actor(1));
    rejected(
        &mut document,
        &[deploy("web", spec("nginx")), scale("db", 2)],
    );
    assert_eq!(service(&document, "web"), None);
    let both = [deploy("web", spec("nginx")), scale("web", 2)];
    document.propose(&both, "ada", at(1)).unwrap();
    assert_eq!(service(&document, "web").unwrap().replicas, 2);
    assert_eq!(document.change_count(), 2, "genesis and one change");
}

#[test]
fn unknown_services_are_answered_with_similar_names() {
    let mut document = Document::new(actor(1));
    for name in ["web", "shop/web", "database"] {
        write(&mut document, deploy(name, spec("x")), 1);
    }
    let text = rejected(&mut document, &[scale("wbe", 2)]).to_string();
    assert_eq!(
        text,
        "no service is named 'default/wbe'; did you mean 'default/web' or 'shop/web'?"
    );
    let text = rejected(&mut document, &[remove("cache")]).to_string();
    assert!(text.contains("dunlin ls"), "{text}");
}

#[test]
fn a_published_port_belongs_to_one_service() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", publishing("nginx", 8080)), 1);
    let rejection = rejected(&mut document, &[deploy("shop", publishing("nginx", 8080))]);
    assert!(
        rejection.to_string().contains("'default/web' already does"),
        "{rejection}"
    );
    // Its holder may be deployed again, and the port is free once it is gone.
    write(&mut document, deploy("web", publishing("nginx:2", 8080)), 2);
    let swap = [remove("web"), deploy("shop", publishing("nginx", 8080))];
    assert!(document.propose(&swap, "ada", at(3)).unwrap().is_some());
}

#[test]
fn host_ports_are_left_to_placement() {
    let host = |image: &str| {
        let mut spec = publishing(image, 9000);
        spec.ports[0].publish_mode = PublishMode::Host;
        spec
    };
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("a", host("x")), 1);
    write(&mut document, deploy("b", host("y")), 2);
    let rejection = rejected(&mut document, &[deploy("c", publishing("z", 9000))]);
    assert!(matches!(rejection, Rejection::PortTaken { port: 9000, .. }));
}

#[test]
fn all_addresses_written_differently_clash_all_the_same() {
    let on = |ip: Option<&str>| {
        let mut spec = publishing("x", 9000);
        spec.ports[0].host_ip = ip.map(str::to_owned);
        spec
    };
    for (first, second, clash) in [
        (Some("0.0.0.0"), Some("127.0.0.1"), true),
        (Some("::"), None, true),
        (Some("127.0.0.1"), Some("127.0.0.1"), true),
        (Some("127.0.0.1"), Some("127.0.0.2"), false),
    ] {
        let mut document = Document::new(actor(1));
        write(&mut document, deploy("a", on(first)), 1);
        let second_one = document.propose(&[deploy("b", on(second))], "ada", at(2));
        match (clash, second_one) {
            (true, Err(Rejection::PortTaken { holder, .. })) => assert_eq!(holder, key("a")),
            (false, Ok(Some(_))) => {}
            (_, other) => panic!("{first:?} {second:?}: {other:?}"),
        }
    }
}

#[test]
fn daemon_services_cannot_be_scaled() {
    let mut document = Document::new(actor(1));
    let daemon = ServiceSpec {
        mode: Mode::Global,
        ..spec("agent")
    };
    write(&mut document, deploy("agent", daemon), 1);
    let rejection = rejected(&mut document, &[scale("agent", 3)]);
    assert_eq!(rejection, Rejection::GlobalHasNoScale(key("agent")));
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("nginx")), 1);
    let too_many = rejected(&mut document, &[scale("web", MAX_REPLICAS + 1)]);
    assert!(matches!(too_many, Rejection::TooManyReplicas { .. }));
    let commands = vec![scale("web", 1); MAX_COMMANDS + 1];
    let too_many = rejected(&mut document, &commands);
    assert!(matches!(too_many, Rejection::TooManyCommands { .. }));
    let huge = ServiceSpec {
        command: vec!["x".repeat(MAX_REGISTER_BYTES)],
        ..spec("nginx")
    };
    let too_large = rejected(&mut document, &[deploy("huge", huge)]);
    assert!(
        matches!(too_large, Rejection::ValueTooLarge { .. }),
        "{too_large}"
    );
    let big = ServiceSpec {
        command: vec!["x".repeat(MAX_REGISTER_BYTES / 2)],
        ..spec("nginx")
    };
    let many: Vec<_> = (0..40)
        .map(|n| deploy(&format!("s{n}"), big.clone()))
        .collect();
    let too_large = rejected(&mut document, &many);
    assert!(
        matches!(too_large, Rejection::ChangeTooLarge { .. }),
        "{too_large}"
    );
}

/// Breaks a specification in one way.
type Break = fn(&mut ServiceSpec);

fn port(target: u16, published: Option<u16>) -> PortSpec {
    PortSpec {
        target,
        published,
        ..PortSpec::default()
    }
}

fn assert_named(cases: &[(Break, &str)]) {
    let mut document = Document::new(actor(1));
    for (change, expected) in cases {
        let mut spec = spec("nginx");
        change(&mut spec);
        let text = rejected(&mut document, &[deploy("web", spec)]).to_string();
        assert!(text.starts_with("service 'default/web': "), "{text}");
        assert!(
            text.contains(expected),
            "'{text}' does not say '{expected}'"
        );
    }
}

#[test]
fn faults_of_program_and_ports_are_named() {
    assert_named(&[
        (|s| s.image.clear(), "nothing to run"),
        (|s| s.runtime = RuntimeKind::Process, "needs a command"),
        (|s| s.image = "a b".to_owned(), "forbidden character"),
        (|s| s.image = "x".repeat(2000), "too long"),
        (
            |s| drop(s.environment.insert("A=B".to_owned(), String::new())),
            "cannot name",
        ),
        (
            |s| drop(s.environment.insert("A".to_owned(), "x".repeat(50_000))),
            "environment takes",
        ),
        (|s| s.ports = vec![port(0, None)], "port 0"),
        (|s| s.ports = vec![port(80, Some(0))], "port 0"),
        (
            |s| s.ports = vec![port(80, None); 2],
            "port 80/tcp is listed twice",
        ),
        (
            |s| s.ports = vec![port(80, Some(9)), port(81, Some(9))],
            "port 9/tcp is published twice",
        ),
        (
            |s| {
                s.ports = vec![port(80, Some(80))];
                s.ports[0].host_ip = Some("nowhere".to_owned());
            },
            "not an IP address",
        ),
    ]);
}

#[test]
fn faults_of_placement_and_life_are_named() {
    assert_named(&[
        (
            |s| {
                s.reservation.memory = 2;
                s.limit.memory = 1;
            },
            "limit of memory (1) is below its reservation (2)",
        ),
        (
            |s| s.placement.constraints = vec!["node.role == manager".parse().unwrap()],
            "'node.role' is nothing to put a constraint on",
        ),
        (|s| s.placement.max_per_node = Some(0), "replicas per node"),
        (|s| s.update.parallelism = 0, "parallelism"),
        (
            |s| {
                s.volumes = vec![VolumeMount {
                    source: "data".to_owned(),
                    target: "relative".to_owned(),
                    ..VolumeMount::default()
                }];
            },
            "absolute path",
        ),
        (
            |s| {
                s.health = Some(HealthCheck {
                    test: HealthTest::Exec(Vec::new()),
                    ..HealthCheck::default()
                });
            },
            "health check",
        ),
        (
            |s| s.stop_signal = Some("kill it".to_owned()),
            "name of a signal",
        ),
        (|s| s.stop_grace_ms = Some(u64::MAX), "too long"),
    ]);
}

#[test]
fn the_largest_proposals_make_changes_that_peers_take() {
    // Many small registers, and few large ones, each as many as are accepted.
    for (size, step) in [(0, 80), (50_000, 1)] {
        let mut document = Document::new(actor(1));
        let mut peer = Document::new(actor(2));
        let mut largest = 0;
        for round in 1.. {
            let big = ServiceSpec {
                command: vec!["x".repeat(size)],
                ..spec("x")
            };
            let count = round * step;
            let commands: Vec<_> = (0..count)
                .map(|n| deploy(&format!("s{round}-{n}"), big.clone()))
                .collect();
            match document.propose(&commands, "ada", at(1)) {
                Ok(change) => {
                    let change = change.unwrap();
                    assert!(change.len() <= MAX_CHANGE_BYTES);
                    largest = change.len();
                    feed(&mut peer, &[change]);
                }
                Err(Rejection::ChangeTooLarge { .. }) => break,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(
            largest > MAX_CHANGE_BYTES / 2,
            "{largest} bytes: the bound is too low"
        );
    }
}

#[test]
fn a_specification_is_stored_without_its_defaults() {
    let mut document = Document::new(actor(1));
    write(&mut document, deploy("web", spec("nginx")), 1);
    let history = document.history(&key("web"));
    let stored = history.iter().find(|e| e.aspect == Aspect::Spec).unwrap();
    assert_eq!(stored.value, Some(serde_json::json!({ "image": "nginx" })));
    write(&mut document, deploy("web", publishing("nginx", 80)), 2);
    assert_eq!(document.history(&key("web"))[0].summary, "changed ports");
    write(&mut document, deploy("web", spec("nginx")), 3);
    assert_eq!(document.history(&key("web"))[0].summary, "changed ports");
}

#[test]
fn labels_and_availability_of_nodes() {
    let mut document = Document::new(actor(1));
    let drain = Command::SetAvailability {
        node: node(7),
        availability: Availability::Drained,
    };
    write(&mut document, drain, 1);
    let intent = &snapshot_of(&document).nodes[&node(7)];
    assert_eq!(intent.availability, Availability::Drained);
    let active = Command::SetAvailability {
        node: node(7),
        availability: Availability::Active,
    };
    write(&mut document, active, 2);
    assert!(
        snapshot_of(&document).nodes.is_empty(),
        "nothing is said of it any more"
    );
    let labels = Command::SetLabels {
        node: node(7),
        labels: [("bad key".to_owned(), String::new())].into(),
    };
    let rejection = rejected(&mut document, &[labels]);
    assert!(matches!(rejection, Rejection::InvalidLabels { .. }));
}

/// Two majorities of different voters need not share one, so voters change only while nothing runs.
#[test]
fn the_voters_of_what_runs_cannot_be_changed() {
    let mut document = Document::new(actor(1));
    let strict = |image: &str, voters: [u8; 3]| {
        let mut spec = spec(image);
        spec.policy.voters = voters.map(node).to_vec();
        deploy("web", spec)
    };
    write(&mut document, strict("a", [1, 2, 3]), 1);
    // The same ones in another order are no change.
    write(&mut document, strict("b", [3, 2, 1]), 2);
    let refused = rejected(&mut document, &[strict("b", [1, 2, 4])]).to_string();
    assert!(refused.contains("dunlin stop"), "{refused}");
    write(&mut document, stop("web"), 3);
    write(&mut document, strict("c", [1, 2, 4]), 4);
    let start = Command::SetRunning {
        service: key("web"),
        running: true,
    };
    write(&mut document, start, 5);
    // Going back does not bring back the voters.
    let back = Command::Rollout {
        service: key("web"),
        revision: None,
        change: RolloutChange::Rollback { reason: None },
    };
    write(&mut document, back, 6);
    let web = service(&document, "web").unwrap();
    assert_eq!(web.spec.image, "a", "what was never proven is no way back");
    assert!(web.spec.policy.voters.contains(&node(4)));
}

/// Whether replicas are moved is said once for the whole cluster, and saying it again writes nothing.
#[test]
fn rebalancing_is_wanted_or_not() {
    let mut document = Document::new(actor(1));
    let rules = Rebalancing {
        manual: true,
        asked: Some(7),
    };
    write(&mut document, Command::SetRebalancing(rules), 1);
    assert_eq!(snapshot_of(&document).rebalancing, rules);
    let again = document.propose(&[Command::SetRebalancing(rules)], "bob", at(2));
    assert_eq!(again.unwrap(), None);
    assert_reads_the_same_from_disk(&document);
    write(
        &mut document,
        Command::SetRebalancing(Rebalancing::default()),
        3,
    );
    assert_eq!(snapshot_of(&document).rebalancing, Rebalancing::default());
}
