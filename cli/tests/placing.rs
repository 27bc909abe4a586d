//! Whole daemons: who gives way to whom, what is moved to a node that joins, what a node does that is
//! cut off, and nodes that are worked on.

#[expect(dead_code, reason = "its other half is for the tests of bad input")]
#[path = "bad_input/daemon.rs"]
mod daemon;

use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_api::{Node, Replica};
use dunlin_state::windows::in_words;

use daemon::{Daemon, until};

const BODY: &str = "command: [sh, -c, 'trap exit TERM; while :; do sleep 0.2; done']";

fn replicas(daemon: &Daemon, service: &str) -> Vec<Replica> {
    let said = daemon.ask(&["--json", "ps", service]);
    serde_json::from_str(&said.text).unwrap_or_default()
}

/// Slots that are served, as a daemon sees it.
fn served(daemon: &Daemon, service: &str) -> usize {
    let mut slots: Vec<_> = replicas(daemon, service)
        .into_iter()
        .filter(|replica| replica.ready)
        .map(|replica| replica.slot)
        .collect();
    slots.sort();
    slots.dedup();
    slots.len()
}

fn served_on(daemon: &Daemon, service: &str, node: &str) -> usize {
    let all = replicas(daemon, service).into_iter();
    all.filter(|r| r.ready && r.node_name == node).count()
}

fn nodes(daemon: &Daemon) -> Vec<Node> {
    let said = daemon.ask(&["--json", "nodes"]).expect(0, &[]);
    serde_json::from_str(&said.text).expect("a list of nodes")
}

/// A service of which one replica takes more than half of a node's memory.
fn large(name: &str, priority: i32, replicas: u32, memory: u64) -> String {
    format!(
        "services:\n  {name}:\n    {BODY}\n    deploy:\n      replicas: {replicas}\n      resources: \
         {{reservations: {{memory: {memory}}}}}\n    x-dunlin: {{runtime: process, priority: {priority}}}\n"
    )
}

#[test]
fn what_matters_more_takes_the_place_of_what_matters_less() {
    let one = Daemon::start("n1", &[]);
    let two = Daemon::start("n2", &["--join", &one.ticket()]);
    until("a cluster of two", || one.sees(2) && two.sees(2));
    let least = nodes(&one).iter().map(|n| n.capacity.memory).min();
    let memory = least.expect("two nodes") / 10 * 6;
    one.deploy(&large("batch", 0, 2, memory), &["--timeout", "60s"])
        .expect(0, &[]);
    let shop = large("shop", 10, 1, memory);
    let file = one.directory.join("shop.yaml");
    std::fs::write(&file, &shop).expect("it is written");
    let path = file.to_str().expect("text");
    one.ask(&["plan", path])
        .expect(0, &["WOULD GIVE WAY", "batch.", "1 of lower priorities"]);
    one.deploy(&shop, &["--timeout", "60s"]).expect(0, &[]);
    until("the one that had to go", || served(&two, "batch") == 1);
    until("why it waits", || {
        two.ask(&["explain", "batch"])
            .text
            .contains("preempted by default/shop")
    });
    one.ask(&["rm", "shop"]).expect(0, &[]);
    until("its return", || served(&two, "batch") == 2);
}

#[test]
fn a_node_that_joins_is_given_work_when_somebody_asks() {
    let one = Daemon::start("n1", &[]);
    let compose = format!(
        "services:\n  web:\n    {BODY}\n    deploy:\n      replicas: 4\n      update_config: {{monitor: \
         1s}}\n    x-dunlin: {{runtime: process}}\n"
    );
    one.deploy(&compose, &["--timeout", "60s"]).expect(0, &[]);
    let two = Daemon::start("n2", &["--join", &one.ticket()]);
    until("a cluster of two", || one.sees(2) && two.sees(2));
    until("what would move", || {
        let said = one.ask(&["rebalance", "--plan"]);
        said.code == Some(0) && said.text.contains("2 replicas would move")
    });
    one.ask(&["rebalance", "--auto", "off"]).expect(0, &[]);
    one.ask(&["rebalance"]).expect(0, &[]);
    until("two of them on the new node", || {
        let served = served(&one, "web");
        assert!(served == 4 || served == 0, "{served} of 4 are served");
        served_on(&one, "web", "n2") == 2 && replicas(&one, "web").len() == 4
    });
    until("an end of it", || {
        let said = two.ask(&["rebalance", "--plan"]);
        said.text.contains("0 replicas would move")
    });
    works_on_a_node(&one);
}

/// A window that has opened empties the node, and it takes work again when the window is removed.
fn works_on_a_node(daemon: &Daemon) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = u64::try_from(since.expect("after 1970").as_millis()).expect("small");
    let begun = in_words(now - 120_000);
    let at = begun.trim_end_matches(" UTC");
    daemon
        .ask(&["maintenance", "add", "n2", "--at", at, "--for", "2h"])
        .expect(0, &["changed"]);
    until("an empty node", || {
        served_on(daemon, "web", "n2") == 0 && served_on(daemon, "web", "n1") == 4
    });
    daemon.ask(&["nodes"]).expect(0, &["maintenance until"]);
    daemon
        .ask(&["explain", "web"])
        .expect(0, &["is in maintenance until"]);
    let listed = nodes(daemon);
    let windows = listed.iter().flat_map(|n| &n.maintenance.windows);
    let id = windows.map(|w| w.id.clone()).next().expect("a window");
    daemon
        .ask(&["maintenance", "rm", "n2", &id])
        .expect(0, &["changed"]);
    daemon
        .ask(&["scale", "web=8", "--timeout", "60s"])
        .expect(0, &[]);
    until("work on it again", || served_on(daemon, "web", "n2") > 0);
}

#[test]
fn a_node_that_is_cut_off_stops_what_should_not_go_on() {
    let one = Daemon::start("n1", &[]);
    let mut two = Daemon::start("n2", &["--join", &one.ticket()]);
    let mut three = Daemon::start("n3", &["--join", &one.ticket()]);
    until("a cluster of three", || {
        [&one, &two, &three].iter().all(|daemon| daemon.sees(3))
    });
    let service = |name: &str, rule: &str| {
        format!(
            "  {name}:\n    {BODY}\n    deploy: {{mode: global}}\n    x-dunlin: {{runtime: process, \
             on_isolation: {rule}}}\n"
        )
    };
    let compose = format!(
        "services:\n{}{}",
        service("careful", "stop-after 1s"),
        service("stubborn", "keep")
    );
    one.deploy(&compose, &["--timeout", "60s"]).expect(0, &[]);
    // Of three nodes one alone is fewer than half.
    two.end();
    three.end();
    until("what it stops", || served_on(&one, "careful", "n1") == 0);
    assert_eq!(served_on(&one, "stubborn", "n1"), 1);
    two.restart(|_| {}, &[]);
    until("its start with the others", || {
        served_on(&one, "careful", "n1") == 1
    });
    three.restart(|_| {}, &[]);
}
