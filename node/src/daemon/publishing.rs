//! Published ports: what the load balancer opens on this node, and what people hear of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use dunlin_api::EventRecord;
use dunlin_lb::{Limits, PublishEvent, Publisher};
use dunlin_state::model::NodeId;

use super::clock::wall_millis;
use crate::api::EventLog;

/// How long connections through this node may go on after it was told to stop. Shorter than the
/// time that all parts get, so that one idle client does not make a stop look like a failure.
pub(super) const DRAIN: Duration = Duration::from_secs(3);

/// Publishes on `bind_ip`. Events go to the log that people read and to the daemon's own output;
/// neither waits for a reader.
pub(super) fn publisher(bind_ip: IpAddr, node: NodeId, events: EventLog) -> Publisher {
    let limits = Limits {
        drain: DRAIN,
        ..Limits::default()
    };
    Publisher::new(bind_ip, move |event| tell(&events, node, &event)).limits(limits)
}

/// Where a node publishes. A person who names the node's address means its ports to answer there
/// and nowhere else. If that address is not this host's own (behind NAT), `membership` listens
/// everywhere already, and so does this.
pub(super) fn bind_ip(advertise: Option<IpAddr>, membership: &UdpSocket) -> io::Result<IpAddr> {
    match advertise {
        Some(_) => Ok(membership.local_addr()?.ip()),
        None => Ok(Ipv4Addr::UNSPECIFIED.into()),
    }
}

fn tell(events: &EventLog, node: NodeId, event: &PublishEvent) {
    let (warning, service) = match event {
        PublishEvent::Opened { service, .. } | PublishEvent::Closed { service, .. } => {
            (false, service)
        }
        PublishEvent::Failed { service, .. } => (true, service),
        PublishEvent::Refused(refusal) => (true, &refusal.service),
    };
    let text = event.to_string();
    if warning {
        tracing::warn!("{text}");
    } else {
        tracing::info!("{text}");
    }
    events.push(EventRecord {
        at: wall_millis(),
        warning,
        text,
        service: Some(service.clone()),
        slot: None,
        node: Some(node),
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dunlin_state::model::PortSpec;
    use dunlin_state::route::{RouteTable, ServiceRoute};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn publishes_where_the_node_is_said_to_be() {
        let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
        let own: IpAddr = [127, 0, 5, 1].into();
        let foreign: IpAddr = [192, 0, 2, 1].into();
        let on_own = UdpSocket::bind((own, 0)).unwrap();
        let on_all = UdpSocket::bind((any, 0)).unwrap();
        assert_eq!(bind_ip(Some(own), &on_own).unwrap(), own);
        assert_eq!(bind_ip(Some(foreign), &on_all).unwrap(), any);
        assert_eq!(bind_ip(None, &on_own).unwrap(), any);
    }

    fn table(ports: Vec<PortSpec>) -> Arc<RouteTable> {
        let mut table = RouteTable::default();
        let route = ServiceRoute {
            ports,
            ..ServiceRoute::default()
        };
        table.services.insert("web".parse().unwrap(), route);
        Arc::new(table)
    }

    #[tokio::test]
    async fn what_happens_to_a_port_is_told() {
        let ip: IpAddr = [127, 0, 5, 2].into();
        let free = std::net::TcpListener::bind((ip, 0)).unwrap();
        let published = free.local_addr().unwrap().port();
        drop(free);
        let tcp = PortSpec {
            target: 80,
            published: Some(published),
            ..PortSpec::default()
        };
        let nowhere = PortSpec {
            host_ip: Some("nowhere".to_owned()),
            target: 81,
            ..tcp.clone()
        };
        let (routes, watched) = watch::channel(table(vec![tcp, nowhere]));
        let (log, stop) = (EventLog::new(), CancellationToken::new());
        let node = NodeId::from_bytes([7; 32]);
        let running = publisher(ip, node, log.clone()).run(watched, stop.clone());
        let running = tokio::spawn(running);
        while log.recent().len() < 2 {
            tokio::task::yield_now().await;
        }
        routes.send(table(Vec::new())).unwrap();
        while log.recent().len() < 3 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.unwrap().unwrap();
        let told: Vec<(bool, String)> = log
            .recent()
            .into_iter()
            .map(|r| {
                assert_eq!(
                    (r.service, r.node),
                    (Some("web".parse().unwrap()), Some(node))
                );
                (r.warning, r.text.split(':').next().unwrap().to_owned())
            })
            .collect();
        let expected = [
            (
                true,
                format!("port {published} of default/web is not published"),
            ),
            (false, format!("default/web is published on {ip}")),
            (false, format!("default/web is no longer published on {ip}")),
        ];
        assert_eq!(told, expected);
    }
}
