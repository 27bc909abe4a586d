//! What outlives a daemon, and what is believed of it afterwards.

use std::time::Duration;

use crate::support::{self, Lab, shell};
use dunlin_core::io::{RuntimeCommand, RuntimeEvent};
use dunlin_state::model::PortSpec;

#[tokio::test]
async fn replicas_survive_the_daemon_and_are_adopted() {
    let mut lab = Lab::new().await;
    let mut spec = shell("echo up; exec sleep 1000");
    spec.ports = vec![PortSpec {
        target: 80,
        ..PortSpec::default()
    }];
    let lasting = lab.start(0, spec).await;
    let brief = lab
        .start(1, shell("read x < /dev/null; sleep 0.3; exit 9"))
        .await;

    let mut lab = lab.restart().await;
    lab.wait_until_dead(&brief).await;
    let mut adopted = lab.adopt().await;
    adopted.sort_by_key(|a| a.running.id.clone());
    assert_eq!(adopted.len(), 2);
    assert_eq!(adopted[0].running, lasting);
    assert_eq!(adopted[0].revision, "r1");
    assert_eq!(adopted[0].exited, None);
    assert_eq!(adopted[1].running.id, brief.id);
    assert_eq!(adopted[1].exited, Some((9, false)));

    // A repeated start of what runs starts nothing.
    let again = lab.start(0, shell("exit 1")).await;
    assert_eq!(again, lasting);
    let stop = RuntimeCommand::Stop {
        id: lasting.id.clone(),
        signal: None,
        grace_ms: 5_000,
    };
    lab.send(stop).await;
    lab.expect_exit(&lasting.id, 143).await;
    for id in [lasting.id, brief.id] {
        lab.send(RuntimeCommand::Remove { id }).await;
    }
    lab.wait_until(|lab| lab.leftovers().is_empty()).await;
}

/// Whoever is left kills it: the supervisor, when there is no daemon.
#[tokio::test]
async fn a_replica_dies_with_its_lease_though_no_daemon_lives() {
    let mut lab = Lab::new().await;
    // Should the order below be lost with the daemon, it takes that long.
    let running = lab.start_leased(0, shell("exec sleep 1000"), 15_000).await;
    let hour = 3_600_000;
    let lasting = lab.start_leased(1, shell("exec sleep 1000"), hour).await;
    let id = running.id.clone();
    let lease_ms = 500;
    lab.send(RuntimeCommand::Extend { id, lease_ms }).await;
    let mut lab = lab.restart().await;
    lab.wait_until_dead(&running).await;
    let adopted = lab.adopt().await;
    let end = |id| adopted.iter().find(|a| a.running.id == id).unwrap().exited;
    assert_eq!(end(running.id), Some((137, false)));
    assert_eq!(end(lasting.id), None);
}

#[tokio::test]
async fn a_killed_supervisor_takes_its_replica_along_and_it_counts_as_lost() {
    let mut lab = Lab::new().await;
    let running = lab.start(0, shell("sleep 1000 & echo $!; wait")).await;
    let child: i32 = lab.wait_for_line(&running.id, "").await.parse().unwrap();
    let leader = support::pid(&running.workload);
    let supervisor = support::parent(leader);
    support::kill(supervisor);
    assert!(matches!(lab.next().await, RuntimeEvent::Lost(id) if id == running.id));
    assert!(!support::is_alive(leader));
    assert!(!support::is_alive(child));
}

#[tokio::test]
async fn a_replica_keeps_nothing_open_that_the_daemon_has_inherited() {
    let mut lab = Lab::new().await;
    // Without O_CLOEXEC, as a shell leaves it.
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    lab.start(0, shell("exec sleep 1000")).await;
    drop(writer);
    let reader = std::fs::File::from(reader);
    let end = tokio::task::spawn_blocking(move || std::io::read_to_string(reader));
    let end = tokio::time::timeout(Duration::from_secs(20), end).await;
    assert_eq!(end.expect("somebody keeps it open").unwrap().unwrap(), "");
    lab.stop_all().await;
}

#[tokio::test]
async fn a_supervisor_that_comes_too_late_starts_nothing() {
    let mut lab = Lab::new().await;
    let id = lab.start(0, shell("echo once; exit 2")).await.id;
    lab.expect_exit(&id, 2).await;
    let directory = lab.attempt_file(&id, "");
    let late = std::process::Command::new(&lab.config.supervisor_command[0])
        .arg(&directory)
        .output()
        .unwrap();
    assert!(!late.status.success());
    assert!(String::from_utf8_lossy(&late.stdout).contains("given up"));
    assert_eq!(lab.wait_for_line(&id, "once").await, "once");
}

#[tokio::test]
async fn a_supervisor_killed_while_no_daemon_watches_is_reported_at_adoption() {
    let mut lab = Lab::new().await;
    let running = lab.start(0, shell("sleep 1000 & echo $!; wait")).await;
    let child: i32 = lab.wait_for_line(&running.id, "").await.parse().unwrap();
    let mut lab = lab.restart().await;
    let leader = support::pid(&running.workload);
    support::kill(support::parent(leader));
    lab.wait_until_dead(&running).await;
    let adopted = lab.adopt().await;
    assert_eq!(adopted.len(), 1);
    assert_eq!(adopted[0].exited, Some((137, false)));
    assert!(!support::is_alive(child));
}

#[tokio::test]
async fn a_record_of_another_process_with_the_same_number_is_not_believed() {
    let mut lab = Lab::new().await;
    let running = lab.start(0, shell("exec sleep 1000")).await;
    // The record now names a process that lives, but started at another time.
    let record = lab.attempt_file(&running.id, "run.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let supervisor = support::parent(support::pid(&running.workload));
    json["supervisor"]["pid"] = serde_json::json!(std::process::id());
    json["supervisor"]["start"] = serde_json::json!(1);
    let mut lab = lab.restart().await;
    support::kill(supervisor);
    lab.wait_until_dead(&running).await;
    std::fs::write(&record, json.to_string()).unwrap();
    let adopted = lab.adopt().await;
    assert_eq!(adopted[0].exited, Some((137, false)));
}

#[tokio::test]
async fn damaged_records_are_cleared_away() {
    let mut lab = Lab::new().await;
    let id = lab.start(0, shell("exit 0")).await.id;
    lab.expect_exit(&id, 0).await;
    std::fs::write(lab.attempt_file(&id, "spec.json"), b"{\"id\":").unwrap();
    let mut lab = lab.restart().await;
    assert!(lab.adopt().await.is_empty());
    assert!(lab.leftovers().is_empty());
}
