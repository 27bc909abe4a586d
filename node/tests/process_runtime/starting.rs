//! Starting: what a replica is told, and why one cannot start.

use std::time::{Duration, Instant};

use crate::support::{self, Lab, shell};
use dunlin_core::io::RuntimeEvent;
use dunlin_node::runtime::{LogQuery, LogStream, Names};
use dunlin_state::model::{PortSpec, ServiceSpec, VolumeMount};

#[tokio::test]
async fn a_replica_is_told_who_it_is_and_its_output_is_kept() {
    let mut lab = Lab::new().await;
    let mut spec = shell("env; echo to stderr >&2; exit 3");
    spec.environment
        .insert("GREETING".into(), "hi there".into());
    spec.environment
        .insert("DUNLIN_SERVICE".into(), "forged".into());
    let id = lab.start(0, spec).await.id;
    lab.expect_exit(&id, 3).await;
    let chunk = lab
        .handle
        .logs(&LogQuery::new(id.slot.clone()))
        .await
        .unwrap();
    assert!(chunk.eof);
    assert_eq!(chunk.id, id);
    let out = support::text(&chunk, LogStream::Out);
    let expected = [
        "GREETING=hi there",
        "DUNLIN_SERVICE=web",
        "DUNLIN_NAMESPACE=default",
        "DUNLIN_SLOT=0",
        "DUNLIN_NODE=here",
        "DUNLIN_EPOCH=7",
        "DUNLIN_REVISION=r1",
        "HOST=127.0.0.1",
    ];
    for line in expected {
        assert!(out.lines().any(|l| l == line), "no {line} in\n{out}");
    }
    assert!(
        !out.contains("CARGO"),
        "the daemon's environment leaked:\n{out}"
    );
    assert_eq!(support::text(&chunk, LogStream::Err), "to stderr\n");
}

/// As root a replica has a resolv.conf of its own; else it is told why not, and where to ask.
#[tokio::test]
async fn a_replica_finds_names_where_its_node_answers_them() {
    let of_host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let names = |port| Names {
        server: ([127, 64, 0, 1], port).into(),
        suffix: "dunlin.internal".to_owned(),
    };
    for port in [53, 5_300] {
        let mut lab = Lab::with_names(names(port)).await;
        let script = "cat /etc/resolv.conf; echo $DUNLIN_DNS; echo $DUNLIN_DNS_SEARCH; exit 3";
        let id = lab.start(0, shell(script)).await.id;
        lab.expect_exit(&id, 3).await;
        let query = LogQuery::new(id.slot.clone());
        let chunk = lab.handle.logs(&query).await.unwrap();
        let said = support::text(&chunk, LogStream::Out);
        let search = "default.dunlin.internal dunlin.internal";
        assert!(
            said.contains(&format!("127.64.0.1:{port}\n{search}\n")),
            "{said}"
        );
        let own = format!("nameserver 127.64.0.1\nsearch {search}\noptions ndots:2\n");
        let may = rustix::process::geteuid().is_root() && !of_host.is_empty();
        if port == 53 && may {
            assert!(said.contains(&own), "{said}");
            assert!(!said.contains(&of_host), "{said}");
        } else {
            assert!(said.starts_with(&of_host), "{said}");
        }
    }
    let now = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(now, of_host);
}

/// Specifications that no node like this one can run, with a part of the reason.
fn hopeless_cases() -> Vec<(ServiceSpec, &'static str)> {
    let command = |words: &[&str]| ServiceSpec {
        command: words.iter().map(|w| (*w).to_owned()).collect(),
        ..ServiceSpec::default()
    };
    vec![
        (
            command(&["no-such-thing"]),
            "no program 'no-such-thing' on this node's PATH",
        ),
        (
            command(&["/no/such/thing"]),
            "no program '/no/such/thing' on this node",
        ),
        (command(&["/etc/passwd"]), "is it executable"),
        (command(&[]), "neither an image nor a command"),
        (
            ServiceSpec {
                image: "nginx".into(),
                ..ServiceSpec::default()
            },
            "image 'nginx' needs a container engine",
        ),
        (
            ServiceSpec {
                working_dir: Some("/no/where".into()),
                ..command(&["true"])
            },
            "no working directory /no/where",
        ),
        (
            ServiceSpec {
                user: Some("no-such-user".into()),
                ..command(&["true"])
            },
            "no user 'no-such-user'",
        ),
        (
            ServiceSpec {
                stop_signal: Some("SIGNONSENSE".into()),
                ..command(&["true"])
            },
            "'SIGNONSENSE' is no signal",
        ),
        (
            ServiceSpec {
                volumes: vec![VolumeMount {
                    source: "../up".into(),
                    ..VolumeMount::default()
                }],
                ..command(&["true"])
            },
            "cannot be the name of a volume",
        ),
    ]
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let mut lab = Lab::new().await;
    for (slot, (spec, part)) in (0..).zip(hopeless_cases()) {
        let id = lab.send_start(slot, spec).await;
        match lab.next().await {
            RuntimeEvent::StartFailed {
                id: found,
                reason,
                hopeless,
            } => {
                assert_eq!(found, id);
                assert!(reason.contains(part), "{reason}");
                assert!(hopeless, "{reason}");
            }
            other => panic!("{part}: {other:?}"),
        }
    }
    assert!(lab.leftovers().is_empty(), "{:?}", lab.leftovers());
}

#[tokio::test]
async fn thirty_replicas_start_together() {
    let mut lab = Lab::new().await;
    let begin = Instant::now();
    for slot in 0..30 {
        let mut spec = shell("exec sleep 1000");
        spec.ports = vec![PortSpec {
            target: 80,
            ..PortSpec::default()
        }];
        lab.send_start(slot, spec).await;
    }
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..30 {
        match lab.next().await {
            RuntimeEvent::Started(running) => {
                ports.insert(running.endpoints[0].address.port());
                lab.live.push(running.id);
            }
            other => panic!("{other:?}"),
        }
    }
    let took = begin.elapsed();
    assert_eq!(ports.len(), 30, "a port was given twice");
    eprintln!("30 replicas started in {took:?}");
    // Generous: the machine that runs this may be busy. Measured figures stand in the docs.
    assert!(took < Duration::from_secs(5), "{took:?}");
    lab.stop_all().await;
}

#[tokio::test]
async fn the_program_dunlin_is_the_daemons_own_executable() {
    let mut lab = Lab::new().await;
    let spec = ServiceSpec {
        command: ["dunlin", "/no/such/attempt"].map(str::to_owned).to_vec(),
        ..ServiceSpec::default()
    };
    let id = lab.start(0, spec).await.id;
    lab.expect_exit(&id, 1).await;
    assert!(
        lab.wait_for_line(&id, "cannot lock")
            .await
            .contains("/no/such/attempt")
    );
}
