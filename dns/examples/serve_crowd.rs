//! Serves the names of many services on one thread, to be measured with dnsperf, and says what a
//! change of one service costs: `serve_crowd ADDRESS SERVICES REPLICAS`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use dunlin_dns::{DnsServer, Suffix, Zone};
use dunlin_state::model::{
    Endpoint, NodeId, PortSpec, Protocol, ServiceKey, Slot, VipIndex, VipRange,
};
use dunlin_state::route::{Backend, RouteTable, ServiceRoute};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Changes that are timed.
const CHANGES: u32 = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .ok_or("usage: serve_crowd ADDRESS SERVICES REPLICAS")
    };
    let (address, services, replicas) = (next()?, next()?.parse()?, next()?.parse()?);
    let table = crowd(services, replicas)?;
    time_changes(&table)?;
    let server = DnsServer::bind(address.parse::<SocketAddr>()?).await?;
    println!("answering on {:?}", server.addresses());
    let (_keep, routes) = watch::channel(Arc::new(table));
    server
        .serve(routes, Suffix::default(), CancellationToken::new())
        .await?;
    Ok(())
}

fn time_changes(table: &RouteTable) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut zone = Zone::new(&Suffix::default(), table);
    let services = table.services.len();
    println!("{services} services indexed in {:?}", start.elapsed());
    let mut old = table.clone();
    let mut times = Vec::new();
    for n in 0..CHANGES {
        let mut new = old.clone();
        let key = ServiceKey::new(ServiceKey::DEFAULT_NAMESPACE, &format!("s{}", n % 100))?;
        if let Some(route) = new.services.get_mut(&key) {
            route.backends.pop();
        }
        let start = Instant::now();
        zone = zone.updated(&old, &new);
        times.push(start.elapsed());
        old = new;
    }
    times.sort_unstable();
    println!(
        "a change of one service: median {:?}, slowest {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    Ok(())
}

/// Services `s0`, `s1`, … each with so many replicas at addresses of their own.
fn crowd(services: u32, replicas: u32) -> Result<RouteTable, Box<dyn Error>> {
    let range = VipRange::new(Some(Ipv4Addr::new(10, 93, 0, 0)), None);
    let mut table = RouteTable {
        range,
        ..RouteTable::default()
    };
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
            vip: range.of(VipIndex::nth(s.into())),
            backends: backends.collect(),
            ..ServiceRoute::default()
        };
        let key = ServiceKey::new(ServiceKey::DEFAULT_NAMESPACE, &format!("s{s}"))?;
        table.services.insert(key, route);
    }
    Ok(table)
}
