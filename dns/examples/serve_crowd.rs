//! Serves the names of many services on a loopback port, on one thread, to be measured with
//! dnsperf: `serve_crowd ADDRESS SERVICES REPLICAS`.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use dunlin_dns::{DnsServer, Suffix, Zone};
use dunlin_state::model::{Endpoint, NodeId, PortSpec, Protocol, ServiceKey, Slot};
use dunlin_state::route::{Backend, RouteTable, ServiceRoute};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .ok_or("usage: serve_crowd ADDRESS SERVICES REPLICAS")
    };
    let (address, services, replicas) = (next()?, next()?.parse()?, next()?.parse()?);
    let table = Arc::new(crowd(services, replicas)?);
    let start = Instant::now();
    let zone = Zone::new(&Suffix::default(), &table, 1);
    println!(
        "index of {services} services built in {:?}",
        start.elapsed()
    );
    drop(zone);
    let server = DnsServer::bind(address.parse::<SocketAddr>()?).await?;
    println!("answering on {}", server.local_addr());
    let (_keep, routes) = watch::channel(table);
    server
        .serve(routes, Suffix::default(), CancellationToken::new())
        .await?;
    Ok(())
}

/// Services `s0`, `s1`, … each with so many replicas at addresses of their own.
fn crowd(services: u32, replicas: u32) -> Result<RouteTable, Box<dyn Error>> {
    let mut table = RouteTable::default();
    for s in 0..services {
        let backends = (0..replicas).map(|r| {
            let [_, a, b, c] = (s * replicas + r).to_be_bytes();
            Backend {
                slot: Slot::Replica(r),
                node: NodeId::from_bytes([0; 32]),
                epoch: 1,
                endpoints: vec![Endpoint {
                    target: 80,
                    protocol: Protocol::Tcp,
                    address: ([10, a, b, c], 80).into(),
                }],
            }
        });
        let route = ServiceRoute {
            ports: vec![PortSpec {
                target: 80,
                ..PortSpec::default()
            }],
            backends: backends.collect(),
            ..ServiceRoute::default()
        };
        let key = ServiceKey::new(ServiceKey::DEFAULT_NAMESPACE, &format!("s{s}"))?;
        table.services.insert(key, route);
    }
    Ok(table)
}
