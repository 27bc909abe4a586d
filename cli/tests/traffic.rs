//! What two daemons say of the connections through them: routes and metrics, before and after one
//! of them is killed.

#[expect(dead_code, reason = "its other half is for the tests of bad input")]
#[path = "bad_input/daemon.rs"]
mod daemon;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_api::{ReplicaRoute, RouteList, RouteUsage, Sample};

use daemon::{Daemon, until};

const COMPOSE: &str = "
services:
  web:
    command: [PROGRAM, whoami]
    ports: ['PORT:PORT']
    deploy:
      replicas: 2
      placement:
        preferences: [{spread: node.id}]
    x-dunlin:
      runtime: process
      balance: round-robin
";

/// The same with one replica on each node, and not just better so: a node that has not reported yet
/// takes none.
fn apart(text: &str) -> String {
    text.replace(
        "preferences: [{spread: node.id}]",
        "max_replicas_per_node: 1",
    )
}

/// The published port: another one for each test process.
fn port() -> u16 {
    20_000 + u16::try_from(std::process::id() % 10_000).expect("small")
}

fn routes(daemon: &Daemon) -> RouteList {
    let said = daemon.ask(&["--json", "routes", "web"]).expect(0, &[]);
    serde_json::from_str(&said.text).expect("routes")
}

/// The nodes whose replicas are used.
fn used(daemon: &Daemon) -> Vec<String> {
    let web = routes(daemon).services.remove(0);
    let replicas = web.replicas.into_iter();
    let used = replicas.filter(|r| r.usage == RouteUsage::Used && !r.ends.is_empty());
    used.map(|replica| replica.node_name).collect()
}

fn value(daemon: &Daemon, name: &str, label: Option<(&str, &str)>) -> f64 {
    let said = daemon.ask(&["--json", "metrics", name]).expect(0, &[]);
    let samples: Vec<Sample> = serde_json::from_str(&said.text).expect("samples");
    let mut of = samples.iter().filter(|sample| {
        let is = |(key, value): (&str, &str)| sample.labels.get(key).is_some_and(|l| l == value);
        sample.name == name && label.is_none_or(is)
    });
    of.next().map_or(0.0, |sample| sample.value)
}

/// Asks the published port of a daemon; whether a replica answered.
fn call(daemon: &Daemon) -> bool {
    ask(&daemon.address).is_some()
}

/// What is answered at an address.
fn ask(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect((address, port())).ok()?;
    let request = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    answer.contains("200 OK").then_some(answer)
}

/// Whether the names of each replica lead from this daemon to that replica alone, wherever it runs.
fn names_lead(daemon: &Daemon) -> bool {
    let leads = |replica: &ReplicaRoute| {
        let (slot, address) = (replica.slot, replica.addresses.first()?.to_string());
        let named = |name: &str| daemon.ask(&["dns", "query", name]).text.contains(&address);
        let whole = named(&format!("{slot}.web")) && named("tasks.web");
        let answer = ask(&address).filter(|_| whole)?;
        answer.contains(&format!("\"slot\":{slot},")).then_some(())
    };
    let replicas = routes(daemon).services.remove(0).replicas;
    replicas.len() == 2 && replicas.iter().all(|replica| leads(replica).is_some())
}

#[test]
fn routes_and_metrics_tell_what_happens() {
    let one = Daemon::start("n1", &[]);
    let mut two = Daemon::start("n2", &["--join", &one.ticket()]);
    until("a cluster of two", || one.sees(2));
    let text = COMPOSE
        .replace("PROGRAM", env!("CARGO_BIN_EXE_dunlin"))
        .replace("PORT", &port().to_string());
    one.deploy(&apart(&text), &["--timeout", "60s"])
        .expect(0, &[]);
    until("both replicas in use", || {
        BTreeSet::from_iter(used(&one)) == BTreeSet::from(["n1".to_owned(), "n2".to_owned()])
    });
    one.ask(&["routes", "web"]).expect(
        0,
        &[
            "web.default.dunlin.internal",
            "balance=round-robin",
            &format!(":{}", port()),
            "n2",
        ],
    );
    one.ask(&["routes", "nobody"])
        .expect(5, &["default/nobody"]);

    for daemon in [&one, &two] {
        until("names that lead to each replica", || names_lead(daemon));
    }

    let service = ("service", "web");
    let before = value(&one, "dunlin_proxy_connections_total", Some(service));
    let mut calls = 0.0;
    // Every second one goes to the other node.
    until("a call that n1 brings to n2", || {
        assert!(call(&one), "{}", one.log());
        calls += 1.0;
        calls >= 4.0 && value(&two, "dunlin_hop_streams_total", None) >= 1.0
    });
    assert_eq!(
        value(&one, "dunlin_proxy_connections_total", Some(service)),
        before + calls
    );
    assert_eq!(
        value(&one, "dunlin_proxy_connect_seconds_count", Some(service)),
        before + calls
    );
    assert!(value(&one, "dunlin_proxy_sent_bytes_total", Some(service)) > 100.0);

    two.end();
    one.deploy(&text, &["--detach"]).expect(0, &[]);
    until("replicas that are used on n1 alone", || {
        used(&one) == ["n1", "n1"]
    });
    assert_eq!(value(&one, "dunlin_nodes", Some(("state", "down"))), 1.0);
    assert!(call(&one), "{}", one.log());
}

