//! Commands beside replicas of the process runtime, through the node that runs them and through
//! another one.

#[expect(dead_code, reason = "its other half is for the tests of bad input")]
#[path = "bad_input/daemon.rs"]
mod daemon;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use dunlin_api::client::{Client, ExecInput, ExecOutput};
use dunlin_api::{ExecFrame, ExecStart, Replica, TerminalSize};

use daemon::{Daemon, base, until};

const COMPOSE: &str = "
services:
  web:
    command: [sh, -c, 'trap exit TERM; while :; do sleep 0.2; done']
    environment: {GREETING: hello}
    deploy:
      replicas: 2
      placement:
        preferences: [{spread: node.id}]
    x-dunlin:
      runtime: process
";

/// What a command said on both streams, and its exit code.
struct Ended {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

fn begin(daemon: &Daemon, words: &[&str]) -> Child {
    let mut command = base(&[&["-H", &daemon.host(), "exec"], words].concat());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("it starts")
}

fn exec(daemon: &Daemon, words: &[&str], input: &[u8]) -> Ended {
    let mut child = begin(daemon, words);
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    // One that reads nothing ends before all is written.
    let _written = feeding.join().expect("no panic");
    Ended {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The slot that runs on the node of this name.
fn slot_on(daemon: &Daemon, node: &str) -> String {
    let listed = daemon.ask(&["ps", "-q", "--node", node]).expect(0, &[]);
    let name = listed.text.trim().to_owned();
    assert!(name.starts_with("web."), "{name}");
    name
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_some_and(|state| !state.starts_with('Z'))
}

#[test]
fn commands_run_beside_replicas_of_either_node() {
    let one = Daemon::start("n1", &[]);
    let two = Daemon::start("n2", &["--join", &one.ticket()]);
    until("a cluster of two", || one.sees(2) && two.sees(2));
    one.deploy(COMPOSE, &["--timeout", "60s"]).expect(0, &[]);
    let [here, there] = ["n1", "n2"].map(|node| slot_on(&one, node));
    until("two's own knowledge of them", || {
        two.ask(&["ps", "-q"]).text.lines().count() == 2
    });
    for slot in [&here, &there] {
        passes_everything_on(&one, slot);
        ends_with_its_client(&one, slot);
    }
    has_a_terminal(&one, "web", &there);
    names_a_node_instead_of_a_slot(&one);
    refuses_what_is_not_there(&one);
    let told = two
        .ask(&["events"])
        .expect(0, &["' in default/web", "exit code 7"]);
    assert!(
        told.text.contains("root (uid 0) runs 'sh -c"),
        "{}",
        told.text
    );
    a_mere_node_may_not_ask_others(&one, &here);
}

fn passes_everything_on(daemon: &Daemon, slot: &str) {
    let script = "echo $GREETING $DUNLIN_SERVICE.$DUNLIN_SLOT $EXTRA; cat; echo oops >&2; exit 7";
    let words = ["-i", "-e", "EXTRA=more", slot, "sh", "-c", script];
    let ended = exec(daemon, &words, b"line\n");
    assert_eq!(ended.code, Some(7), "{}", ended.err);
    assert_eq!(ended.text(), format!("hello {slot} more\nline\n"));
    assert_eq!(ended.err, "oops\n");

    // Far more than all buffers on the way, in both directions.
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    let ended = exec(daemon, &["-i", slot, "cat"], &large);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out == large, "{} bytes came back", ended.out.len());

    // Without -i nothing is read, and what it has started ends with it.
    let ended = exec(
        daemon,
        &[slot, "sh", "-c", "cat; sleep 1000 & echo $!"],
        b"no",
    );
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let left: u32 = ended.text().trim().parse().expect("a process id");
    until("the end of what was left in the background", || {
        !is_alive(left)
    });

    // Its limits are those of the replica.
    let beside = exec(daemon, &[slot, "cat", "/proc/self/cgroup"], b"");
    assert_eq!(
        beside.text(),
        cgroup_of_replica(daemon, slot),
        "{}",
        beside.err
    );

    let killed = exec(daemon, &[slot, "sh", "-c", "kill -9 $$"], b"");
    assert_eq!(killed.code, Some(137));
    let ended = exec(daemon, &["-w", "/", slot, "pwd"], b"");
    assert_eq!(ended.text(), "/\n");
}

fn cgroup_of_replica(daemon: &Daemon, slot: &str) -> String {
    let listed = daemon.ask(&["--json", "ps"]).expect(0, &[]);
    let replicas: Vec<Replica> = serde_json::from_str(&listed.text).expect("replicas");
    let (_, number) = slot.rsplit_once('.').expect("a slot");
    let mut replicas = replicas.into_iter();
    let replica = replicas.find(|replica| replica.slot.to_string() == number);
    let workload = replica.and_then(|r| r.workload).expect("a process");
    let pid = workload.strip_prefix("pid ").expect("a process id");
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroup")
}

/// The client is killed: nothing of the command is left.
fn ends_with_its_client(daemon: &Daemon, slot: &str) {
    let script = "sleep 1000 & echo $$ $!; sleep 1000";
    // One that reads its input, and one that does not although some waits.
    for (words, input) in [
        (&[slot, "sh", "-c", script][..], 0),
        (&["-i", slot, "sh", "-c", script][..], 3_000_000),
    ] {
        let mut child = begin(daemon, words);
        let mut stdin = child.stdin.take().expect("a pipe");
        let feeding = std::thread::spawn(move || stdin.write_all(&vec![7; input]));
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        out.read_line(&mut line).expect("its numbers");
        let pids: Vec<u32> = line.split_whitespace().flat_map(str::parse).collect();
        assert!(
            pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)),
            "{line}"
        );
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        until("the end of a command without a client", || {
            pids.iter().all(|pid| !is_alive(*pid))
        });
        let _broken = feeding.join().expect("no panic");
    }
}

