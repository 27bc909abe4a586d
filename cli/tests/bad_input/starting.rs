//! Mistakes when a daemon is started.

use std::fs;

use crate::daemon::{Daemon, address, base, dunlin, refused, said, until, up};

#[test]
fn a_runtime_that_does_not_exist_is_refused() {
    dunlin(&["up", "--runtime", "podman"]).expect(2, &["process, docker, auto"]);
}

#[test]
fn what_is_in_use_is_told() {
    let node = Daemon::start("n1", &[]);
    let home = tempfile::tempdir().expect("a directory");
    let free = home.path().join("d");
    refused(&up(&node.directory, "n2", &address()), &[])
        .expect(1, &["another dunlin daemon is using", "--data-dir"]);
    refused(&up(&free, "n2", &node.address), &[])
        .expect(1, &["cannot listen on UDP", &node.address, "--port"]);
    refused(&up(&free, "n2", &address()), &["--api", &node.host()])
        .expect(1, &["another daemon answers on", "--api"]);
    let file = home.path().join("file");
    fs::write(&file, "precious").expect("it is written");
    let api = format!("unix://{}", file.display());
    refused(&up(&free, "n2", &address()), &["--api", &api]).expect(1, &["is no socket", "--api"]);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");
    node.ask(&["version"]).expect(0, &[]);
}

#[test]
fn a_ticket_must_be_whole_and_for_this_cluster() {
    let (ours, theirs) = (Daemon::start("n1", &[]), Daemon::start("n2", &[]));
    let ticket = theirs.ticket();
    let home = tempfile::tempdir().expect("a directory");
    let free = home.path().join("d");
    for bad in [
        &ticket[..40],
        &ticket.replacen("dunlin2-", "dunlin2-a", 1),
        "dunlin2-",
        "nonsense",
    ] {
        refused(&up(&free, "n3", &address()), &["--join", bad]).expect(2, &["--join", "ticket"]);
    }
    assert!(
        !free.join("cluster").exists(),
        "nothing is remembered of a bad ticket"
    );
    let mut ours = ours;
    let before = ours.ticket();
    ours.end();
    refused(
        &up(&ours.directory, "n1", &ours.address),
        &["--join", &ticket],
    )
    .expect(6, &["belongs to cluster", "--data-dir", "dunlin leave"]);
    ours.restart(|_| (), &[]);
    // A ticket starts with its cluster.
    let cluster = |ticket: &str| ticket[..30].to_owned();
    let after = ours.ticket();
    assert_eq!(
        cluster(&after),
        cluster(&before),
        "it is still in its cluster"
    );
    assert_ne!(cluster(&after), cluster(&ticket));
}

#[test]
fn a_ticket_that_nobody_answers_is_told_and_tried_on() {
    let mut first = Daemon::start("n1", &[]);
    let ticket = first.ticket();
    first.end();
    let second = Daemon::start("n2", &["--join", &ticket]);
    let missing = format!("nobody answers at {}", first.address);
    second.ask(&["doctor"]).expect(0, &[&missing, "UDP"]);
    until("the warning", || second.log().contains(&missing));
    second.ask(&["events"]).expect(0, &[&missing]);
    first.restart(|_| (), &[]);
    until("the meeting", || first.sees(2) && second.sees(2));
    until("the all-clear", || {
        second
            .ask(&["doctor"])
            .text
            .contains("other members are heard")
    });
}

#[test]
fn a_socket_without_permission_is_told() {
    let node = Daemon::start("n1", &[]);
    let mut other = std::process::Command::new("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups", "true"]);
    if !other.status().is_ok_and(|status| status.success()) {
        return; // Only root can become somebody else.
    }
    let program = base(&[]).get_program().to_owned();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(program).args(["-H", &node.host(), "ps"]);
    let answer = said(command);
    if answer.text.contains("failed to execute") {
        return; // The program itself lies where others may not go.
    }
    answer.expect(3, &["api.sock"]);
}
