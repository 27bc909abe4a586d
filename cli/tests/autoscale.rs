//! Services that follow their load, with two daemons and real processes: connections and CPU time
//! bring replicas, silence takes them away, and the first connection brings one back.

#[expect(dead_code, reason = "its other half is for the tests of bad input")]
#[path = "bad_input/daemon.rs"]
mod daemon;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use dunlin_api::{RouteList, ServiceSummary};

use daemon::{Daemon, until};

const COMPOSE: &str = "
services:
  web:
    command: [PROGRAM, whoami]
    expose: ['PORT']
    x-dunlin:
      runtime: process
      autoscale:
        min: 0
        max: 3
        targets: {connections: 2}
        down_window: 5s
        zero_after: 5s
  busy:
    command: [sh, -c, 'trap exit TERM; while :; do i=0; while [ $$i -lt 20000 ]; do i=$$((i+1)); done; sleep 0.1; done']
    x-dunlin:
      runtime: process
      autoscale:
        max: 2
        targets: {cpu: 0.02, memory: 10g}
";

/// Another one for each test process.
fn port() -> u16 {
    20_000 + u16::try_from(std::process::id() % 10_000).expect("small")
}

fn summary(daemon: &Daemon, service: &str) -> Option<ServiceSummary> {
    let said = daemon.ask(&["--json", "ls"]).expect(0, &[]);
    let all: Vec<ServiceSummary> = serde_json::from_str(&said.text).expect("services");
    all.into_iter().find(|s| s.service.name() == service)
}

/// Ready replicas and wanted ones.
fn counts(daemon: &Daemon, service: &str) -> (u32, u32) {
    let found = summary(daemon, service);
    found.map_or((0, 0), |service| (service.ready, service.wanted))
}

fn virtual_address(daemon: &Daemon) -> Option<String> {
    let said = daemon.ask(&["--json", "routes", "web"]);
    let routes: RouteList = serde_json::from_str(&said.text).ok()?;
    Some(routes.services.first()?.addresses.first()?.to_string())
}

fn connect(address: &str) -> Option<TcpStream> {
    TcpStream::connect((address, port())).ok()
}

/// What is answered at an address; it may take as long as a service takes to wake.
fn ask(address: &str) -> Option<String> {
    let mut stream = connect(address)?;
    let request = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    answer.contains("200 OK").then_some(answer)
}

#[test]
fn replicas_follow_the_load_and_the_first_connection_wakes_a_service() {
    let one = Daemon::start("n1", &[]);
    let two = Daemon::start("n2", &["--join", &one.ticket()]);
    until("a cluster of two", || one.sees(2) && two.sees(2));
    let text = COMPOSE
        .replace("PROGRAM", env!("CARGO_BIN_EXE_dunlin"))
        .replace("PORT", &port().to_string());
    one.deploy(&text, &["--detach"]).expect(0, &[]);
    let mut places = Vec::new();
    for daemon in [&one, &two] {
        until("a virtual address", || {
            let address = virtual_address(daemon).filter(|a| connect(a).is_some());
            places.extend(address);
            !places.is_empty() && places.len() % 2 == usize::from(daemon.name == "n1")
        });
    }

    until("a second replica of what keeps a processor busy", || {
        counts(&two, "busy") == (2, 2)
    });
    one.ask(&["inspect", "busy"])
        .expect(0, &["1..2 replicas", "cores"]);

    // Three on each node: neither sees all of them.
    let held: Vec<TcpStream> = (0..6)
        .filter_map(|n| connect(&places[n % places.len()]))
        .collect();
    assert_eq!(held.len(), 6);
    until("a replica for every two connections", || {
        counts(&one, "web") == (3, 3) && counts(&two, "web") == (3, 3)
    });
    one.ask(&["ls"]).expect(0, &["3/3 (auto 0..3)"]);
    one.ask(&["explain", "web"])
        .expect(0, &["autoscale: 0..3 replicas"]);
    one.ask(&["scale", "web=1"])
        .expect(6, &["follows its load, between 0 and 3 replicas"]);

    drop(held);
    until("no replica when nobody connects", || {
        counts(&two, "web").1 == 0
    });
    until("a name for that", || {
        let said = two.ask(&["ps", "web"]);
        said.text.contains("asleep") && !said.text.contains("web.0")
    });
    for address in &places {
        let answer = ask(address);
        assert!(answer.is_some(), "{}\n{}", one.log(), two.log());
    }
    assert!(counts(&one, "web").1 >= 1);
}