/// Calls an address over and over until it is told to stop; what was answered, and what went wrong.
fn keep_calling(address: &str, stop: &AtomicBool) -> (u64, Vec<String>) {
    let (mut answered, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let request = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
        let mut answer = String::new();
        let called = TcpStream::connect((address, port())).and_then(|mut stream| {
            stream.write_all(request)?;
            stream.read_to_string(&mut answer)
        });
        match called {
            Ok(_) if answer.contains("200 OK") => answered += 1,
            Ok(_) => failed.push(format!("answered {answer:?}")),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (answered, failed)
}

/// Where a daemon answers DNS queries.
fn name_server(daemon: &Daemon) -> SocketAddr {
    let log = daemon.log();
    let (_, said) = log
        .split_once("names are answered addresses=[")
        .expect("a DNS server");
    let (address, _) = said.split_once(']').expect("addresses");
    address.parse().expect("an address")
}

/// Asks a daemon's DNS server for a service over and over; how often it answered, and what went wrong.
fn keep_resolving(server: SocketAddr, stop: &AtomicBool) -> (u64, Vec<String>) {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["web", "default", "dunlin", "internal", ""] {
        query.push(u8::try_from(label.len()).expect("a label"));
        query.extend(label.as_bytes());
    }
    query.extend([0, 1, 0, 1]);
    let socket = UdpSocket::bind((server.ip(), 0)).expect("a socket");
    socket.connect(server).expect("a server");
    let patience = Some(Duration::from_secs(60));
    socket.set_read_timeout(patience).expect("a timeout");
    let (mut answered, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let mut answer = [0; 512];
        let asked = socket.send(&query).and_then(|_| socket.recv(&mut answer));
        // The code of the answer, and how many records it has.
        match asked.map(|_| (answer[3] & 0xf, answer[7])) {
            Ok((0, 1)) => answered += 1,
            other => failed.push(format!("{other:?}")),
        }
    }
    (answered, failed)
}

#[test]
fn a_daemon_is_replaced_by_the_next_and_nobody_is_refused() {
    // Longer than any start on a busy machine takes.
    let more = ["--hand-over", "60s"];
    let mut one = Daemon::start("n1", &more);
    let two = Daemon::start("n2", &["--join", &one.ticket()]);
    until("a cluster of two", || one.sees(2));
    let text = COMPOSE
        .replace("PROGRAM", env!("CARGO_BIN_EXE_dunlin"))
        .replace("PORT", &port().to_string())
        // Surely one on each, and not just better so.
        .replace(
            "preferences: [{spread: node.id}]",
            "max_replicas_per_node: 1",
        );
    one.deploy(&text, &["--timeout", "60s"]).expect(0, &[]);
    let both = || BTreeSet::from(["n1".to_owned(), "n2".to_owned()]);
    for daemon in [&one, &two] {
        until("both replicas in use", || {
            BTreeSet::from_iter(used(daemon)) == both() && call(daemon)
        });
    }
    let virtual_one = routes(&one).services[0].addresses[0].to_string();
    until("an answer at the virtual address", || {
        ask(&virtual_one).is_some()
    });
    let places = [
        one.address.clone(),
        virtual_one.clone(),
        two.address.clone(),
    ];
    let names = name_server(&one);
    let stop = AtomicBool::new(false);
    let (resolved, counts) = std::thread::scope(|scope| {
        let stop = &stop;
        let calls = |place: &'_ String| {
            let place = place.clone();
            scope.spawn(move || keep_calling(&place, stop))
        };
        let running: Vec<_> = places.iter().map(calls).collect();
        let resolving = scope.spawn(move || keep_resolving(names, stop));
        for _ in 0..2 {
            one.upgrade(&more);
            until("both replicas in use again", || {
                BTreeSet::from_iter(used(&one)) == both()
            });
        }
        stop.store(true, Ordering::Relaxed);
        let ended = running
            .into_iter()
            .map(|calls| calls.join().expect("calls"));
        let resolved = resolving.join().expect("queries");
        (resolved, ended.collect::<Vec<_>>())
    });
    println!("{names}: {} queries answered", resolved.0);
    assert!(resolved.0 > 0 && resolved.1.is_empty(), "{:?}", resolved.1);
    for (place, (answered, failed)) in places.iter().zip(&counts) {
        println!(
            "{place}: {answered} calls answered, {} failed",
            failed.len()
        );
        let refused = failed.iter().any(|error| error.contains("refused"));
        // Of those that were open, one that took longer than its daemon's last three seconds.
        let fine = *answered > 0 && !refused && failed.len() <= 3;
        assert!(fine, "{failed:?}\n{}", one.log());
    }
    assert_eq!(
        routes(&one).services[0].addresses[0].to_string(),
        virtual_one
    );
    assert!(one.log().contains("taken over"), "{}", one.log());
}

#[test]
fn what_nobody_takes_over_is_closed_in_the_end() {
    let mut daemon = Daemon::start("n1", &["--hand-over", "1s"]);
    let text = COMPOSE
        .replace("PROGRAM", env!("CARGO_BIN_EXE_dunlin"))
        .replace("PORT", &port().to_string());
    daemon.deploy(&text, &["--timeout", "60s"]).expect(0, &[]);
    until("an answer", || call(&daemon));
    daemon.stop();
    assert!(daemon.log().contains("are held"), "{}", daemon.log());
    until("a port that is closed", || {
        TcpStream::connect((daemon.address.as_str(), port())).is_err()
    });
    let left = daemon.directory.join("listeners.sock");
    until("a holder that has ended", || !left.exists());
}

/// A database and two programs that keep asking it at its virtual address.
const APART: &str = "
services:
  db:
    command: [PROGRAM, whoami]
    expose: ['PORT']
    networks: [back]
    x-dunlin: {runtime: process}
networks: {back: {}, front: {}}
";
const CLIENTS: &str = "
services:
  insider: {command: [bash, -c, 'ASK'], networks: [front, back], x-dunlin: {runtime: process}}
  outsider: {command: [bash, -c, 'ASK'], networks: [front], x-dunlin: {runtime: process}}
networks: {back: {}, front: {}}
";
const ASK: &str = "while :; do \
    if exec 3<>/dev/tcp/ADDRESS/PORT && printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3 && read -r line <&3; \
    then echo answered; else echo turned away; fi; sleep 0.2; done";

/// Only root can read this folder.
fn is_root() -> bool {
    std::fs::read_dir("/proc/1/fd").is_ok()
}

#[test]
fn services_that_share_no_network_are_kept_apart() {
    let daemon = Daemon::start("n1", &[]);
    let port = port().to_string();
    let db = APART
        .replace("PROGRAM", env!("CARGO_BIN_EXE_dunlin"))
        .replace("PORT", &port);
    daemon.deploy(&db, &["--timeout", "60s"]).expect(0, &[]);
    let said = daemon.ask(&["--json", "routes", "db"]).expect(0, &[]);
    let routes: RouteList = serde_json::from_str(&said.text).expect("routes");
    // Where a replica can have a resolv.conf of its own, it knows the short name with no user action.
    let by_name = Path::new("/etc/resolv.conf").exists() && daemon.log().contains(":53] suffix");
    let address = match by_name && is_root() {
        true => "db".to_owned(),
        false => routes.services[0].addresses[0].to_string(),
    };
    let text = CLIENTS.replace(
        "ASK",
        &ASK.replace("ADDRESS", &address).replace("PORT", &port),
    );
    daemon.deploy(&text, &["--timeout", "60s"]).expect(0, &[]);
    let log = |service: &str| daemon.ask(&["logs", service]).expect(0, &[]).text;
    until("an answer for the insider", || {
        log("insider").contains("answered")
    });
    until("refusals of the outsider", || {
        let isolated = Some(("reason", "isolated"));
        value(&daemon, "dunlin_proxy_refused_total", isolated) >= 3.0
    });
    let outside = log("outsider");
    assert!(!outside.contains("answered"), "{outside}");
    assert!(!log("insider").contains("turned away"), "{}", daemon.log());
    daemon
        .ask(&["routes", "db"])
        .expect(0, &["networks: default/back"]);
    daemon
        .ask(&["explain", "insider"])
        .expect(0, &["networks: default/back, default/front"]);
    // One that is in the network from now on is let in.
    let text = text.replace("networks: [front], x-dunlin", "networks: [back], x-dunlin");
    daemon.deploy(&text, &["--timeout", "60s"]).expect(0, &[]);
    until("an answer for the former outsider", || {
        log("outsider").contains("answered")
    });
    daemon
        .ask(&["rm", "insider", "outsider", "db"])
        .expect(0, &[]);
    until("an empty node", || {
        daemon.ask(&["--json", "ps"]).text.trim() == "[]"
    });
}
