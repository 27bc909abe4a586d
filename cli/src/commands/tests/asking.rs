//! Commands that only ask.

use super::*;

#[tokio::test]
async fn nodes() {
    let mut first = node("n1", 1);
    first.this = true;
    let mut second = node("n2", 2);
    second.state = NodeState::Down;
    second.availability = Availability::Drained;
    second.address = None;
    second.labels.clear();
    let list = NodeList {
        nodes: vec![first, second],
    };
    let ran = answered(&list, &["nodes"]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert_eq!(
        ran.out,
        "\
NAME  ID          STATE  AVAILABILITY  ADDRESS        REPLICAS  CPU    MEMORY       LABELS      VERSION
n1*   aeaqcaibae  alive  active        10.0.0.1:7400  3         0.5/4  512MiB/8GiB  zone=north  0.1.0
n2    aibaeaqcai  down   drained       -              3         0.5/4  512MiB/8GiB  -           0.1.0
"
    );
    let ran = answered(&list, &["nodes", "--json"]).await;
    let json: Vec<Node> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json, list.nodes);
    let ran = answered(&list, &["nodes", "-q"]).await;
    assert_eq!(
        ran.out.lines().next(),
        Some(list.nodes[0].id.to_string().as_str())
    );
}

fn follows() -> AutoscaleStatus {
    AutoscaleStatus {
        min: 1,
        max: 10,
        reason: Some("350 connections, with a target of 100 connections a replica".into()),
        since: Some(NOW - 12_000),
        decided_by: Some("n2".into()),
    }
}

fn summary(name: &str) -> ServiceSummary {
    ServiceSummary {
        service: name.parse().unwrap(),
        mode: Default::default(),
        job: false,
        running: true,
        wanted: 3,
        ready: 2,
        autoscale: None,
        image: "nginx:1.27".into(),
        command: vec![],
        runtime: Default::default(),
        ports: vec![],
        revision: "0123456789abcdef".into(),
    }
}

#[tokio::test]
async fn ls() {
    let mut clock = summary("shop/clock");
    clock.image.clear();
    clock.command = vec!["date".into(), "-u".into()];
    clock.running = false;
    clock.job = true;
    let mut web = summary("web");
    web.autoscale = Some(follows());
    let list = ServiceList {
        services: vec![web, clock],
    };
    let ran = answered(&list, &["ls"]).await;
    assert_eq!(
        ran.out,
        "\
NAME        MODE            REPLICAS          RUNS        PORTS  REVISION
web         replicated      2/3 (auto 1..10)  nginx:1.27  -      0123456789ab
shop/clock  replicated-job  stopped           date -u     -      0123456789ab
"
    );
    let ran = answered(&list, &["ls", "-q", "-n", "shop"]).await;
    assert_eq!(ran.out, "default/web\nclock\n");
}

#[tokio::test]
async fn ps() {
    let (n1, mut n2) = (node("n1", 1), node("n2", 2));
    n2.state = NodeState::Suspect;
    let mut second = replica(1, &n2);
    second.phase = Phase::BackOff;
    second.ready = false;
    second.restarts = 4;
    second.last_exit = Some(ExitReport {
        code: 137,
        oom: true,
        at: NOW,
        last_words: Vec::new(),
    });
    let mut old = replica(0, &n1);
    old.superseded = true;
    old.endpoints = vec![dunlin_state::model::Endpoint {
        target: 80,
        protocol: Default::default(),
        address: ([10, 0, 0, 1], 31000).into(),
    }];
    let list = ReplicaList {
        replicas: vec![replica(0, &n1), old, second],
        vacant: vec![SlotId {
            service: "web".parse().unwrap(),
            slot: Slot::Replica(2),
        }],
        waiting: vec![],
        asleep: vec!["night".parse().unwrap()],
        notes: vec!["the namespace default is over its quota".to_owned()],
    };
    let ran = answered(&list, &["ps", "web"]).await;
    assert_eq!(ran.err, "the namespace default is over its quota\n");
    assert_eq!(
        ran.out,
        "\
NAME   NODE  STATUS                   AGE  RESTARTS  ENDPOINTS       REVISION      MESSAGE
night  -     asleep                   -    -         -               -             nobody connects; the first connection starts a replica
web.0  n1    ready                    12s  0         -               0123456789ab  -
web.0  n1    ready, superseded        12s  0         10.0.0.1:31000  0123456789ab  -
web.1  n2    back-off (node suspect)  12s  4         -               0123456789ab  exit code 137, out of memory (OOM)
web.2  -     vacant                   -    -         -               -             see `dunlin explain web`
"
    );
    let daemon = fake(|_| missing());
    dunlin(&daemon, &["ps", "-n", "shop", "--node", "n1"]).await;
    dunlin(&daemon, &["ps", "-n", "shop", "web"]).await;
    let lines: Vec<String> = daemon.asked().into_iter().map(|a| a.line).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/replicas?namespace=shop&node=n1",
            "GET /v1/replicas?service=shop%2Fweb"
        ]
    );
}

