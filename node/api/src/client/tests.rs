//! The client against a fake daemon on a real socket.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use dunlin_state::model::{Availability, Quota, RunId, Slot};

use super::*;
use crate::fake::{Answer, FakeDaemon};

fn version() -> VersionInfo {
    VersionInfo {
        version: "0.1.0".into(),
        api: VersionInfo::API.into(),
        os: "linux".into(),
        arch: "arm64".into(),
    }
}

#[tokio::test]
async fn asks_for_a_route_and_reads_the_answer() {
    let daemon = FakeDaemon::start(|_| Answer::json(&version())).unwrap();
    assert_eq!(daemon.client().version().await.unwrap(), version());
    assert_eq!(daemon.asked()[0].line, "GET /v1/version");
}

#[tokio::test]
async fn every_call_goes_to_a_route_of_the_contract() {
    let daemon = FakeDaemon::start(|_| Answer::raw(200, String::new())).unwrap();
    let client = daemon.client();
    let web = "web".parse().unwrap();
    let drain = AvailabilityRequest {
        availability: Availability::Drained,
    };
    // The empty answers cannot be read; here only the questions count.
    let _ = client.version().await;
    let _ = client.node().await;
    let _ = client.nodes().await;
    let _ = client.set_availability("n1", drain).await;
    let _ = client.set_labels("n1", &LabelsRequest::default()).await;
    let request = MaintenanceRequest::default();
    let _ = client.set_maintenance("n1", &request).await;
    let _ = client.deploy(&DeployRequest { services: vec![] }).await;
    let _ = client.plan(&DeployRequest { services: vec![] }).await;
    let _ = client.remove_all(&RemoveRequest { services: vec![] }).await;
    let _ = client.namespaces().await;
    let _ = client.set_quota("web", &Quota::default()).await;
    let _ = client.rebalance_plan().await;
    let _ = client.rebalance(&RebalanceRequest::default()).await;
    let _ = client.services(&ServiceQuery::default()).await;
    let _ = client.inspect(&web).await;
    let _ = client.remove(&web).await;
    let _ = client.scale(&web, 3).await;
    let _ = client.stop(&web).await;
    let _ = client.start(&web).await;
    let _ = client.explain(&web).await;
    let _ = client.history(&web).await;
    let _ = client.revisions(&web).await;
    let _ = client.rollout(&web).await;
    let _ = client.steer(&web, RolloutStep::Pause).await;
    let _ = client.run_job(&web).await;
    let _ = client.cancel_run(&web, &RunId::Instant(60)).await;
    let _ = client.jobs(&JobQuery::default()).await;
    let _ = client.logs(&web, &LogQuery::default()).await;
    let _ = client.replicas(&ReplicaQuery::default()).await;
    let _ = client.convergence(&ConvergenceQuery::default()).await;
    let _ = client.routes(&RouteQuery::default()).await;
    let _ = client.metrics().await;
    ask_about_what_is_kept(&client).await;
    let _ = client.ticket(&TicketRequest::default()).await;
    let _ = client.remove_node("n1", &RemoveQuery::default()).await;
    let _ = client.audit().await;
    let _ = client.leave().await;
    let _ = client.doctor().await;
    let _ = client.events(&EventQuery::default()).await;
    let _ = client.stats(&StatsQuery::default()).await;
    let asked: Vec<String> = daemon.asked().into_iter().map(|a| a.line).collect();
    for (method, template) in routes::ALL {
        let path = template
            .replace("{namespace}", "default")
            .replace("{name}", "web")
            .replace("{run}", "at-60")
            .replace("{volume}", "web%40db.0")
            .replace("{node}", "n1");
        let line = format!("{method} {path}");
        let found = asked.iter().any(|a| a.split('?').next() == Some(&line));
        // The first is asked for by other programs, the second over TLS only, and the others end
        // when their answers do.
        let elsewhere = [
            routes::OPENAPI,
            routes::REDEEM,
            routes::SERVICE_EXEC,
            routes::VOLUME_EXPORT,
            routes::VOLUME_IMPORT,
        ];
        let elsewhere = elsewhere.contains(&template);
        assert!(found || elsewhere, "{line}: {asked:#?}");
    }
}

