//! Volumes with real daemons and processes: replicas follow their data, and the data goes where a
//! person brings it.

#[expect(dead_code, reason = "its other half is for the tests of bad input")]
#[path = "bad_input/daemon.rs"]
mod daemon;

use std::fs;
use std::path::Path;

use dunlin_api::Volume;

use daemon::{Daemon, until};

const COMPOSE: &str = "
services:
  db:
    command: [sh, -c, 'trap exit TERM; echo begun >> $$DUNLIN_VOLUME_P_DATA/log; while :; do sleep 0.2; done']
    volumes: ['data:/data']
    x-dunlin:
      runtime: process
volumes:
  data:
";

const VOLUME: &str = "p_data";

fn volumes(daemon: &Daemon) -> Vec<Volume> {
    let listed = daemon.ask(&["--json", "volume", "ls"]).expect(0, &[]);
    serde_json::from_str(&listed.text).expect("volumes")
}

/// The name of the node whose copy counts, as this one knows it.
fn home(daemon: &Daemon) -> Option<String> {
    let volumes = volumes(daemon).into_iter();
    let copies = volumes.flat_map(|volume| volume.copies);
    let mut counting = copies.filter(|copy| copy.counts && copy.used);
    counting.next().map(|copy| copy.node_name)
}

fn runs_on(daemon: &Daemon, node: &str) -> bool {
    let listed = daemon.ask(&["ps", "--node", node]);
    listed.text.contains("db.0") && listed.text.contains("ready")
}