#[tokio::test]
async fn inspect() {
    let n1 = node("n1", 1);
    let detail = ServiceDetail {
        service: "web".parse().unwrap(),
        spec: serde_json::from_str(
            r#"{"image":"nginx","reservation":{"cpu_millis":250},
                "ports":[{"target":80,"published":8080}],
                "placement":{"constraints":[{"key":"node.labels.a","op":"equal","value":"b"}]}}"#,
        )
        .unwrap(),
        revision: "abc".into(),
        scale: 1,
        running: true,
        wanted: 1,
        ready: 1,
        autoscale: Some(follows()),
        address: None,
        replicas: vec![replica(0, &n1)],
        vacant: vec![],
        outputs: dunlin_state::model::Outputs::parse(b"VERSION=7").unwrap(),
    };
    let ran = answered(&detail, &["inspect", "web"]).await;
    assert_eq!(
        ran.out,
        "\
Service:      default/web
Revision:     abc
Replicas:     1 ready of 1
Autoscale:    1..10 replicas: 350 connections, with a target of 100 connections a replica (decided by n2)
Mode:         replicated
Runtime:      auto
Image:        nginx
Ports:        8080->80/tcp
Reserves:     0.25 cores
Constraints:  node.labels.a == b
Outputs:      VERSION=7

SLOT  NODE  STATUS  EPOCH  AGE  ENDPOINTS  WORKLOAD  MESSAGE
0     n1    ready   1      12s  -          -         -
"
    );
    let ran = answered(&detail, &["inspect", "web", "--json"]).await;
    let json: Vec<ServiceDetail> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json, [detail]);
}

#[tokio::test]
async fn explain() {
    let reason = |text: &str, fix: Option<&str>| RefusalReason {
        text: text.into(),
        fix: fix.map(Into::into),
    };
    let explanation = Explanation {
        service: "web".parse().unwrap(),
        summary: "1 of 2 replicas has no node".into(),
        networks: ["default/default".to_owned()].into(),
        wanted: 2,
        ready: 1,
        autoscale: Some(follows()),
        slots: vec![
            SlotState {
                slot: Slot::Replica(0),
                node: Some(node("n1", 1).id),
                node_name: Some("n1".into()),
                phase: Some(Phase::Running),
                ready: true,
                message: None,
            },
            SlotState {
                slot: Slot::Replica(1),
                node: None,
                node_name: None,
                phase: None,
                ready: false,
                message: Some("nobody can take it".into()),
            },
        ],
        nodes: vec![
            NodeVerdict {
                node: node("n1", 1).id,
                name: "n1".into(),
                verdict: Verdict::Fits,
                score: Some(0.5),
                reasons: vec![],
            },
            NodeVerdict {
                node: node("n2", 2).id,
                name: "n2".into(),
                verdict: Verdict::Refused,
                score: None,
                reasons: vec![
                    reason("1GiB free, 4GiB needed", Some("free 3GiB")),
                    reason("it is cordoned", Some("dunlin uncordon n2")),
                ],
            },
        ],
    };
    let ran = answered(&explanation, &["explain", "web"]).await;
    assert_eq!(
        ran.out,
        "\
web: 1 of 2 replicas has no node
networks: default/default
autoscale: 1..10 replicas: 350 connections, with a target of 100 connections a replica (decided by n2), 12s ago

SLOT  NODE  STATUS  MESSAGE
0     n1    ready   -
1     -     vacant  nobody can take it

NODE  ONE MORE?  REASON                  WHAT WOULD HELP
n1    fits       -                       -
n2    refuses    1GiB free, 4GiB needed  free 3GiB
                 it is cordoned          dunlin uncordon n2
"
    );
}

#[tokio::test]
async fn history() {
    let entry = |aspect: &str, summary: &str, current, lost| HistoryEntry {
        aspect: aspect.into(),
        at: NOW - 90_000,
        author: "ann@n1".into(),
        summary: summary.into(),
        revision: None,
        current,
        lost,
    };
    let history = History {
        service: "web".parse().unwrap(),
        entries: vec![
            entry("scale", "3 replicas", true, false),
            entry("scale", "5 replicas", false, true),
            entry("scale", "1 replica", false, false),
        ],
    };
    let ran = answered(&history, &["history", "web"]).await;
    assert_eq!(
        ran.out,
        "\
AGE  ASPECT  CHANGE      REVISION  AUTHOR  STATE
1m   scale   3 replicas  -         ann@n1  current
1m   scale   5 replicas  -         ann@n1  lost to a concurrent change
1m   scale   1 replica   -         ann@n1  replaced
"
    );
}