async fn ask_about_what_is_kept(client: &Client) {
    let volume = "default/web@db.0".parse().unwrap();
    let _ = client.volumes(&VolumeQuery::default()).await;
    let _ = client.volume(&volume).await;
    let _ = client
        .remove_volume(&volume, &VolumeTarget::default())
        .await;
    let _ = client
        .create_volume(&volume, &VolumeTarget::default())
        .await;
    let item = "default/web".parse().unwrap();
    let request = ItemRequest {
        value: String::new(),
        labels: None,
        existing: None,
    };
    for kind in ItemKind::ALL {
        let _ = client.items(kind, &ItemQuery::default()).await;
        let _ = client.item(kind, &item).await;
        let _ = client.put_item(kind, &item, &request).await;
        let _ = client.remove_item(kind, &item).await;
    }
}

#[tokio::test]
async fn queries_are_escaped_and_absent_fields_left_out() {
    let daemon = FakeDaemon::start(|_| Answer::raw(200, String::new())).unwrap();
    let query = ReplicaQuery {
        service: Some("shop/web".parse().unwrap()),
        node: Some("a&b=c".into()),
        ..ReplicaQuery::default()
    };
    let _ = daemon.client().replicas(&query).await;
    assert_eq!(
        daemon.asked()[0].line,
        "GET /v1/replicas?node=a%26b%3Dc&service=shop%2Fweb"
    );
}

#[tokio::test]
async fn a_refusal_carries_code_hint_and_exit() {
    let body = ErrorBody::new(
        ErrorCode::NoSuchService,
        "no service is named 'default/web'",
    )
    .with_hint("did you mean 'default/wob'?");
    let answer = Answer::error(&body);
    let daemon = FakeDaemon::start(move |_| answer.clone()).unwrap();
    let error = daemon
        .client()
        .inspect(&"web".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "no service is named 'default/web'");
    assert_eq!(error.hint(), body.hint);
    assert_eq!(error.exit(), Exit::NotFound);
}

#[tokio::test]
async fn an_answer_of_something_else_is_told_as_such() {
    let daemon = FakeDaemon::start(|_| Answer::raw(502, "<h1>Bad Gateway</h1>".into())).unwrap();
    let error = daemon.client().nodes().await.unwrap_err().to_string();
    assert!(error.contains("502 Bad Gateway: <h1>"), "{error}");
    let daemon = FakeDaemon::start(|_| Answer::raw(200, "[]".into())).unwrap();
    let error = daemon.client().version().await.unwrap_err();
    assert!(matches!(error, ClientError::Garbled { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_daemon_and_a_dead_socket_are_the_same_to_people() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Host::unix(directory.path().join("none.sock"));
    let dead = Host::unix(directory.path().join("dead.sock"));
    drop(std::os::unix::net::UnixListener::bind(dead.socket().unwrap()).unwrap());
    for host in [missing, dead] {
        let error = Client::new(host.clone()).version().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("no daemon answers on {host}: is `dunlin up` running?")
        );
        assert_eq!(error.exit(), Exit::Unreachable);
    }
}

#[test]
fn a_closed_socket_says_whom_it_is_open_to() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::unix(directory.path().join("api.sock"));
    std::fs::write(host.socket().unwrap(), "").unwrap();
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(host.socket().unwrap(), mode).unwrap();
    let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let text = ClientError::from_connect(&host, denied()).to_string();
    assert!(
        text.contains("with mode 0660") && text.contains("group"),
        "{text}"
    );
    std::fs::remove_file(host.socket().unwrap()).unwrap();
    let text = ClientError::from_connect(&host, denied()).to_string();
    assert!(text.contains("directory is closed"), "{text}");
}

#[tokio::test]
async fn another_host_is_not_spoken_to_without_a_key() {
    let client = Client::from_host("tcp://127.0.0.1:1").unwrap();
    let error = client.version().await.unwrap_err();
    assert_eq!(error.exit(), Exit::Forbidden);
    assert!(
        error.hint().unwrap().contains("dunlin context add"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_trusted() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let hello = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, hello)
            .await
            .unwrap();
        // Held open until the client is done.
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    });
    let key = dunlin_trust::SecretKey::from_seed([1; 32]);
    let cluster = dunlin_trust::ClusterId([2; 16]);
    let client = Client::from_host(&format!("tcp://{address}"))
        .unwrap()
        .with_credentials(Credentials::bare(key, cluster).unwrap());
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, ClientError::Distrusted { .. }), "{error}");
    assert_eq!(error.exit(), Exit::Forbidden);
    server.await.unwrap();
}

