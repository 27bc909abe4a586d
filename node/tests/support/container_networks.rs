//! Who reaches whom, and who is told to be whom, among containers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_core::io::Probe;
use dunlin_lb::{Origin, Origins as _, Peer};
use dunlin_state::model::{PortSpec, Protocol, RuntimeKind, ServiceSpec};

use super::support::Lab;
use super::{CleanUp, container, lab};

#[tokio::test]
async fn its_ports_answer_at_its_own_address() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let mut spec = container("httpd -f -p $PORT");
    spec.ports = vec![PortSpec {
        target: 8080,
        ..PortSpec::default()
    }];
    let running = lab.start(0, spec).await;
    let address = running.endpoints[0].address;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match lab.probe(&running.id, Probe::Tcp(address), 500).await {
            Ok(()) => break,
            Err(_) => assert!(Instant::now() < deadline),
        }
    }
    lab.stop_all().await;
}

#[tokio::test]
async fn containers_that_share_no_network_do_not_reach_each_other() {
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    let within = |networks: &[&str], script: &str| ServiceSpec {
        networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
        ..container(script)
    };
    let mut served = within(&["back"], "httpd -f -p $PORT");
    served.ports = vec![PortSpec {
        target: 8080,
        ..PortSpec::default()
    }];
    let db = lab.start(0, served).await;
    let address = db.endpoints[0].address;
    let deadline = Instant::now() + Duration::from_secs(30);
    while lab.probe(&db.id, Probe::Tcp(address), 500).await.is_err() {
        assert!(Instant::now() < deadline);
    }
    let ip = address.ip();
    let ask = format!(
        "if echo | nc -w 3 {ip} 8080; then echo reached; else echo cut; fi; exec sleep 1000"
    );
    let cases = [
        (1, &["back"][..], "reached"),
        (2, &["front"], "cut"),
        (3, &["default", "back"], "reached"),
        (4, &[], "cut"),
    ];
    for (slot, networks, expected) in cases {
        let client = lab.start(slot, within(networks, &ask)).await;
        lab.wait_for_line(&client.id, expected).await;
    }
    let known = lab
        .handle
        .known(&peer(ip), &["default/front".to_owned()].into());
    let back = Arc::new(["default/back".to_owned()].into());
    assert_eq!(known, Some(Origin::Replica(back)));
    // A daemon that knows nothing yet asks the engine.
    let other = Lab::with(RuntimeKind::Docker, lab.config.node).await;
    let networks = Arc::new(["default/front".to_owned()].into());
    assert_eq!(other.handle.known(&peer(ip), &networks), None);
    let found = other.handle.find(peer(ip), networks).await;
    assert!(
        matches!(&found, Origin::Replica(n) if n.contains("default/back")),
        "{found:?}"
    );
    lab.stop_all().await;
}

fn peer(ip: IpAddr) -> Peer {
    Peer {
        protocol: Protocol::Tcp,
        from: (ip, 40_000).into(),
        to: ([10, 93, 0, 20], 80).into(),
    }
}
