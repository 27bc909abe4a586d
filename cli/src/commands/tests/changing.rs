//! Commands that change the cluster.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn progress(name: &str, ready: u32, wanted: u32) -> ServiceProgress {
    ServiceProgress {
        service: name.parse().unwrap(),
        revision: "r1".into(),
        wanted,
        ready,
        updated: ready,
        converged: ready == wanted,
        reason: None,
        halted: None,
    }
}

/// A daemon that takes every change, and whose services get one replica more per question.
fn growing(wanted: u32) -> FakeDaemon {
    let asked = AtomicU32::new(0);
    FakeDaemon::start(move |request| {
        let changed = ChangeResponse { changed: true };
        if request.line.starts_with("GET /v1/services") {
            return Answer::json(&ServiceList { services: vec![] });
        }
        if request.line.starts_with("POST /v1/deploy") {
            let deploy: DeployRequest = serde_json::from_str(&request.body).unwrap();
            let services = deploy.services.into_iter().map(|s| DeployedService {
                service: s.service,
                revision: "r1".into(),
            });
            return Answer::json(&DeployResponse {
                changed: true,
                services: services.collect(),
            });
        }
        if request.line.starts_with("GET /v1/convergence") {
            let ready = asked.fetch_add(1, Ordering::Relaxed).min(wanted);
            return Answer::json(&Convergence {
                services: vec![progress("web", ready, wanted)],
            });
        }
        Answer::json(&changed)
    })
    .unwrap()
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("compose.yaml");
    std::fs::write(&path, text).unwrap();
    (directory, path.display().to_string())
}

#[tokio::test]
async fn deploy_sends_the_file_and_waits() {
    let (_directory, path) = file("services: {web: {image: nginx, deploy: {replicas: 2}}}\n");
    let daemon = growing(2);
    let ran = dunlin(&daemon, &["deploy", "-f", &path]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert!(ran.out.starts_with("web as wanted after "), "{}", ran.out);
    assert_eq!(ran.err, "web: 0/2 ready\nweb: 1/2 ready\nweb: 2/2 ready\n");
    let asked = daemon.asked();
    let deploy: DeployRequest = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(deploy.services[0].spec.image, "nginx");
    assert_eq!(deploy.services[0].replicas, Some(2));
    assert_eq!(asked[1].line, "GET /v1/convergence?service=default%2Fweb");
}

#[tokio::test]
async fn deploy_can_be_left_alone_or_tried_dry() {
    let (_directory, path) = file("services: {web: {image: nginx}}\n");
    let daemon = growing(1);
    let ran = dunlin(&daemon, &["deploy", &path, "--detach"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "web\n"));
    assert_eq!(daemon.asked().len(), 1);

    let daemon = growing(1);
    let ran = dunlin(&daemon, &["deploy", &path, "--dry-run", "-n", "shop"]).await;
    let json: Vec<DeployService> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json[0].service.to_string(), "shop/web");
    assert_eq!(daemon.asked(), []);
}

/// Takes at most so many services at a time, none of them called `bad`.
fn narrow(most: usize) -> FakeDaemon {
    FakeDaemon::start(move |request| {
        let deploy: DeployRequest = serde_json::from_str(&request.body).unwrap();
        if deploy.services.len() > most {
            return Answer::error(&ErrorBody::new(ErrorCode::TooLarge, "too large"));
        }
        if deploy.services.iter().any(|s| s.service.name() == "bad") {
            return Answer::error(&ErrorBody::new(ErrorCode::Invalid, "no"));
        }
        let services = deploy.services.into_iter().map(|s| DeployedService {
            service: s.service,
            revision: "r1".into(),
        });
        Answer::json(&DeployResponse {
            changed: true,
            services: services.collect(),
        })
    })
    .unwrap()
}

