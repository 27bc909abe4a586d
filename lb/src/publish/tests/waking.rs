//! A service that has no replica until somebody connects.

use std::time::Duration;

use super::*;

/// As in the daemon, but that nobody waits for a replica who does not have to.
const HASTE: Limits = Limits {
    connections: 16,
    connect: Duration::from_millis(1_500),
    patience: Duration::from_millis(1),
    drain: Duration::ZERO,
};

fn asleep(port: PortSpec) -> RouteTable {
    let nowhere = SocketAddr::new(LOCAL, 1);
    let mut table = RouteTable::clone(&table(&[("web", port, nowhere)]));
    for route in table.services.values_mut() {
        route.backends.clear();
        route.wakes = true;
    }
    table
}

#[tokio::test]
async fn the_first_connection_rings_and_waits_for_a_replica() {
    let (routes, receiver) = watch::channel(Arc::new(RouteTable::default()));
    let (tell, mut events) = mpsc::channel(100);
    let publisher = Publisher::new(LOCAL, move |event| tell.try_send(event).unwrap());
    let publisher = publisher.limits(HASTE);
    let (views, stop) = (publisher.views(), CancellationToken::new());
    let bell = views.bell();
    let task = tokio::spawn(publisher.run(receiver, stop.clone()));
    let port = port(free_port().await);
    let address = SocketAddr::new(LOCAL, port.published.unwrap());

    let awake = asleep(port.clone());
    let mut never = awake.clone();
    for route in never.services.values_mut() {
        route.wakes = false;
    }
    routes.send_replace(Arc::new(never));
    events.recv().await.unwrap();
    assert!(call(address).await.is_err(), "it would wait for nothing");
    assert!(views.ports(None).iter().all(|port| !port.waits));

    routes.send_replace(Arc::new(awake));
    // The table is followed a moment later; until then a call is turned away at once.
    let waiting = loop {
        let mut waiting = tokio::spawn(call(address));
        tokio::select! {
            () = bell.notified() => break waiting,
            turned_away = &mut waiting => assert!(turned_away.unwrap().is_err()),
        }
    };
    assert!(views.ports(None).iter().any(|port| port.waits));
    let one = replica(1).await;
    let mut whole = RouteTable::clone(&table(&[("web", port, one)]));
    for route in whole.services.values_mut() {
        route.wakes = true;
    }
    routes.send_replace(Arc::new(whole));
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    assert!(views.ports(None).iter().all(|port| !port.waits));
    stop.cancel();
    task.await.unwrap().unwrap();
}