#[tokio::test]
async fn logs_name_the_nodes_that_are_missing() {
    let line = |slot, text: &str| LogRecord::Line {
        slot: Slot::Replica(slot),
        node: node("n1", 1).id,
        node_name: "n1".into(),
        stream: LogStream::Stdout,
        at: NOW,
        text: text.into(),
    };
    let gone = LogRecord::Unreachable {
        node: node("n2", 2).id,
        node_name: "n2".into(),
        reason: "it is down".into(),
    };
    let whole = Answer::lines(&[line(0, "hello"), line(1, "there")]);
    let ran = dunlin(&fake(move |_| whole.clone()), &["logs", "web"]).await;
    assert_eq!(ran.out, "web.0 | hello\nweb.1 | there\n");
    assert_eq!(ran.exit, Exit::Ok);

    let partial = Answer::lines(&[line(0, "hello"), gone]);
    let daemon = fake(move |_| partial.clone());
    let ran = dunlin(
        &daemon,
        &["logs", "web.0", "-t", "--since", "60s", "--tail", "5"],
    )
    .await;
    assert_eq!(ran.out, "2023-11-14T22:13:20.000Z hello\n");
    assert_eq!(ran.err, "dunlin: the lines of n2 are missing: it is down\n");
    assert_eq!(ran.exit, Exit::Unreachable);
    let since = NOW - 60_000;
    assert_eq!(
        daemon.asked()[0].line,
        format!("GET /v1/services/default/web/logs?follow=false&since={since}&slot=0&tail=5")
    );
}

#[tokio::test]
async fn doctor_fails_when_a_check_fails() {
    let check = |status| Check {
        name: "disk".into(),
        status,
        detail: "2GiB free".into(),
        fix: Some("make room".into()),
    };
    for (status, exit) in [
        (CheckStatus::Ok, Exit::Ok),
        (CheckStatus::Warn, Exit::Ok),
        (CheckStatus::Fail, Exit::Failed),
    ] {
        let report = DoctorReport {
            node: node("n1", 1).id,
            name: "n1".into(),
            checks: vec![check(status)],
        };
        let ran = answered(&report, &["doctor"]).await;
        assert_eq!(ran.exit, exit);
        assert!(ran.out.contains("n1 answers on unix://"), "{}", ran.out);
    }
    let daemon = fake(|_| missing());
    let elsewhere = daemon.socket();
    std::fs::remove_file(elsewhere).unwrap();
    let ran = dunlin(&daemon, &["doctor"]).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.out.contains("is `dunlin up` running?"), "{}", ran.out);
}

#[tokio::test]
async fn version_is_told_without_a_daemon() {
    let daemon = fake(|_| missing());
    std::fs::remove_file(daemon.socket()).unwrap();
    let ran = dunlin(&daemon, &["version"]).await;
    assert_eq!(ran.exit, Exit::Ok);
    assert!(
        ran.out
            .starts_with(concat!("client  ", env!("CARGO_PKG_VERSION")))
    );
    assert!(ran.out.contains("no daemon answers"), "{}", ran.out);
    let ran = dunlin(&daemon, &["version", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["daemon"], serde_json::Value::Null);
}

#[tokio::test]
async fn failures_have_words_hints_and_codes() {
    let daemon = fake(|_| missing());
    let ran = dunlin(&daemon, &["inspect", "wob"]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    assert_eq!(
        ran.err,
        "dunlin: no service is named 'default/wob'\n  hint: did you mean 'default/web'?\n"
    );
    let ran = dunlin(&daemon, &["--json", "inspect", "wob"]).await;
    let body: ErrorBody = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(body.code, ErrorCode::NoSuchService);
    assert_eq!(ran.out, "");
    let ran = dunlin(&daemon, &["inspect", "No_Name"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err.contains("is not a valid service name"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_reader_that_is_gone_is_no_failure() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    use crate::output::{Look, Output};
    use crate::testing::{Kept, dunlin_with};
    let answer = Answer::json(&NodeList {
        nodes: vec![node("n1", 1)],
    });
    let daemon = fake(move |_| answer.clone());
    for words in [&["nodes"][..], &["nodes", "--json"]] {
        let err = Kept::default();
        let out = Output::new(
            Box::new(Closed),
            Box::new(err.clone()),
            Look::default(),
            || NOW,
        );
        assert_eq!(dunlin_with(&daemon, words, out, &err).await, Exit::Ok);
        assert_eq!(err.text(), "");
    }
}
