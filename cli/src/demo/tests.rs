//! The parts of the demo that need no daemon.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use dunlin_api::{NodeState, Replica};
use dunlin_state::model::{NodeId, Phase, RuntimeKind, ServiceKey, Slot};

use super::flock::Flock;
use super::layout::{Layout, Member, Ports, free_ports};
use super::plan::{example, victim};
use super::tell::{Killed, Summary, Teller};
use super::watch::end_when_closed;
use super::{DemoArgs, DemoError, Ending, processes};
use crate::output::{Look, Output};

#[derive(Parser)]
struct Words {
    #[command(flatten)]
    args: DemoArgs,
}

fn args(words: &[&str]) -> Result<DemoArgs, clap::Error> {
    let words = ["demo"].iter().chain(words);
    Words::try_parse_from(words).map(|w| w.args)
}

#[test]
fn words_of_the_command_line() {
    let plain = args(&[]).expect("defaults");
    assert_eq!((plain.nodes, plain.replicas), (3, 3));
    assert_eq!(plain.runtime, RuntimeKind::Process);
    let given = args(&[
        "--nodes",
        "5",
        "--replicas=9",
        "--runtime",
        "docker",
        "--keep",
    ]);
    let given = given.expect("all flags");
    assert_eq!((given.nodes, given.replicas, given.keep), (5, 9, true));
    for bad in [
        &["--nodes", "1"][..],
        &["--nodes", "1000"],
        &["--replicas", "0"],
        &["--runtime", "podman"],
        &["--end", "/x", "--keep"],
    ] {
        assert!(args(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn each_daemon_has_a_place_of_its_own() {
    let layout = Layout::create().expect("a directory");
    let mode = fs::metadata(layout.root())
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700, "the ticket in it is a secret");
    let root = layout.root().display().to_string();
    let words = layout.arguments(Member(2), Ports(4000), RuntimeKind::Process, true);
    let words: Vec<&str> = words.iter().filter_map(|w| w.to_str()).collect();
    let expected = format!(
        "up --data-dir {root}/n2 --name n2 --advertise 127.0.1.2 --port 4000 --dns \
         127.0.1.2:4003 --api unix://{root}/n2/api.sock --runtime process --hand-over 0s --profile local \
         --join {root}/ticket"
    );
    assert_eq!(words.join(" "), expected);
    let first = layout.arguments(Member(1), Ports(4000), RuntimeKind::Auto, false);
    assert!(!first.iter().any(|w| w == "--join"));
    assert_eq!(Layout::existing(layout.root()), Ok(layout.clone()));
    drop(Flock::of(layout));
    assert!(!Path::new(&root).exists());
}

#[test]
fn nothing_but_a_demos_directory_is_ever_removed() {
    assert!(Layout::existing(Path::new("/")).is_err());
    assert!(Layout::existing(Path::new("/nonexistent")).is_err());
    let mut output = Output::new(
        Box::new(std::io::sink()),
        Box::new(std::io::sink()),
        Look::default(),
        || 0,
    );
    let mut args = args(&[]).expect("defaults");
    args.end = Some(PathBuf::from("/"));
    assert!(super::run(&args, false, &mut output).is_err());
}

#[test]
fn ports_in_use_are_passed_over() {
    let first = free_ports(2, 77).expect("ports");
    let _udp = UdpSocket::bind((Member(2).address(), first.0)).expect("it is free");
    let second = free_ports(2, 77).expect("other ports");
    assert!(first.0.abs_diff(second.0) >= 4);
    let published = (Member(1).address(), second.published());
    let _tcp = TcpListener::bind(published).expect("it is free");
    let third = free_ports(2, 77).expect("a third place");
    assert!(third != first && third != second);
}

fn replica(node: u32, slot: u32, superseded: bool) -> Replica {
    let key = u8::try_from(node).expect("a small number");
    Replica {
        service: "hello".parse().expect("a name"),
        slot: Slot::Replica(slot),
        node: NodeId::from_bytes([key; 32]),
        node_name: Member(node).name(),
        node_state: NodeState::Alive,
        phase: Phase::Running,
        ready: true,
        leaving: false,
        superseded,
        epoch: 1,
        revision: String::new(),
        restarts: 0,
        endpoints: Vec::new(),
        since: 0,
        started_at: None,
        message: None,
        last_exit: None,
        history: Vec::new(),
        workload: None,
    }
}

#[test]
fn the_first_daemon_dies_if_it_has_anything_to_lose() {
    let members = [Member(1), Member(2), Member(3)];
    let id = |node: u8| NodeId::from_bytes([node; 32]).to_string();
    let spread = [
        replica(1, 0, false),
        replica(2, 1, false),
        replica(2, 2, false),
    ];
    assert_eq!(victim(&members, &spread), (Member(1), id(1), 1));
    let elsewhere = [
        replica(1, 0, true),
        replica(3, 0, false),
        replica(3, 1, false),
    ];
    assert_eq!(victim(&members, &elsewhere), (Member(3), id(3), 2));
}

#[test]
fn the_example_runs_as_processes_or_containers() {
    let program = Path::new("/opt/dunlin");
    let plain = args(&[]).expect("defaults");
    let (key, spec) = example(&plain, program, 4003).expect("it is right");
    assert_eq!(key, ServiceKey::new("default", "hello").expect("a name"));
    assert_eq!(spec.command, ["dunlin", "whoami"]);
    assert_eq!(spec.runtime, RuntimeKind::Process);
    assert_eq!(spec.ports[0].published, Some(4003));
    let docker = args(&["--runtime", "docker", "--image", "x"]).expect("flags");
    let (_, spec) = example(&docker, program, 4003).expect("it is right");
    assert_eq!(
        (spec.runtime, spec.image.as_str()),
        (RuntimeKind::Docker, "x")
    );
    assert_eq!(spec.volumes[0].source, "/opt/dunlin");
    assert_eq!(spec.environment["PORT"], "80");
}

/// A process that looks like a daemon or a supervisor: a script of that name, run by the shell.
fn lookalike(directory: &Path, name: &str, script: &str, words: &[&str], session: bool) -> Child {
    fs::write(directory.join(name), script).expect("a script");
    let mut command = if session {
        let mut command = Command::new("setsid");
        command.arg("sh");
        command
    } else {
        Command::new("sh")
    };
    command
        .arg(name)
        .args(words)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("a shell")
}

#[test]
fn all_processes_of_a_directory_end_and_no_others() {
    let layout = Layout::create().expect("a directory");
    let root = layout.root().to_owned();
    let scripts = tempfile::tempdir().expect("a directory");
    let at = |name: &str| root.join(name).display().to_string();
    let data = at("n1");
    let wait = "read line\n";
    let mut daemon = lookalike(scripts.path(), "up", wait, &["--data-dir", &data], false);
    let work = "sleep 1000 & sleep 1000 & wait\n";
    let attempt = at("n1/workloads/default/hello/0-1-0");
    let mut supervisor = lookalike(scripts.path(), "__supervise", work, &[&attempt], true);
    let mut reader = lookalike(scripts.path(), "tail", wait, &["-f", &at("n1.log")], false);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = processes::of(&root);
        // A shell that has forked and not yet become its command looks like the shell.
        if found.len() >= 4 && found.iter().filter(|p| p.supervisor).count() == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "{found:?}");
        std::thread::yield_now();
    }
    assert!(processes::of(&root.join("n2")).is_empty());
    drop(Flock::of(layout));
    assert_eq!(processes::of(&root), []);
    assert!(!root.exists());
    assert!(daemon.wait().is_ok_and(|status| !status.success()));
    assert!(supervisor.wait().is_ok());
    assert!(
        reader.try_wait().is_ok_and(|ended| ended.is_none()),
        "it only reads"
    );
    drop(reader.stdin.take());
    assert!(reader.wait().is_ok());
}

#[test]
fn a_demo_that_was_killed_is_ended_by_its_watch() {
    let layout = Layout::create().expect("a directory");
    let root = layout.root().to_owned();
    let scripts = tempfile::tempdir().expect("a directory");
    let data = root.join("n1").display().to_string();
    let words = ["--data-dir", &data];
    let mut daemon = lookalike(scripts.path(), "up", "read line\n", &words, false);
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes::of(&root).is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let watched = root.clone();
    let watch = std::thread::spawn(move || end_when_closed(reader, &watched));
    assert!(
        root.exists(),
        "the demo lives as long as its end of the pipe"
    );
    drop(writer);
    watch.join().expect("it does not panic");
    assert!(!root.exists());
    assert!(daemon.wait().is_ok_and(|status| !status.success()));
}

#[test]
fn memory_of_a_process() {
    let own = processes::resident(std::process::id()).expect("Linux tells");
    assert!((1 << 20..1 << 40).contains(&own), "{own}");
    assert_eq!(processes::resident(u32::MAX), None);
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("a lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("a lock").clone()).expect("text")
    }
}

fn told(json: bool, ending: &Ending) -> (String, String) {
    let (out, err) = (Sink::default(), Sink::default());
    let streams = (Box::new(out.clone()), Box::new(err.clone()));
    let mut output = Output::new(streams.0, streams.1, Look::default(), || 0);
    let args = args(&[]).expect("defaults");
    let mut teller = Teller::new(&mut output, json, Summary::new(&args));
    teller.begins("working");
    teller.took("it worked", 1234).expect("it is told");
    teller.summary.deploy_ms = Some(250);
    teller.summary.rss_mb = vec![23.4];
    teller.summary.killed = Some(Killed {
        node: "n1".to_owned(),
        replicas: 1,
    });
    teller.cleaning(false);
    teller.finish(ending, None).expect("it is told");
    (out.text(), err.text())
}

#[test]
fn programs_get_one_object() {
    let (out, err) = told(true, &Ending::Told(Ok(())));
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON alone");
    assert_eq!(err, "");
    assert_eq!(value["ok"], true);
    assert_eq!(value["nodes"], 3);
    assert_eq!(value["replicas"], 3);
    assert_eq!(value["deploy_ms"], 250);
    assert_eq!(value["rss_mb"][0], 23.4);
    assert_eq!(
        (&value["calls"], &value["failed_calls"]),
        (&0.into(), &0.into())
    );
    assert_eq!(value["resolved"], 0);
    assert_eq!(value["runtime"], "process");
    for absent in ["detect_ms", "replace_ms", "error"] {
        assert!(value[absent].is_null(), "{absent}");
    }
    let (out, _) = told(
        true,
        &Ending::Told(Err(DemoError::Docker("gone".to_owned()))),
    );
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON alone");
    assert_eq!(value["ok"], false);
    assert_eq!(value["error"], "docker: gone");
}

#[test]
fn people_get_lines() {
    let (out, err) = told(false, &Ending::Told(Ok(())));
    assert!(out.starts_with("it worked  "), "{out}");
    assert!(
        out.lines().next().is_some_and(|l| l.ends_with("1.23 s")),
        "{out}"
    );
    assert!(out.ends_with("no file is left.\n"), "{out}");
    assert!(!out.contains('\u{1b}'), "no colours in a pipe");
    assert_eq!(err, "");
    let (_, err) = told(false, &Ending::Interrupted);
    assert_eq!(err, "Interrupted.\n");
}
