//! Free host ports for a workload.
//!
//! A port that is free now may be taken by the time the workload binds it. Two things keep that
//! from happening: ports come from below the kernel's ephemeral range, so no outgoing connection
//! takes one, and each is reserved among all supervisors of this network namespace by a name in
//! the abstract Unix socket namespace, which the kernel releases when its holder dies.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use dunlin_state::model::Protocol;

use super::Refusal;
use super::record::{GivenPort, PortWish};

/// Where ports are chosen, unless the kernel's ephemeral range covers it.
const PREFERRED: RangeInclusive<u16> = 20_000..=32_767;
/// With fewer candidates than this outside the ephemeral range, that range is ignored.
const ENOUGH: usize = 512;
/// Ports tried before giving up: a node with that many taken in a row has other troubles.
const TRIES: usize = 2_000;

/// Ports of a workload, reserved while this value lives.
#[derive(Debug)]
pub(super) struct Ports {
    /// What was given.
    pub(super) given: Vec<GivenPort>,
    _reservations: Vec<UnixDatagram>,
}

/// Finds a port for each wish. Wishes for the same target get the same port, since they share a
/// variable in the workload's environment.
pub(super) fn choose(wishes: &[PortWish], address: IpAddr) -> Result<Ports, Refusal> {
    let mut by_target: BTreeMap<u16, Vec<PortWish>> = BTreeMap::new();
    for wish in wishes {
        by_target.entry(wish.target).or_default().push(*wish);
    }
    let candidates = candidates(ephemeral_range());
    let start = usize::try_from(RandomState::new().hash_one(0) % 65_536).unwrap_or(0);
    let mut next = start;
    let mut chosen = BTreeMap::new();
    let mut reservations = Vec::new();
    for (target, wishes) in by_target {
        if let Some(port) = wishes.iter().find_map(|wish| wish.fixed) {
            check_fixed(&wishes, port, address)?;
            chosen.insert(target, port);
            continue;
        }
        let (port, reservation) = free_port(&candidates, &mut next, &wishes, address)?;
        chosen.insert(target, port);
        reservations.push(reservation);
    }
    let given = wishes
        .iter()
        .filter_map(|wish| {
            Some(GivenPort {
                target: wish.target,
                protocol: wish.protocol,
                port: wish.fixed.or_else(|| chosen.get(&wish.target).copied())?,
            })
        })
        .collect();
    Ok(Ports {
        given,
        _reservations: reservations,
    })
}

fn check_fixed(wishes: &[PortWish], port: u16, address: IpAddr) -> Result<(), Refusal> {
    for wish in wishes {
        let port = wish.fixed.unwrap_or(port);
        let name = match wish.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        match probe(wish.protocol, address, port) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Refusal::hopeless(format!(
                    "port {port}/{name} of this node needs a daemon with root"
                )));
            }
            Err(error) => {
                return Err(Refusal::hopeless(format!(
                    "port {port}/{name} of this node is taken by another program ({error})"
                )));
            }
        }
    }
    Ok(())
}

fn free_port(
    candidates: &[u16],
    next: &mut usize,
    wishes: &[PortWish],
    address: IpAddr,
) -> Result<(u16, UnixDatagram), Refusal> {
    for _ in 0..TRIES.min(candidates.len()) {
        let port = candidates[*next % candidates.len()];
        *next += 1;
        let Ok(reservation) = reserve(port) else {
            continue;
        };
        if wishes
            .iter()
            .all(|wish| probe(wish.protocol, address, port).is_ok())
        {
            return Ok((port, reservation));
        }
    }
    Err(Refusal::passing(
        "this node has no free port to give: all that were tried are taken",
    ))
}

/// Takes a port among the supervisors of this network namespace.
fn reserve(port: u16) -> io::Result<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(format!("dunlin/port/{port}"))?;
    UnixDatagram::bind_addr(&name)
}

/// Whether a workload could bind the port, on the node's address and on all.
fn probe(protocol: Protocol, address: IpAddr, port: u16) -> io::Result<()> {
    let any = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // Binding all addresses fails when any single one is taken, so this covers `address` too.
    match protocol {
        Protocol::Tcp => TcpListener::bind((any, port)).map(drop),
        Protocol::Udp => UdpSocket::bind((any, port)).map(drop),
    }
}

fn candidates(ephemeral: RangeInclusive<u16>) -> Vec<u16> {
    let outside: Vec<u16> = PREFERRED.filter(|port| !ephemeral.contains(port)).collect();
    if outside.len() >= ENOUGH {
        outside
    } else {
        PREFERRED.collect()
    }
}

/// The ports from which the kernel serves outgoing connections; Linux' default if it cannot be
/// read.
fn ephemeral_range() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = text.ok().and_then(|text| {
        let mut numbers = text.split_ascii_whitespace().map(str::parse::<u16>);
        Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
    });
    range.unwrap_or(32_768..=60_999)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn wish(target: u16, protocol: Protocol) -> PortWish {
        PortWish {
            target,
            protocol,
            fixed: None,
        }
    }

    #[test]
    fn every_wish_gets_a_port_and_both_protocols_of_a_target_share_it() {
        let wishes = [
            wish(80, Protocol::Tcp),
            wish(53, Protocol::Udp),
            wish(53, Protocol::Tcp),
        ];
        let ports = choose(&wishes, HERE).unwrap().given;
        assert_eq!(ports.len(), 3);
        assert_eq!(ports[1].port, ports[2].port);
        assert_ne!(ports[0].port, ports[1].port);
    }

    #[test]
    fn a_reserved_port_is_given_to_nobody_else_until_it_is_let_go() {
        let candidates = [28_123, 28_124];
        let wishes = [wish(1, Protocol::Tcp)];
        let (mut a, mut b) = (0, 0);
        let first = free_port(&candidates, &mut a, &wishes, HERE).unwrap();
        let second = free_port(&candidates, &mut b, &wishes, HERE).unwrap();
        assert_ne!(first.0, second.0);
        assert!(free_port(&candidates, &mut 0, &wishes, HERE).is_err());
        drop(first);
        assert!(free_port(&candidates, &mut 0, &wishes, HERE).is_ok());
    }

    #[test]
    fn a_taken_fixed_port_is_refused_with_its_number() {
        let holder = TcpListener::bind((HERE, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let fixed = PortWish {
            target: 80,
            protocol: Protocol::Tcp,
            fixed: Some(port),
        };
        let refusal = choose(&[fixed], HERE).unwrap_err();
        assert!(refusal.hopeless);
        assert!(refusal.reason.contains(&format!("port {port}/tcp")));
        drop(holder);
        assert_eq!(choose(&[fixed], HERE).unwrap().given[0].port, port);
    }

    #[test]
    fn candidates_avoid_the_ephemeral_range_unless_that_leaves_too_few() {
        assert!(candidates(30_000..=60_999).iter().all(|p| *p < 30_000));
        assert_eq!(candidates(1_024..=65_535).len(), PREFERRED.len());
    }
}
