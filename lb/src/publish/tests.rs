use std::net::Ipv4Addr;

use dunlin_state::model::{Endpoint, NodeId, PortSpec, Protocol, Slot};
use dunlin_state::route::{Backend, ServiceRoute};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::plan::Unpublishable;
use super::*;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A replica that says its number to each client.
async fn replica(number: u8) -> SocketAddr {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _gone = client.write_all(&[number]).await;
        }
    });
    address
}

async fn call(address: SocketAddr) -> io::Result<u8> {
    TcpStream::connect(address).await?.read_u8().await
}

/// A port that nobody has at the moment.
async fn free_port() -> u16 {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

fn port(published: u16) -> PortSpec {
    PortSpec {
        target: 80,
        published: Some(published),
        ..PortSpec::default()
    }
}

fn table(services: &[(&str, PortSpec, SocketAddr)]) -> Arc<RouteTable> {
    let services = services.iter().map(|(name, port, address)| {
        let backend = Backend {
            slot: Slot::Replica(0),
            node: NodeId::from_bytes([1; 32]),
            epoch: 1,
            endpoints: vec![Endpoint {
                target: 80,
                protocol: Protocol::Tcp,
                address: *address,
            }],
        };
        let route = ServiceRoute {
            ports: vec![port.clone()],
            backends: vec![backend],
            ..ServiceRoute::default()
        };
        (name.parse().unwrap(), route)
    });
    Arc::new(RouteTable {
        services: services.collect(),
        ..RouteTable::default()
    })
}

struct Running {
    routes: watch::Sender<Arc<RouteTable>>,
    events: mpsc::Receiver<PublishEvent>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), PublishError>>,
}

fn start() -> Running {
    let (routes, receiver) = watch::channel(Arc::new(RouteTable::default()));
    let (tell, events) = mpsc::channel(100);
    let publisher = Publisher::new(LOCAL, move |event| tell.try_send(event).unwrap());
    let stop = CancellationToken::new();
    let task = tokio::spawn(publisher.run(receiver, stop.clone()));
    Running {
        routes,
        events,
        stop,
        task,
    }
}

#[tokio::test]
async fn ports_open_change_hands_and_close_with_the_table() {
    let mut node = start();
    let (one, two) = (replica(1).await, replica(2).await);
    let published = free_port().await;
    let address = SocketAddr::new(LOCAL, published);
    let opened = |name: &str| PublishEvent::Opened {
        service: name.parse().unwrap(),
        address,
    };
    let closed = |name: &str| PublishEvent::Closed {
        service: name.parse().unwrap(),
        address,
    };

    node.routes
        .send_replace(table(&[("web", port(published), one)]));
    assert_eq!(node.events.recv().await, Some(opened("web")));
    assert_eq!(call(address).await.unwrap(), 1);

    // The same port, another service; no warning for what is our own hand-over.
    node.routes
        .send_replace(table(&[("shop", port(published), two)]));
    assert_eq!(node.events.recv().await, Some(closed("web")));
    assert_eq!(node.events.recv().await, Some(opened("shop")));
    assert_eq!(call(address).await.unwrap(), 2);

    node.routes.send_replace(Arc::default());
    assert_eq!(node.events.recv().await, Some(closed("shop")));
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    node.stop.cancel();
    node.task.await.unwrap().unwrap();
    assert_eq!(node.events.recv().await, None, "nothing else happened");
}

#[tokio::test]
async fn a_taken_port_is_told_once_and_served_when_it_is_free() {
    let mut node = start();
    let holder = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = holder.local_addr().unwrap();
    let one = replica(1).await;
    node.routes
        .send_replace(table(&[("web", port(address.port()), one)]));
    let warning = node.events.recv().await.unwrap();
    assert!(matches!(warning, PublishEvent::Failed { .. }));
    let text = warning.to_string();
    assert!(
        text.contains("default/web") && text.contains("in use"),
        "{text}"
    );
    drop(holder);
    let service = "web".parse().unwrap();
    let opened = PublishEvent::Opened { service, address };
    assert_eq!(node.events.recv().await, Some(opened));
    assert_eq!(call(address).await.unwrap(), 1);
}

#[tokio::test]
async fn what_is_not_supported_is_told_once() {
    let mut node = start();
    let one = replica(1).await;
    let mut udp = port(free_port().await);
    udp.protocol = Protocol::Udp;
    node.routes
        .send_replace(table(&[("dns", udp.clone(), one)]));
    let event = node.events.recv().await.unwrap();
    let PublishEvent::Refused(refusal) = event else {
        panic!("{event} is no refusal");
    };
    assert_eq!(refusal.reason, Unpublishable::Udp);
    let published = free_port().await;
    node.routes
        .send_replace(table(&[("dns", udp, one), ("web", port(published), one)]));
    let next = node.events.recv().await.unwrap();
    assert!(matches!(next, PublishEvent::Opened { .. }), "{next}");
}

#[tokio::test]
async fn a_loopback_port_is_open_on_that_address_alone() {
    let mut node = start();
    let one = replica(1).await;
    let mut spec = port(free_port().await);
    spec.host_ip = Some("127.0.0.2".to_owned());
    let published = spec.published.unwrap();
    node.routes.send_replace(table(&[("web", spec, one)]));
    node.events.recv().await.unwrap();
    let there = SocketAddr::from(([127, 0, 0, 2], published));
    assert_eq!(call(there).await.unwrap(), 1);
    let elsewhere = SocketAddr::new(LOCAL, published);
    assert!(TcpStream::connect(elsewhere).await.is_err());
}

#[tokio::test]
async fn its_ports_are_free_after_it_stops() {
    let mut node = start();
    let published = free_port().await;
    let address = SocketAddr::new(LOCAL, published);
    let one = replica(1).await;
    node.routes
        .send_replace(table(&[("web", port(published), one)]));
    node.events.recv().await.unwrap();
    assert_eq!(call(address).await.unwrap(), 1);
    node.stop.cancel();
    node.task.await.unwrap().unwrap();
    TcpListener::bind(address).await.unwrap();
}
