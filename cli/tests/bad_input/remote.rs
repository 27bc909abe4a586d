//! People on other hosts, with real daemons and TLS: what their certificates allow, and what not.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::daemon::{Daemon, Said, address, base, said, until};

/// A service that needs no runtime, because no replica of it is wanted.
const IDLE: &str = "services:\n  web:\n    image: x\n    deploy: {replicas: 0}\n";

/// Somebody on another host: all they have is a configuration directory.
struct Person(TempDir);

impl Person {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn says(&self, words: &[&str]) -> Said {
        let mut command = base(words);
        command.env("XDG_CONFIG_HOME", self.0.path());
        said(command)
    }

    fn adds(&self, name: &str, host: &str, ticket: &str) -> Said {
        self.says(&["context", "add", name, "--host", host, "--ticket", ticket])
    }

    fn file(&self, text: &str) -> String {
        let path = self.0.path().join("compose.yaml");
        fs::write(&path, text).expect("it is written");
        path.display().to_string()
    }
}

/// A daemon that serves the API to other hosts, and where.
fn served(name: &str) -> (Daemon, String) {
    let daemon = Daemon::start(name, &["--api-listen", "127.0.0.1:0"]);
    let log = daemon.log();
    let host = log.split_whitespace().find(|w| w.starts_with("tcp://"));
    let host = host.unwrap_or_else(|| panic!("no address in {log}"));
    let host = host.to_owned();
    (daemon, host)
}

fn ticket(daemon: &Daemon, role: &str) -> String {
    let said = daemon
        .ask(&["ticket", "--role", role])
        .expect(0, &["dunlin2-"]);
    said.text.trim().to_owned()
}

/// Every file below, with its content.
fn files(directory: &Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.extend(fs::read(&path)),
        }
    }
    found
}

#[test]
fn an_operator_acts_in_exactly_their_namespace() {
    let (node, host) = served("n1");
    let person = Person::new();
    let invitation = ticket(&node, "operator:ab");
    person
        .adds("prod", &host, &invitation)
        .expect(0, &["operator:ab"]);
    person
        .says(&["context", "use", "prod"])
        .expect(0, &["prod"]);
    person
        .says(&["context", "ls"])
        .expect(0, &["prod *", &host, "operator:ab"]);
    let file = person.file(IDLE);
    person
        .says(&["-n", "ab", "deploy", "-d", &file])
        .expect(0, &[]);
    node.ask(&["ls", "-q", "-n", "ab"]).expect(0, &["web"]);
    // Who did it stands in the history; so does a local user, with their number.
    node.ask(&["history", "ab/web"])
        .expect(0, &["(operator:ab)"]);
    node.ask(&["-n", "a", "deploy", "-d", &file]).expect(0, &[]);
    node.ask(&["history", "a/web"]).expect(0, &["(uid "]);
    for namespace in ["a", "abc", "default"] {
        let refused = ["'operator:ab'", &format!("'{namespace}'")];
        person
            .says(&["-n", namespace, "deploy", "-d", &file])
            .expect(7, &refused);
        let service = format!("{namespace}/web");
        for words in [
            ["stop", &service],
            ["inspect", &service],
            ["logs", &service],
            ["rm", &service],
        ] {
            person.says(&words).expect(7, &refused);
        }
        person.says(&["-n", namespace, "ls"]).expect(7, &refused);
    }
    // A list of everything is a list of theirs.
    let listed = person.says(&["ls", "-q"]).expect(0, &["ab/web"]);
    assert_eq!(listed.text.lines().count(), 1, "{}", listed.text);
    for words in [&["drain", "n1"][..], &["ticket"], &["leave"], &["doctor"]] {
        person.says(words).expect(7, &["'operator:ab'"]);
    }
    node.ask(&["ls", "-q", "-n", "a"]).expect(0, &["web"]);
}