#[tokio::test]
async fn a_silent_daemon_is_given_up_on() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::unix(directory.path().join("api.sock"));
    let _listener = std::os::unix::net::UnixListener::bind(host.socket().unwrap()).unwrap();
    let client = Client::new(host).with_timeout(Duration::from_millis(30));
    let error = client.version().await.unwrap_err();
    assert!(matches!(error, ClientError::TooLate { .. }), "{error}");
}

#[test]
fn hosts_are_read_and_faults_named() {
    let host: Host = "unix:///run/dunlin/api.sock".parse().unwrap();
    assert_eq!(host.to_string(), "unix:///run/dunlin/api.sock");
    assert_eq!("/a/b".parse::<Host>().unwrap(), Host::unix("/a/b"));
    for good in [
        "tcp://1.2.3.4:80",
        "tcp://[::1]:7443",
        "tcp://n1.example:7443",
    ] {
        assert_eq!(good.parse::<Host>().unwrap().to_string(), good);
    }
    for bad in [
        "",
        "unix://",
        "tcp://1.2.3.4",
        "tcp://:80",
        "tcp://a:0",
        "tcp://a:b@c:80",
        "tcp://a/b:80",
        "tcp://[zz]:80",
        "https://1.2.3.4:80",
        "relative/path",
        "unix://a",
    ] {
        let error = bad.parse::<Host>().unwrap_err();
        assert_eq!(error.exit(), Exit::Usage, "{error}");
    }
}

#[tokio::test]
async fn streams_come_record_by_record_and_keep_unknown_ends() {
    let record = LogRecord::Line {
        slot: Slot::Replica(2),
        node: dunlin_state::model::NodeId::from_bytes([7; 32]),
        node_name: "n1".into(),
        stream: LogStream::Stderr,
        at: 5,
        text: "hello\u{2028}".into(),
    };
    let text = serde_json::to_string(&record).unwrap();
    // An empty line keeps a connection alive; the last line lacks its end.
    let answer = Answer::raw(200, format!("{text}\n\n{text}"));
    let daemon = FakeDaemon::start(move |_| answer.clone()).unwrap();
    let query = LogQuery {
        tail: Some(10),
        ..LogQuery::default()
    };
    let web = "web".parse().unwrap();
    let mut lines = daemon.client().logs(&web, &query).await.unwrap();
    assert_eq!(lines.next().await.unwrap().as_ref(), Some(&record));
    assert_eq!(lines.next().await.unwrap(), Some(record));
    assert_eq!(lines.next().await.unwrap(), None);
    assert_eq!(
        daemon.asked()[0].line,
        "GET /v1/services/default/web/logs?follow=false&tail=10"
    );
}

#[tokio::test]
async fn a_stream_of_endless_line_is_cut() {
    let answer = Answer::raw(200, "x".repeat(3 << 20));
    let daemon = FakeDaemon::start(move |_| answer.clone()).unwrap();
    let web = "web".parse().unwrap();
    let mut lines = daemon
        .client()
        .logs(&web, &LogQuery::default())
        .await
        .unwrap();
    let error = lines.next().await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}
