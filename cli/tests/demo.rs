//! `dunlin demo` and `dunlin whoami` as a person runs them: real daemons, real signals.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longest wait for something that should take a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

fn dunlin(words: &[&str], temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
    command
        .args(words)
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process number");
    kill_process(Pid::from_raw(pid).expect("not zero"), signal).expect("it runs");
}

/// Whether any process names this directory on its command line.
fn is_named(directory: &Path) -> bool {
    let wanted = directory.display().to_string();
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    processes
        .filter_map(|p| fs::read(p.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).contains(&wanted))
}

#[track_caller]
fn nothing_is_left(temporary: &Path) {
    let left: Vec<_> = fs::read_dir(temporary)
        .expect("it is there")
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!is_named(temporary));
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn the_demo_shows_a_cluster_that_heals() {
    let temporary = tempfile::tempdir().expect("a directory");
    let words = ["demo", "--json", "--nodes", "3", "--replicas", "4"];
    let output = dunlin(&words, temporary.path()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let summary: Value = serde_json::from_str(&text).unwrap_or_default();
    assert_eq!(summary["ok"], true, "{text}{output:?}");
    assert!(output.status.success());
    assert_eq!(
        (&summary["nodes"], &summary["replicas"]),
        (&3.into(), &4.into())
    );
    for time in [
        "start_ms",
        "deploy_ms",
        "detect_ms",
        "replace_ms",
        "scale_ms",
    ] {
        assert!(
            summary[time].as_u64().is_some_and(|ms| ms > 0),
            "{time}: {text}"
        );
    }
    assert_eq!(summary["rss_mb"].as_array().map(Vec::len), Some(3));
    assert_eq!(summary["scaled_to"], 8);
    // Three daemons after the deploy, two after the kill, two after the scale-up.
    assert_eq!(summary["resolved"], 7);
    assert_eq!(summary["failed_calls"], 0);
    assert!(summary["calls"].as_u64().is_some_and(|n| n >= 7), "{text}");
    nothing_is_left(temporary.path());
}

/// A demo that has daemons and replicas by now, and what it prints from then on.
fn running_demo(temporary: &Path) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut demo = dunlin(&["demo"], temporary).spawn().expect("it runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
    let told = lines
        .by_ref()
        .flatten()
        .any(|line| line.starts_with("hello runs with"));
    assert!(told);
    (demo, lines)
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let temporary = tempfile::tempdir().expect("a directory");
    let (mut demo, lines) = running_demo(temporary.path());
    signal(&demo, Signal::INT);
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = demo.wait().expect("it ends");
    assert_eq!(status.code(), Some(130), "{rest:?}");
    nothing_is_left(temporary.path());
}

#[test]
fn a_killed_demo_leaves_nothing() {
    let temporary = tempfile::tempdir().expect("a directory");
    let (mut demo, _lines) = running_demo(temporary.path());
    signal(&demo, Signal::KILL);
    demo.wait().expect("it ends");
    until("the cleaning up", || {
        let empty = fs::read_dir(temporary.path()).expect("it is there").count() == 0;
        empty && !is_named(temporary.path())
    });
}

#[test]
fn whoami_ends_well_when_it_is_asked_to() {
    let temporary = tempfile::tempdir().expect("a directory");
    let words = ["whoami", "--bind", "127.0.0.1", "--port", "0"];
    let mut whoami = dunlin(&words, temporary.path()).spawn().expect("it runs");
    let mut lines = BufReader::new(whoami.stdout.take().expect("a pipe")).lines();
    let line = lines.next().expect("a line").expect("text");
    let address = line.strip_prefix("listening on ").expect("an address");
    let mut idle = TcpStream::connect(address).expect("it listens");
    signal(&whoami, Signal::TERM);
    assert!(whoami.wait().expect("it ends").success());
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = idle.read_to_end(&mut bytes);
    assert!(bytes.is_empty());
}

#[test]
fn a_port_in_use_is_told() {
    let temporary = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let words = ["whoami", "--bind", "127.0.0.1", "--port", &port];
    let output = dunlin(&words, temporary.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("cannot listen on 127.0.0.1"), "{text}");
}