#[test]
fn a_viewer_reads_everything_and_changes_nothing() {
    let (node, host) = served("n1");
    let person = Person::new();
    let file = person.file(IDLE);
    node.ask(&["deploy", "-p", "p", "-d", &file]).expect(0, &[]);
    person
        .adds("prod", &host, &ticket(&node, "viewer"))
        .expect(0, &["viewer"]);
    for words in [
        &["nodes"][..],
        &["ls"],
        &["inspect", "web"],
        &["doctor"],
        &["events"],
    ] {
        person
            .says(&[&["--context", "prod"], words].concat())
            .expect(0, &[]);
    }
    // Any node of the cluster may be asked with the same key.
    person.says(&["-H", &host, "nodes"]).expect(0, &["n1"]);
    for words in [
        &["rm", "web"][..],
        &["scale", "web=3"],
        &["drain", "n1"],
        &["leave"],
    ] {
        let said = person.says(&[&["--context", "prod"], words].concat());
        said.expect(7, &["'viewer'"]);
    }
    person.says(&["context", "rm", "prod"]).expect(0, &["prod"]);
    person
        .says(&["--context", "prod", "nodes"])
        .expect(5, &["no context 'prod'"]);
    person
        .says(&["-H", &host, "nodes"])
        .expect(7, &["dunlin context add"]);
}

#[test]
fn tickets_and_servers_that_do_not_fit_are_refused_with_the_reason() {
    let ((ours, host), (_theirs, elsewhere)) = (served("n1"), served("n2"));
    let (person, other) = (Person::new(), Person::new());
    let invitation = ticket(&ours, "admin");
    let foreign = person.adds("prod", &elsewhere, &invitation);
    foreign.expect(7, &[&elsewhere, "is not trusted", "belongs to the cluster"]);
    person
        .adds("prod", &host, &invitation)
        .expect(0, &["admin"]);
    person
        .adds("prod", &host, &invitation)
        .expect(6, &["already"]);
    other
        .adds("prod", &host, &invitation)
        .expect(7, &["used 1 times"]);
    until("the log's word", || ours.log().contains("used 1 times"));
    let altered = invitation.replacen("dunlin2-", "dunlin2-a", 1);
    other.adds("prod", &host, &altered).expect(2, &["damaged"]);
    other
        .adds("prod", &host, &ticket(&ours, "node"))
        .expect(7, &["the ticket is for a host"]);
    // The certificate is good for its own cluster only.
    let lost = person.says(&["--context", "prod", "-H", &elsewhere, "nodes"]);
    lost.expect(7, &["is not trusted", "belongs to the cluster"]);
    person
        .says(&["--context", "prod", "ticket", "--role", "viewer"])
        .expect(0, &["dunlin2-"]);
    // Neither the ticket nor the person's key is anywhere on the node.
    let kept = files(person.0.path());
    assert!(kept.iter().any(|file| !file.is_empty()));
    let secret = invitation.as_bytes();
    let node = [files(&ours.directory), vec![ours.log().into_bytes()]].concat();
    assert!(
        !node
            .iter()
            .any(|file| file.windows(secret.len()).any(|w| w == secret))
    );
}

#[test]
fn a_context_and_a_socket_contradict_each_other() {
    let person = Person::new();
    let said = person.says(&["--context", "prod", "-H", "unix:///run/x.sock", "ls"]);
    said.expect(2, &["leave one out"]);
    person
        .says(&["context", "use", "prod"])
        .expect(5, &["no context 'prod'"]);
    person
        .says(&["context", "use", "../prod"])
        .expect(2, &["no name"]);
    person.says(&["context", "show"]).expect(0, &["default"]);
    person
        .says(&["context", "add", "x", "--ticket", "t"])
        .expect(2, &["--host"]);
}

#[test]
fn a_daemon_says_when_it_cannot_serve_other_hosts() {
    let node = Daemon::start("n1", &[]);
    node.ask(&["ticket", "--role", "king"])
        .expect(6, &["'king' is no role"]);
    let home = tempfile::tempdir().expect("a directory");
    let words = crate::daemon::up(&home.path().join("d"), "n2", &address());
    let wrong = crate::daemon::refused(&words, &["--api-group", "no-such-group-here"]);
    wrong.expect(1, &["no group 'no-such-group-here'"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = taken.local_addr().expect("an address").to_string();
    let wrong = crate::daemon::refused(&words, &["--api-listen", &place]);
    wrong.expect(1, &[&place, "choose another --api-listen"]);
}
