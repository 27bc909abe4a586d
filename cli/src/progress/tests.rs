//! Waiting, against a fake daemon.

use std::sync::Mutex;

use dunlin_api::fake::{Answer, FakeDaemon};
use dunlin_api::{ChangeResponse, Convergence, ErrorBody, ErrorCode};

use super::*;
use crate::testing::dunlin;

fn progress(ready: u32, wanted: u32) -> ServiceProgress {
    ServiceProgress {
        service: "web".parse().unwrap(),
        revision: "r1".into(),
        wanted,
        ready,
        updated: ready,
        converged: ready == wanted,
        reason: None,
        halted: None,
    }
}

/// A daemon that gives these answers about progress one after the other, the last for ever.
fn telling(answers: Vec<Answer>) -> FakeDaemon {
    let answers = Mutex::new(answers);
    FakeDaemon::start(move |asked| {
        if asked.line.starts_with("POST") {
            return Answer::json(&ChangeResponse { changed: true });
        }
        let mut answers = answers.lock().unwrap();
        if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        }
    })
    .unwrap()
}

fn told(progress: ServiceProgress) -> Answer {
    Answer::json(&Convergence {
        services: vec![progress],
    })
}

#[tokio::test]
async fn an_answer_from_before_the_change_does_not_count() {
    let daemon = telling(vec![told(progress(1, 1)), told(progress(3, 3))]);
    let ran = dunlin(&daemon, &["scale", "web=3"]).await;
    assert_eq!(ran.exit, Exit::Ok);
    assert_eq!(ran.err, "web: 1/1 ready, settling\nweb: 3/3 ready\n");
}

#[tokio::test]
async fn what_runs_for_a_moment_only_does_not_count() {
    let mut ended = progress(0, 1);
    ended.reason = Some("exited with code 3".into());
    let daemon = telling(vec![told(progress(1, 1)), told(ended)]);
    let ran = dunlin(&daemon, &["scale", "web=1", "--timeout", "10ms"]).await;
    assert_eq!(ran.exit, Exit::TimedOut);
    assert!(ran.err.contains("exited with code 3"), "{}", ran.err);
}

#[tokio::test]
async fn what_is_stopped_needs_no_time_to_settle() {
    let daemon = telling(vec![told(progress(0, 0)), told(progress(5, 5))]);
    let ran = dunlin(&daemon, &["scale", "web=0"]).await;
    assert_eq!(ran.exit, Exit::Ok);
    assert_eq!(ran.err, "web: 0/0 ready\n");
}

#[tokio::test]
async fn giving_up_says_why_and_exits_with_its_own_code() {
    let mut stuck = progress(1, 3);
    stuck.reason = Some("no node has 4GiB free".into());
    let daemon = telling(vec![told(stuck.clone())]);
    let ran = dunlin(&daemon, &["scale", "web=3", "--timeout", "10ms"]).await;
    assert_eq!(ran.exit, Exit::TimedOut);
    assert!(
        ran.err.contains("web: 1/3 ready: no node has 4GiB free\n"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("see `dunlin explain web`"), "{}", ran.err);
    assert!(
        ran.err.ends_with("the cluster goes on with it\n"),
        "{}",
        ran.err
    );

    let words = ["scale", "web=3", "--timeout", "10ms", "--json"];
    let ran = dunlin(&telling(vec![told(stuck)]), &words).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::TimedOut, ""));
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["converged"], false);
    assert_eq!(json["services"][0]["reason"], "no node has 4GiB free");
}

#[tokio::test]
async fn a_daemon_that_restarts_is_waited_for() {
    let away = ErrorBody::new(ErrorCode::Unavailable, "the node is starting");
    let daemon = telling(vec![
        told(progress(1, 3)),
        Answer::error(&away),
        told(progress(3, 3)),
    ]);
    let ran = dunlin(&daemon, &["scale", "web=3"]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
}

#[tokio::test]
async fn a_defect_ends_the_waiting() {
    let defect = ErrorBody::new(ErrorCode::Internal, "it broke");
    let daemon = telling(vec![Answer::error(&defect)]);
    let ran = dunlin(&daemon, &["start", "web"]).await;
    assert_eq!(
        (ran.exit, ran.err.as_str()),
        (Exit::Failed, "dunlin: it broke\n")
    );
}

#[test]
fn somebody_elses_change_is_told() {
    let target = Target::new("web".parse().unwrap()).of_revision("mine".into());
    let other = progress(3, 3);
    assert!(!target.is_reached(&other));
    let line = line(&target, &other, true);
    assert_eq!(
        line.reason.as_deref(),
        Some("someone else has changed it meanwhile")
    );
}

#[test]
fn questions_are_narrow() {
    let target = |name: &str| Target::new(name.parse().unwrap());
    let one = query(&[target("a/x")]);
    assert_eq!(one.service, Some("a/x".parse().unwrap()));
    let same = query(&[target("a/x"), target("a/y")]);
    assert_eq!((same.service, same.namespace.as_deref()), (None, Some("a")));
    let mixed = query(&[target("a/x"), target("b/y")]);
    assert_eq!((mixed.service, mixed.namespace), (None, None));
}
