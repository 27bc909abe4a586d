//! What is shown of connections.

use super::*;

fn route_end(n: u8, usage: RouteUsage) -> RouteEnd {
    RouteEnd {
        target: 80,
        protocol: Default::default(),
        address: ([10, 0, 0, n], 31_000).into(),
        usage,
        open: 3,
        connect_us: Some(1_250),
        ejected_for_ms: None,
    }
}

fn replica_route(n: u8, usage: RouteUsage, end: RouteUsage) -> ReplicaRoute {
    let on = node(&format!("n{n}"), n);
    ReplicaRoute {
        slot: Slot::Replica(n.into()),
        node: on.id,
        node_name: on.name,
        addresses: Vec::new(),
        phase: Some(Phase::Running),
        ready: true,
        usage,
        ends: vec![route_end(n, end)],
    }
}

/// Two services of `n0`: `web` with four replicas, of which one is used, and one without any.
fn list() -> RouteList {
    use RouteUsage::{Ejected, NodeSuspect, NotReady, Used};
    let mut ejected = replica_route(1, Used, Ejected);
    ejected.ends[0].ejected_for_ms = Some(800);
    let mut starting = replica_route(3, NotReady, NotReady);
    starting.ends.clear();
    let listener = |address: [u8; 4], port, failure: Option<&str>| RouteListener {
        address: (address, port).into(),
        is_virtual: failure.is_none(),
        failure: failure.map(str::to_owned),
    };
    let port = PortRoute {
        port: serde_json::from_str(r#"{"target":80,"published":8080}"#).unwrap(),
        listeners: vec![
            listener([10, 93, 0, 20], 80, None),
            listener([0, 0, 0, 0], 8080, Some("address in use")),
        ],
        refused: None,
        waiting: 2,
    };
    let web = ServiceRoutes {
        service: "web".parse().unwrap(),
        name: Some("web.default.dunlin.internal".into()),
        addresses: vec![[10, 93, 0, 20].into()],
        networks: ["default/default".to_owned()].into(),
        policy: Default::default(),
        ports: vec![port],
        replicas: vec![
            replica_route(0, Used, Used),
            ejected,
            replica_route(2, NodeSuspect, NodeSuspect),
            starting,
        ],
    };
    let idle = ServiceRoutes {
        service: "shop/idle".parse().unwrap(),
        name: None,
        addresses: vec![],
        ports: vec![],
        replicas: vec![],
        ..web.clone()
    };
    let me = node("n0", 0);
    RouteList {
        node: me.id,
        node_name: me.name,
        services: vec![web, idle],
    }
}

#[tokio::test]
async fn routes() {
    let mut list = list();
    let ran = answered(&list, &["routes"]).await;
    assert_eq!(ran.exit, Exit::Ok, "{}", ran.err);
    assert_eq!(
        ran.out,
        "\
NAME       ADDRESS     PORT          NODE  ENDPOINT        USED                                    OPEN  CONNECT
web.0      10.93.0.20  8080->80/tcp  n0    10.0.0.0:31000  yes                                     3     1.25 ms
web.1      10.93.0.20  8080->80/tcp  n1    10.0.0.1:31000  no: ejected after failures, for 800 ms  3     1.25 ms
web.2      10.93.0.20  8080->80/tcp  n2    10.0.0.2:31000  no: its node is suspected               3     1.25 ms
web.3      10.93.0.20  -             n3    -               no: not ready                           -     -
shop/idle  -           -             -     -               no: it has no replica                   -     -
"
    );
    let json = answered(&list, &["routes", "--json"]).await;
    assert_eq!(serde_json::from_str::<RouteList>(&json.out).unwrap(), list);
    list.services.truncate(1);
    list.services[0].replicas.truncate(1);
    let ran = answered(&list, &["routes", "web"]).await;
    assert_eq!(
        ran.out,
        "\
web: web.default.dunlin.internal, 10.93.0.20
networks: default/default
policy: balance=random-of-two prefer=any
port 8080->80/tcp: on 10.93.0.20:80; not on 0.0.0.0:8080: address in use; 2 connections wait

NAME   ADDRESS     PORT          NODE  ENDPOINT        USED  OPEN  CONNECT
web.0  10.93.0.20  8080->80/tcp  n0    10.0.0.0:31000  yes   3     1.25 ms
"
    );
    let daemon = fake(|_| missing());
    let ran = dunlin(&daemon, &["routes", "-n", "shop", "wob"]).await;
    assert_eq!(ran.exit, Exit::NotFound, "{}", ran.err);
    dunlin(&daemon, &["routes", "-n", "shop"]).await;
    let lines: Vec<String> = daemon.asked().into_iter().map(|a| a.line).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/routes?service=shop%2Fwob",
            "GET /v1/routes?namespace=shop"
        ]
    );
}

#[tokio::test]
async fn metrics() {
    let text = "\
# HELP dunlin_nodes Members.
# TYPE dunlin_nodes gauge
dunlin_nodes{state=\"alive\"} 3
# HELP process_open_fds Descriptors.
# TYPE process_open_fds gauge
process_open_fds 9
";
    let daemon = || fake(move |_| Answer::raw(200, text.to_owned()));
    assert_eq!(dunlin(&daemon(), &["metrics"]).await.out, text);
    let some = dunlin(&daemon(), &["metrics", "dunlin_"]).await;
    assert_eq!(some.out, text.split("# HELP process").next().unwrap());
    let json = dunlin(&daemon(), &["metrics", "--json", "process"]).await;
    let samples: Vec<Sample> = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&*samples[0].name, samples[0].value),
        ("process_open_fds", 9.0)
    );
    assert_eq!(samples.len(), 1);
    let garbled = fake(|_| Answer::raw(200, "not metrics\n".to_owned()));
    let ran = dunlin(&garbled, &["metrics", "--json"]).await;
    assert_eq!(ran.exit, Exit::Failed, "{}", ran.err);
    assert!(ran.err.contains("line 1"), "{}", ran.err);
}
