//! Which listeners there should be. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dunlin_state::model::{PortSpec, Protocol, PublishMode, ServiceKey, Slot};
use dunlin_state::route::RouteTable;
use thiserror::Error;

use crate::proxy::PortKey;

/// Where a listener listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The protocol.
    pub protocol: Protocol,
    /// The address.
    pub address: SocketAddr,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.address),
            Protocol::Udp => write!(f, "{}/udp", self.address),
        }
    }
}

/// What a listener serves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// The port of a service.
    pub port: PortKey,
    /// Whether an IPv6 listener must leave IPv4 alone: a written `::` means IPv6 and no more.
    pub only_v6: bool,
    /// Whether it is a virtual address: of those, no one needs to be told one by one.
    pub virtual_address: bool,
    /// The one replica that it leads to; any when absent.
    pub only: Option<Slot>,
}

/// Why a published port gets no listener on this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum Unpublishable {
    /// Its host address is none.
    #[error("'{0}' is no IP address; write one, or leave it out to publish on all addresses")]
    BadAddress(String),
    /// Its host address is of the other family than the one this node publishes on.
    #[error(
        "{host_ip} is not among what this node publishes on ({bind_ip}); start it with another address"
    )]
    OtherFamily {
        /// What the port asks for.
        host_ip: IpAddr,
        /// What the node allows.
        bind_ip: IpAddr,
    },
    /// Another service has it. A deployment is refused for this; it takes two at the same time, on
    /// two sides of a partition, to get here.
    #[error(
        "{holder} already publishes it, and comes first in the order of names; publish one of them on another port"
    )]
    Taken {
        /// Who has it.
        holder: ServiceKey,
    },
}

/// A published port that gets no listener.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Whose port.
    pub service: ServiceKey,
    /// The published port.
    pub published: u16,
    /// Why.
    pub reason: Unpublishable,
}

/// The listeners that a table asks for on a node that publishes on `bind_ip`: of every port on the
/// virtual addresses of its service and of its replicas, and of published ports. Also what cannot be had. Services
/// without ready replicas have theirs too: clients wait there.
pub fn plan(table: &RouteTable, bind_ip: IpAddr) -> (BTreeMap<Place, Wish>, Vec<Refusal>) {
    let mut wishes: BTreeMap<Place, Wish> = BTreeMap::new();
    let mut refusals = Vec::new();
    for (service, route) in &table.services {
        for port in &route.ports {
            let key = PortKey {
                service: service.clone(),
                target: port.target,
                protocol: port.protocol,
            };
            for ip in route.vip.addresses() {
                wishes.insert(place(port, ip, port.target), at_virtual(&key, None));
            }
            for (slot, vip) in &route.replicas {
                for ip in vip.addresses() {
                    let wish = at_virtual(&key, Some(*slot));
                    wishes.insert(place(port, ip, port.target), wish);
                }
            }
            let Some(published) = ingress(port) else {
                continue;
            };
            if let Err(reason) = publish(port, key, published, bind_ip, &mut wishes) {
                refusals.push(Refusal {
                    service: service.clone(),
                    published,
                    reason,
                });
            }
        }
    }
    (wishes, refusals)
}

fn at_virtual(key: &PortKey, only: Option<Slot>) -> Wish {
    Wish {
        port: key.clone(),
        only_v6: true,
        virtual_address: true,
        only,
    }
}

fn publish(
    port: &PortSpec,
    key: PortKey,
    published: u16,
    bind_ip: IpAddr,
    wishes: &mut BTreeMap<Place, Wish>,
) -> Result<(), Unpublishable> {
    let ip = address(port, bind_ip)?;
    let place = place(port, ip, published);
    if let Some(other) = wishes.get(&place) {
        let holder = other.port.service.clone();
        return Err(Unpublishable::Taken { holder });
    }
    let wish = Wish {
        port: key,
        only_v6: ip.is_ipv6() && port.host_ip.is_some(),
        virtual_address: false,
        only: None,
    };
    wishes.insert(place, wish);
    Ok(())
}

fn place(port: &PortSpec, ip: IpAddr, number: u16) -> Place {
    Place {
        protocol: port.protocol,
        address: SocketAddr::new(ip, number),
    }
}

fn ingress(port: &PortSpec) -> Option<u16> {
    match port.publish_mode {
        PublishMode::Ingress => port.published,
        PublishMode::Host => None,
    }
}