/// With a terminal of its own, whose size follows that of the client.
fn has_a_terminal(daemon: &Daemon, service: &str, slot: &str) {
    let ended = exec(
        daemon,
        &["-t", slot, "sh", "-c", "test -t 0 && stty size"],
        b"",
    );
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "24 80\r\n"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let size = |rows, columns| TerminalSize { rows, columns };
        let start = ExecStart {
            slot: slot.rsplit_once('.').map(|(_, slot)| slot.to_owned()),
            command: [
                "sh",
                "-c",
                "stty -echo; echo begun; read line; stty size; cat",
            ]
            .map(str::to_owned)
            .to_vec(),
            stdin: true,
            terminal: Some(size(30, 100)),
            ..ExecStart::default()
        };
        let client = Client::from_host(&daemon.host()).expect("a host");
        let service = service.parse().expect("a name");
        let (mut input, mut output) = client.exec(&service, start).await.expect("it runs");
        let began = output.next().await.expect("a frame");
        assert!(matches!(began, Some(ExecFrame::Started(_))), "{began:?}");
        printed(&mut output, "begun\r\n").await;
        send(&mut input, ExecFrame::Resize(size(40, 120))).await;
        send(&mut input, ExecFrame::Input("go\n".into())).await;
        printed(&mut output, "40 120\r\n").await;
        send(&mut input, ExecFrame::InputEnd).await;
        loop {
            match output.next().await.expect("a frame") {
                Some(ExecFrame::Exit(code)) => break assert_eq!(code, 0),
                Some(ExecFrame::Ping | ExecFrame::Output(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(output.next().await.expect("the end").is_none());
    });
}

async fn send(input: &mut ExecInput, frame: ExecFrame) {
    assert!(input.send(&frame).await, "it takes no more");
}

async fn printed(output: &mut ExecOutput, expected: &str) {
    let mut text = Vec::new();
    while text.len() < expected.len() {
        match output.next().await.expect("a frame") {
            Some(ExecFrame::Output(bytes)) => text.extend_from_slice(&bytes),
            Some(ExecFrame::Ping) => {}
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&text)),
        }
    }
    assert_eq!(String::from_utf8_lossy(&text), expected);
}

fn names_a_node_instead_of_a_slot(daemon: &Daemon) {
    let ended = exec(daemon, &["web.n2", "sh", "-c", "echo $DUNLIN_NODE"], b"");
    assert_eq!(ended.text(), "n2\n", "{}", ended.err);
    // Any replica will do, rather one of the node that is asked.
    let ended = exec(daemon, &["web", "sh", "-c", "echo $DUNLIN_NODE"], b"");
    assert_eq!(ended.text(), "n1\n", "{}", ended.err);
}

fn refuses_what_is_not_there(daemon: &Daemon) {
    let ended = exec(daemon, &["web", "no-such-program"], b"");
    assert_eq!(ended.code, Some(127));
    assert!(
        ended.err.contains("no program 'no-such-program'"),
        "{}",
        ended.err
    );
    let ended = exec(daemon, &["web.9", "true"], b"");
    assert_eq!(ended.code, Some(5), "{}", ended.err);
    assert!(ended.err.contains("web has no replica 9"), "{}", ended.err);
    let ended = exec(daemon, &["nobody", "true"], b"");
    assert_eq!(ended.code, Some(5), "{}", ended.err);
    let ended = exec(daemon, &["-it", "web", "true"], b"");
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("no terminal"), "{}", ended.err);
}

/// A node that may not change services has no shell on others by this way either.
fn a_mere_node_may_not_ask_others(one: &Daemon, slot: &str) {
    let said = one.ask(&["ticket"]).expect(0, &["dunlin2-"]);
    let ticket = said
        .text
        .split_whitespace()
        .find(|w| w.starts_with("dunlin2-"));
    let three = Daemon::start("n3", &["--join", ticket.expect("a ticket")]);
    until("its knowledge of the replicas", || {
        three.ask(&["ps", "-q"]).text.lines().count() == 2
    });
    let ended = exec(&three, &[slot, "true"], b"");
    assert_eq!(ended.code, Some(7), "{}", ended.err);
    assert!(
        ended.err.contains("may not change services"),
        "{}",
        ended.err
    );
    assert!(Path::new(&three.directory).exists());
}

#[test]
fn the_daemons_end_ends_commands() {
    let mut one = Daemon::start("n1", &[]);
    let text = COMPOSE.replace("replicas: 2", "replicas: 1");
    one.deploy(&text, &["--timeout", "60s"]).expect(0, &[]);
    let mut child = begin(&one, &["web", "sh", "-c", "echo $$; sleep 1000"]);
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    out.read_line(&mut line).expect("its number");
    let pid: u32 = line.trim().parse().expect("a process id");
    assert!(is_alive(pid));
    one.end();
    until("the end of a command without a daemon", || !is_alive(pid));
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(3));
    let mut err = String::new();
    let mut stderr = child.stderr.take().expect("a pipe");
    stderr.read_to_string(&mut err).expect("text");
    assert!(err.contains("hung up"), "{err}");
    one.restart(|_| {}, &[]);
}