#[tokio::test]
async fn a_large_deploy_goes_in_several_changes() {
    let names: Vec<String> = (0..250).map(|n| format!("s{n:03}")).collect();
    let service = |name: &String| format!("  {name}: {{image: nginx}}\n");
    let text: String = names.iter().map(service).collect();
    let (_directory, path) = file(&format!("services:\n{text}"));
    let ran = dunlin(&narrow(40), &["deploy", &path, "-d"]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    let deployed: Vec<&str> = ran.out.lines().collect();
    assert_eq!(deployed, names);

    let (_directory, path) = file(&format!("services:\n{text}  bad: {{image: nginx}}\n"));
    let ran = dunlin(&narrow(500), &["deploy", &path, "-d"]).await;
    assert_eq!(ran.exit, Exit::Refused, "{}", ran.err);
    let told = "200 of 251 services are deployed, the others not";
    assert!(ran.err.contains(told), "{}", ran.err);
    // Nothing smaller than one service can be tried.
    let ran = dunlin(&narrow(0), &["deploy", &path, "-d"]).await;
    assert!(ran.err.contains("too large"), "{}", ran.err);
}

#[tokio::test]
async fn deploy_shows_every_fault_and_sends_nothing() {
    let (_directory, path) =
        file("services:\n  web:\n    image: nginx\n    foo: 1\n    ports: [x]\n");
    let daemon = growing(1);
    let ran = dunlin(&daemon, &["deploy", &path]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("compose.yaml:4:5"), "{}", ran.err);
    assert!(
        ran.err.contains("has 2 faults; nothing was changed"),
        "{}",
        ran.err
    );
    assert_eq!(daemon.asked(), []);
    let ran = dunlin(&daemon, &["deploy", "/nowhere/compose.yaml"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err.contains("cannot read /nowhere/compose.yaml"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn run_means_what_a_compose_file_means() {
    let daemon = growing(2);
    let words = [
        "run",
        "--replicas",
        "2",
        "-e",
        "K=$V",
        "-p",
        "8080:80/udp",
        "--cpus",
        "0.5",
        "-m",
        "64m",
        "--constraint",
        "node.labels.zone==north",
        "-l",
        "tier=front",
        "-v",
        "data:/data:ro",
        "ghcr.io/x/Web:1.2",
        "serve",
        "-x",
    ];
    let ran = dunlin(&daemon, &words).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    let asked = daemon.asked();
    let request = asked.iter().find(|a| a.line.starts_with("POST")).unwrap();
    let deploy: DeployRequest = serde_json::from_str(&request.body).unwrap();
    let DeployService {
        canary: _,
        service,
        spec,
        replicas,
    } = &deploy.services[0];
    assert_eq!(service.to_string(), "default/web");
    assert_eq!(*replicas, Some(2));
    assert_eq!(spec.image, "ghcr.io/x/Web:1.2");
    assert_eq!(spec.command, ["serve", "-x"]);
    assert_eq!(spec.environment["K"], "$V");
    assert_eq!(
        (spec.ports[0].target, spec.ports[0].published),
        (80, Some(8080))
    );
    assert_eq!(spec.reservation.cpu_millis, 500);
    assert_eq!(
        (spec.reservation.memory, spec.limit.memory),
        (64 << 20, 64 << 20)
    );
    assert_eq!(spec.placement.constraints[0].value(), "north");
    assert_eq!(spec.labels["tier"], "front");
    assert_eq!(
        (spec.volumes[0].source.as_str(), spec.volumes[0].read_only),
        ("data", true)
    );
}

#[tokio::test]
async fn run_of_a_host_process() {
    let daemon = growing(1);
    let words = ["run", "-d", "--", "/bin/sh", "-c", "echo 'a $HOME'"];
    let ran = dunlin(&daemon, &words).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Ok, "sh\n"),
        "{}",
        ran.err
    );
    let asked = daemon.asked();
    let deploy: DeployRequest = serde_json::from_str(&asked[1].body).unwrap();
    let spec = &deploy.services[0].spec;
    assert_eq!(spec.runtime, dunlin_state::model::RuntimeKind::Process);
    assert_eq!(spec.command, ["/bin/sh", "-c", "echo 'a $HOME'"]);
}

#[tokio::test]
async fn run_names_the_flag_that_is_wrong() {
    let daemon = growing(1);
    for (words, flag) in [
        (&["run", "-p", "0", "nginx"][..], "--publish: "),
        (&["run", "-m", "much", "nginx"], "--memory: "),
        (&["run", "--cpus", "x", "nginx"], "--cpus: "),
        (
            &["run", "--constraint", "nonsense", "nginx"],
            "--constraint: ",
        ),
        (&["run", "--restart", "perhaps", "nginx"], "--restart: "),
    ] {
        let ran = dunlin(&daemon, words).await;
        assert_eq!(ran.exit, Exit::Usage, "{words:?}");
        assert!(ran.err.contains(flag), "{words:?}: {}", ran.err);
        assert!(!ran.err.contains("-->"), "{words:?}: {}", ran.err);
    }
    assert!(daemon.asked().iter().all(|a| a.line.starts_with("GET")));
}

#[tokio::test]
async fn run_does_not_overwrite() {
    let listed = serde_json::json!({ "services": [{
        "service": "default/nginx", "mode": "replicated", "running": true, "wanted": 1,
        "ready": 1, "image": "nginx", "command": [], "runtime": "auto", "ports": [],
        "revision": "r"
    }]});
    let deployed = DeployResponse {
        changed: true,
        services: vec![],
    };
    let daemon = fake(move |line| match line.starts_with("POST") {
        true => Answer::json(&deployed),
        false => Answer::json(&listed),
    });
    let ran = dunlin(&daemon, &["run", "--name", "nginx", "nginx"]).await;
    assert_eq!(ran.exit, Exit::Refused);
    assert!(ran.err.contains("`dunlin rm nginx`"), "{}", ran.err);
    dunlin(&daemon, &["run", "-d", "nginx"]).await;
    let body = daemon.asked().pop().unwrap().body;
    let deploy: DeployRequest = serde_json::from_str(&body).unwrap();
    assert_eq!(deploy.services[0].service.name(), "nginx-2");
}

#[tokio::test]
async fn scale_waits_for_the_new_number() {
    let daemon = growing(3);
    let ran = dunlin(&daemon, &["scale", "web=3"]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    let asked = daemon.asked();
    assert_eq!(asked[0].line, "POST /v1/services/default/web/scale");
    assert_eq!(asked[0].body, r#"{"replicas":3}"#);
    assert!(ran.err.ends_with("web: 3/3 ready\n"), "{}", ran.err);
}

#[tokio::test]
async fn a_slip_among_several_names_changes_nothing() {
    for words in [
        &["stop", "web", "B_D"][..],
        &["start", "web", "B_D"],
        &["rm", "web", "B_D"],
        &["scale", "web=1", "B_D=2"],
    ] {
        let daemon = growing(1);
        assert_eq!(dunlin(&daemon, words).await.exit, Exit::Usage);
        assert_eq!(daemon.asked(), [], "{words:?}");
    }
}

#[tokio::test]
async fn rm_and_stop_print_names() {
    let changed = ChangeResponse { changed: true };
    let ran = answered(&changed, &["rm", "web", "shop/api"]).await;
    assert_eq!(ran.out, "web\nshop/api\n");
    // Many go in few requests.
    let daemon = fake(|_| Answer::json(&ChangeResponse { changed: true }));
    let names: Vec<String> = (0..250).map(|n| format!("s{n}")).collect();
    let mut words = vec!["rm"];
    words.extend(names.iter().map(String::as_str));
    let ran = dunlin(&daemon, &words).await;
    assert_eq!(ran.out.lines().count(), 250);
    let lines: Vec<String> = daemon.asked().into_iter().map(|a| a.line).collect();
    assert_eq!(lines, ["POST /v1/remove"; 3]);
    let ran = answered(&changed, &["stop", "web", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["stopped"][0], "web");
}

#[tokio::test]
async fn cordon_label_and_ticket() {
    let daemon = fake(|_| Answer::json(&ChangeResponse { changed: true }));
    let ran = dunlin(&daemon, &["cordon", "n1"]).await;
    assert_eq!(ran.out, "n1 is cordoned\n");
    dunlin(&daemon, &["uncordon", "n1"]).await;
    dunlin(&daemon, &["label", "n1", "zone=north", "gpu-"]).await;
    let asked = daemon.asked();
    assert_eq!(asked[0].line, "POST /v1/nodes/n1/availability");
    assert_eq!(asked[0].body, r#"{"availability":"cordoned"}"#);
    assert_eq!(asked[1].body, r#"{"availability":"active"}"#);
    assert_eq!(
        asked[2].body,
        r#"{"set":{"zone":"north"},"remove":["gpu"]}"#
    );
    assert_eq!(
        dunlin(&daemon, &["label", "n1", "zone"]).await.exit,
        Exit::Usage
    );

    let ticket = Ticket {
        ticket: "dunlin1abc".into(),
        expires_at: None,
        role: "node".to_owned(),
    };
    let ran = answered(&ticket, &["ticket"]).await;
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("dunlin1abc\n", ""));
}

#[tokio::test]
async fn drain_waits_until_the_node_is_empty() {
    let left = AtomicU32::new(2);
    let daemon = fake(move |line| {
        if line.starts_with("POST") {
            return Answer::json(&ChangeResponse { changed: true });
        }
        let count = left.load(Ordering::Relaxed);
        left.store(count.saturating_sub(2), Ordering::Relaxed);
        let n1 = node("n1", 1);
        Answer::json(&ReplicaList {
            replicas: (0..count).map(|slot| replica(slot, &n1)).collect(),
            vacant: vec![],
            waiting: vec![],
            asleep: vec![],
            notes: vec![],
        })
    });
    let ran = dunlin(&daemon, &["drain", "n1", "--wait"]).await;
    assert_eq!(ran.exit, Exit::Ok);
    assert_eq!(ran.out, "n1 is draining\nn1 is empty\n");
    assert_eq!(ran.err, "2 replicas left\n");
}

#[tokio::test]
async fn leave_is_refused_while_replicas_are_held() {
    let status = NodeStatus {
        node: node("n1", 1),
        cluster: "c".into(),
        api: String::new(),
        profile: "lan".into(),
        data_dir: String::new(),
        pid: 1,
        uptime_ms: 1,
        rss: 1,
        dns: None,
        document: DocumentStatus::default(),
        counts: Counts::default(),
        removed: false,
    };
    let daemon = fake(move |line| match line.starts_with("POST") {
        true => Answer::json(&ChangeResponse { changed: true }),
        false => Answer::json(&status),
    });
    let ran = dunlin(&daemon, &["leave"]).await;
    assert_eq!(ran.exit, Exit::Refused);
    assert!(ran.err.contains("`dunlin drain n1 --wait`"), "{}", ran.err);
    let ran = dunlin(&daemon, &["leave", "--force"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Ok, "n1 has left the cluster\n")
    );
}