fn log_of(daemon: &Daemon) -> String {
    let path = Path::new(&daemon.directory).join("volumes/default/p_data/log");
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_replica_follows_its_data() {
    let one = Daemon::start("n1", &[]);
    let mut others = ["n2", "n3"].map(|name| Daemon::start(name, &["--join", &one.ticket()]));
    until("a cluster of three", || {
        one.sees(3) && others.iter().all(|other| other.sees(3))
    });
    // The one that is asked stays, so that the data is lost sight of and not the questions.
    one.ask(&["cordon", "n1"]).expect(0, &[]);
    one.deploy(COMPOSE, &["--timeout", "60s"]).expect(0, &[]);
    until("word of the volume", || home(&one).is_some());
    let at = home(&one).expect("a node");
    let index = others.iter().position(|other| other.name == at);
    let index = index.expect("n1 takes nothing");
    let elsewhere = others[1 - index].name.clone();
    until("its first words", || log_of(&others[index]) == "begun\n");

    waits_for_its_data(&one, &mut others[index], &at);
    is_kept_while_it_is_used(&one);
    let archive = tempfile::tempdir().expect("a directory");
    let file = archive.path().join("data.tar").display().to_string();
    // The connection to the node that was away may only now be found to be lost, and is made anew.
    one.ask(&["volume", "export", VOLUME, "-o", &file])
        .expect(0, &["default/p_data is in"]);
    comes_where_a_person_brings_it(&one, &others[1 - index], &elsewhere, &file);
    goes_when_nobody_uses_it(&one, &others);
}

/// The node with the data does not answer: nobody else begins anew, and people are told why.
fn waits_for_its_data(one: &Daemon, holder: &mut Daemon, at: &str) {
    holder.end();
    let why = format!("the data of volume default/p_data is on {at}");
    until("an explanation", || {
        one.ask(&["explain", "db"]).text.contains(&why)
    });
    one.ask(&["volume", "export", VOLUME, "-o", "/dev/null"])
        .expect(3, &[&why, "does not answer"]);
    holder.restart(|_| {}, &[]);
    until("the same replica", || runs_on(one, at));
    assert!(log_of(holder).starts_with("begun\n"), "{}", log_of(holder));
}

fn is_kept_while_it_is_used(one: &Daemon) {
    one.ask(&["volume", "rm", VOLUME])
        .expect(6, &["is used by default/db"]);
    one.ask(&["volume", "import", VOLUME, "-i", "/dev/null"])
        .expect(6, &["--force"]);
    one.ask(&["volume", "import", "--force", VOLUME, "-i", "/dev/null"])
        .expect(6, &["db.0 runs", "dunlin stop"]);
    one.ask(&["volume", "inspect", "nothing"])
        .expect(5, &["no node has data of a volume 'default/nothing'"]);
}

fn comes_where_a_person_brings_it(one: &Daemon, other: &Daemon, name: &str, file: &str) {
    one.ask(&["stop", "db"]).expect(0, &[]);
    until("the end of the replica", || {
        one.ask(&["ps", "-q", "db"]).text.is_empty()
    });
    let import = ["volume", "import", "--force", "--node", name, VOLUME, "-i"];
    // Nothing of a damaged archive is taken.
    let damaged = format!("{file}.damaged");
    let mut bytes = fs::read(file).expect("the archive");
    bytes.truncate(700);
    fs::write(&damaged, bytes).expect("it is written");
    one.ask(&[&import[..], &[&damaged]].concat())
        .expect(6, &["nothing was changed"]);
    let before = log_of(other);
    assert_eq!(before, "");
    one.ask(&[&import[..], &[file]].concat())
        .expect(0, &["imported"]);
    until("the new copy to count", || {
        home(one).as_deref() == Some(name)
    });
    let brought = log_of(other);
    assert!(brought.starts_with("begun\n"), "{brought}");
    one.ask(&["start", "db"]).expect(0, &[]);
    until("the replica at its data", || runs_on(one, name));
    until("more words", || log_of(other).len() > brought.len());
}

/// A person chooses where it begins, also in place of data on a node that is gone for good; never
/// where data may come back unless they insist.
#[test]
fn a_person_begins_a_volume() {
    let one = Daemon::start("n1", &[]);
    let mut two = Daemon::start("n2", &["--join", &one.ticket()]);
    until("a cluster of two", || one.sees(2) && two.sees(2));
    let create = |words: &[&str]| one.ask(&[&["volume", "create", VOLUME], words].concat());
    create(&["--node", "n2"]).expect(0, &["created on n2"]);
    until("word of it", || home(&one).as_deref() == Some("n2"));
    create(&[]).expect(0, &["default/p_data is on n2"]);
    create(&["--node", "n1"]).expect(6, &["n2 has data", "--force"]);
    one.deploy(COMPOSE, &["--timeout", "60s"]).expect(0, &[]);
    until("the replica at its data", || runs_on(&one, "n2"));
    let file = one.directory.join("again.yaml");
    fs::write(&file, COMPOSE.replace("db:", "other:")).expect("it is written");
    let path = file.to_str().expect("text");
    one.ask(&["plan", "-p", "p", path])
        .expect(0, &["GOES WHERE THE DATA IS", "n2", "it has the only copy"]);
    two.end();
    until("since when it does not answer", || {
        let said = one.ask(&["explain", "db"]).text;
        said.contains("on n2, which does not answer since 2") && said.contains("is gone, since 2")
    });
    create(&["--node", "n1"]).expect(6, &["may come back", "--force"]);
    create(&["--node", "n1", "--force"]).expect(0, &["created on n1", "does not count any more"]);
    until("the replica with an empty one", || runs_on(&one, "n1"));
    two.restart(|_| {}, &[]);
    until("both copies", || {
        let volumes = volumes(&one);
        volumes.iter().any(|volume| volume.copies.len() == 2) && one.sees(2)
    });
    assert_eq!(home(&one).as_deref(), Some("n1"));
    assert!(log_of(&two).starts_with("begun\n"), "it is kept");
    create(&["--node", "n2", "--force"]).expect(6, &["db.0 runs"]);
    // What ran there when its daemon was killed has to end first.
    until("the end of the old copy", || {
        let said = one.ask(&["volume", "rm", "--node", "n2", VOLUME]);
        said.code == Some(0) && said.text.contains("removed from n2")
    });
}

fn goes_when_nobody_uses_it(one: &Daemon, others: &[Daemon]) {
    one.ask(&["rm", "db"]).expect(0, &[]);
    until("the end of the service", || {
        one.ask(&["volume", "inspect", VOLUME])
            .text
            .contains("nobody")
    });
    until("the end of its data", || {
        let said = one.ask(&["volume", "rm", VOLUME]);
        said.code == Some(0) && said.text.contains("removed from")
    });
    until("all to know", || volumes(one).is_empty());
    for other in others {
        assert_eq!(log_of(other), "", "{}", other.name);
    }
}
