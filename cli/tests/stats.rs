//! What replicas use and write, asked of one of two nodes, before and after the other one is killed.

#[expect(dead_code, reason = "its other half is for the tests of bad input")]
#[path = "bad_input/daemon.rs"]
mod daemon;

use std::collections::BTreeMap;

use dunlin_api::StatsRecord;

use daemon::{Daemon, until};

/// Two lines, then busy for a part of the time.
const COMPOSE: &str = "
services:
  web:
    command: [sh, -c, 'trap exit TERM; echo begun; echo turn; while :; do i=0; while [ $$i -lt 20000 ]; do i=$$((i+1)); done; sleep 0.3; done']
    deploy:
      replicas: 2
      placement:
        preferences: [{spread: node.id}]
    x-dunlin:
      runtime: process
  chatty:
    command: [sh, -c, 'trap exit TERM; while :; do echo more; sleep 0.02; done']
    x-dunlin:
      runtime: process
";

/// Node, CPU and memory of each replica.
fn used(daemon: &Daemon) -> BTreeMap<String, (Option<u64>, Option<u64>)> {
    let said = daemon
        .ask(&["--json", "stats", "--no-stream", "web"])
        .expect(0, &[]);
    let records = said.text.lines().map(serde_json::from_str::<StatsRecord>);
    let records: Vec<_> = records.map(|record| record.expect("a record")).collect();
    assert_eq!(records.last(), Some(&StatsRecord::End));
    let replicas = records.into_iter().filter_map(|record| match record {
        StatsRecord::Replica {
            node_name,
            cpu_millis,
            memory,
            ..
        } => Some((node_name, (cpu_millis, memory))),
        _ => None,
    });
    replicas.collect()
}

#[test]
fn what_replicas_use_and_write_is_told_by_any_node() {
    let one = Daemon::start("n1", &[]);
    let mut two = Daemon::start("n2", &["--join", &one.ticket()]);
    until("a cluster of two", || one.sees(2) && two.sees(2));
    one.deploy(COMPOSE, &["--timeout", "60s"]).expect(0, &[]);
    for daemon in [&one, &two] {
        until("work of both replicas", || {
            let used = used(daemon);
            let busy = |node: &str| {
                let (cpu, memory) = used.get(node).copied().unwrap_or_default();
                cpu.is_some_and(|cpu| cpu > 0) && memory.is_some_and(|memory| memory > 100_000)
            };
            busy("n1") && busy("n2")
        });
        until("lines of both replicas", || {
            let said = daemon.ask(&["logs", "--timestamps", "--since", "10m", "web"]);
            said.code == Some(0)
                && ["web.0 | 20", "web.1 | 20"]
                    .iter()
                    .all(|part| said.text.contains(part))
        });
        let tail = daemon.ask(&["logs", "--tail", "1", "web.0"]).expect(0, &[]);
        assert_eq!(tail.text, "turn\n");
        // There is always more of it, and yet an end of what there was.
        daemon.ask(&["logs", "chatty"]).expect(0, &["more"]);
    }
    one.ask(&["stats", "--no-stream"])
        .expect(0, &["NAME", "web.0", "web.1", "n1", "n2", "%"]);
    one.ask(&["stats", "nobody"]).expect(5, &["default/nobody"]);

    two.end();
    let missing = |words: &[&str]| {
        let said = one.ask(words);
        said.code == Some(3) && said.text.contains(" of n2 are missing")
    };
    until("n2 named as missing", || {
        missing(&["stats", "--no-stream", "web"])
    });
    until("lines of n2 named as missing", || missing(&["logs", "web"]));
    two.restart(|_| {}, &[]);
}