/// The address to listen on, never a wider one than the port names: a particular address is taken
/// as it is, and "all addresses" means all that this node publishes on.
fn address(port: &PortSpec, bind_ip: IpAddr) -> Result<IpAddr, Unpublishable> {
    let Some(text) = &port.host_ip else {
        return Ok(bind_ip);
    };
    let Ok(host_ip) = text.parse::<IpAddr>() else {
        return Err(Unpublishable::BadAddress(text.chars().take(80).collect()));
    };
    if !host_ip.is_unspecified() {
        return Ok(host_ip);
    }
    if host_ip.is_ipv4() == bind_ip.is_ipv4() {
        return Ok(bind_ip);
    }
    // A node that publishes on `::` publishes on all of IPv4 too, but not the other way round.
    if host_ip.is_ipv4() && bind_ip.is_unspecified() {
        return Ok(host_ip);
    }
    Err(Unpublishable::OtherFamily { host_ip, bind_ip })
}

#[cfg(test)]
mod tests {
    use dunlin_state::route::ServiceRoute;

    use super::*;

    fn port(published: u16, host_ip: Option<&str>) -> PortSpec {
        PortSpec {
            target: 80,
            published: Some(published),
            host_ip: host_ip.map(str::to_owned),
            ..PortSpec::default()
        }
    }

    fn table(services: &[(&str, Vec<PortSpec>)]) -> RouteTable {
        let services = services.iter().map(|(name, ports)| {
            let route = ServiceRoute {
                ports: ports.clone(),
                ..ServiceRoute::default()
            };
            (name.parse().unwrap(), route)
        });
        RouteTable {
            services: services.collect(),
            ..RouteTable::default()
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn never_listens_wider_than_written() {
        let cases = [
            ("0.0.0.0", None, Some("0.0.0.0")),
            ("127.0.0.2", None, Some("127.0.0.2")),
            ("0.0.0.0", Some("127.0.0.1"), Some("127.0.0.1")),
            ("10.0.0.1", Some("127.0.0.1"), Some("127.0.0.1")),
            ("10.0.0.1", Some("0.0.0.0"), Some("10.0.0.1")),
            ("0.0.0.0", Some("::"), None),
            ("10.0.0.1", Some("::"), None),
            ("::1", Some("0.0.0.0"), None),
            ("::", Some("0.0.0.0"), Some("0.0.0.0")),
            ("::", Some("::1"), Some("::1")),
            ("0.0.0.0", Some("everywhere"), None),
        ];
        for (bind, host, expected) in cases {
            let found = address(&port(80, host), ip(bind));
            assert_eq!(found.ok(), expected.map(ip), "{bind} {host:?}");
        }
    }

    #[test]
    fn only_a_written_address_shuts_ipv4_out() {
        for (host, only_v6) in [(None, false), (Some("::"), true), (Some("::1"), true)] {
            let table = table(&[("web", vec![port(80, host)])]);
            let (wishes, _) = plan(&table, ip("::"));
            let wish = wishes.values().next().unwrap();
            assert_eq!(wish.only_v6, only_v6, "{host:?}");
        }
    }

    #[test]
    fn takes_ingress_ports_and_says_why_not_others() {
        let mut udp = port(80, None);
        udp.protocol = Protocol::Udp;
        let mut host = port(81, None);
        host.publish_mode = PublishMode::Host;
        let mut inner = port(82, None);
        inner.published = None;
        let table = table(&[
            ("a", vec![port(80, None), udp, host, inner]),
            ("b", vec![port(80, None), port(80, Some("127.0.0.1"))]),
        ]);
        let (wishes, refusals) = plan(&table, ip("0.0.0.0"));
        let served: Vec<_> = wishes
            .iter()
            .map(|(place, wish)| format!("{} {}", place.address, wish.port))
            .collect();
        assert_eq!(
            served,
            [
                "0.0.0.0:80 default/a:80/tcp",
                "127.0.0.1:80 default/b:80/tcp",
                "0.0.0.0:80 default/a:80/udp"
            ]
        );
        let reasons: Vec<_> = refusals.into_iter().map(|r| r.reason).collect();
        let holder = "a".parse().unwrap();
        assert_eq!(reasons, [Unpublishable::Taken { holder }]);
    }

    #[test]
    fn every_port_answers_on_the_virtual_addresses_also_unpublished_ones() {
        let mut inner = port(0, None);
        (inner.target, inner.published) = (5432, None);
        let mut table = table(&[("db", vec![inner, port(8080, None)])]);
        let route = table.services.values_mut().next().unwrap();
        route.vip.v4 = Some([10, 93, 0, 20].into());
        route.vip.v6 = Some("fd00::14".parse().unwrap());
        let (wishes, refusals) = plan(&table, ip("0.0.0.0"));
        let served: Vec<_> = wishes
            .iter()
            .map(|(place, wish)| format!("{} {}", place.address, wish.virtual_address))
            .collect();
        let expected = [
            "0.0.0.0:8080 false",
            "10.93.0.20:80 true",
            "10.93.0.20:5432 true",
            "[fd00::14]:80 true",
            "[fd00::14]:5432 true",
        ];
        assert_eq!(served, expected);
        assert_eq!(refusals, []);
    }
}
