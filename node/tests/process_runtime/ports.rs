//! Ports that replicas are given, and what is asked beside them.

use std::time::{Duration, Instant};

use crate::support::{Lab, shell};
use dunlin_core::io::{Probe, RuntimeEvent};
use dunlin_state::model::{PortSpec, Protocol, PublishMode};

#[tokio::test]
async fn ports_are_given_and_answer() {
    let mut lab = Lab::new().await;
    let mut spec = shell("echo $PORT $DUNLIN_PORT_80 $DUNLIN_PORT_53; exec sleep 60");
    let port = |target, protocol| PortSpec {
        target,
        protocol,
        ..PortSpec::default()
    };
    spec.ports = vec![
        port(80, Protocol::Tcp),
        port(53, Protocol::Udp),
        port(53, Protocol::Tcp),
    ];
    let running = lab.start(0, spec).await;
    let ports: Vec<u16> = running.endpoints.iter().map(|e| e.address.port()).collect();
    assert_eq!(ports[1], ports[2]);
    let line = lab.wait_for_line(&running.id, " ").await;
    assert_eq!(line, format!("{0} {0} {1}", ports[0], ports[1]));

    // Nothing listens yet; then something does.
    let address = running.endpoints[0].address;
    let closed = lab.probe(&running.id, Probe::Tcp(address), 5_000).await;
    assert!(closed.is_err());
    let _listener = std::net::TcpListener::bind(address).unwrap();
    let open = lab.probe(&running.id, Probe::Tcp(address), 5_000).await;
    assert_eq!(open, Ok(()));
    lab.stop_all().await;
}

#[tokio::test]
async fn a_host_port_is_exactly_that_one_and_refused_when_taken() {
    let mut lab = Lab::new().await;
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let number = holder.local_addr().unwrap().port();
    let mut spec = shell("exec sleep 60");
    spec.ports = vec![PortSpec {
        target: 80,
        published: Some(number),
        publish_mode: PublishMode::Host,
        ..PortSpec::default()
    }];
    lab.send_start(0, spec.clone()).await;
    match lab.next().await {
        RuntimeEvent::StartFailed {
            reason,
            hopeless: true,
            ..
        } => {
            assert!(reason.contains(&format!("port {number}/tcp")), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    drop(holder);
    let running = lab.start(0, spec).await;
    assert_eq!(running.endpoints[0].address.port(), number);
    lab.stop_all().await;
}

#[tokio::test]
async fn commands_beside_a_replica_see_what_it_sees_and_are_killed_when_they_hang() {
    let mut lab = Lab::new().await;
    let mut spec = shell("exec sleep 60");
    spec.environment.insert("COLOUR".into(), "red".into());
    spec.ports = vec![PortSpec {
        target: 80,
        ..PortSpec::default()
    }];
    let running = lab.start(0, spec).await;
    let port = running.endpoints[0].address.port();
    let command = |line: &str| {
        let words = ["/bin/sh", "-c", line];
        Probe::Exec(words.map(str::to_owned).to_vec())
    };
    let line =
        format!("test $COLOUR = red && test $PORT = {port} && test $DUNLIN_PORT_80 = {port}");
    assert_eq!(lab.probe(&running.id, command(&line), 20_000).await, Ok(()));
    let told = lab
        .probe(&running.id, command("echo broken pump; exit 4"), 20_000)
        .await;
    assert_eq!(told, Err("exit code 4: broken pump".to_owned()));
    let marker = lab.config.data_dir.join("hangs");
    let hangs = format!("echo $$ > {}; exec sleep 1000", marker.display());
    let told = lab.probe(&running.id, command(&hangs), 1_000).await;
    assert_eq!(told, Err("no answer within 1 s".to_owned()));
    // On a loaded machine it may have been killed before it could leave its number.
    if let Ok(number) = std::fs::read_to_string(&marker)
        && !number.trim().is_empty()
    {
        let process = std::path::PathBuf::from(format!("/proc/{}", number.trim()));
        let deadline = Instant::now() + Duration::from_secs(30);
        while process.join("exe").read_link().is_ok() {
            assert!(Instant::now() < deadline, "the command is still there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    lab.stop_all().await;
}
