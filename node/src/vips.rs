//! The ranges of virtual addresses of this node, and how they become addresses of this host.
//!
//! With the right to have routes (`CAP_NET_ADMIN`), one route of type `local` to the loopback
//! device makes a whole range the host's own ("AnyIP"): any address in it can be listened on, and
//! containers reach it by their default route. Nothing leaves the host. Without that right, and for
//! daemons of one host among themselves, the range is one of `127.0.0.0/8`, all of which is the
//! host's own anyway; containers do not reach it, and there is no such range of IPv6.
//!
//! A range belongs to one daemon of a host at a time. Several daemons of one host each have their
//! own: two of the same cluster would answer for the same addresses, and two of different clusters
//! with different services.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use dunlin_lb::publish::Sockets;
use dunlin_state::model::{Cidr, NodeId, VipRange};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use thiserror::Error;
use tokio::task::JoinHandle;

/// The range of all nodes unless they are told another one. It is one that neither Docker (172.16
/// to 172.31, 192.168) nor Kubernetes (10.42, 10.43, 10.96, 10.244) takes by itself.
const DEFAULT_V4: Ipv4Addr = Ipv4Addr::new(10, 93, 0, 0);

/// The second byte of the first loopback range, and how many there are. Below are addresses that
/// people give to daemons and demos.
const FIRST_LOOPBACK: u8 = 64;
const LOOPBACKS: u8 = 128;

/// The kernel's table of the host's own addresses.
const LOCAL_TABLE: u32 = 255;

/// Marks our routes, for people who look at them (`ip route show table local proto 93`).
const PROTOCOL: u8 = 93;

/// Why a range cannot be used.
#[derive(Debug, Error)]
pub enum VipError {
    /// Not the size that is needed.
    #[error(
        "--vip-cidr: {0} is not usable; give an IPv4 network of 65,536 addresses, as 10.93.0.0/16"
    )]
    Size(Cidr),
    /// It is somebody else's.
    #[error(
        "--vip-cidr: {range} collides with {other}, which this host reaches by {device}; give \
         another one, the same on all nodes"
    )]
    Taken {
        /// What was asked for.
        range: Cidr,
        /// What is there.
        other: Cidr,
        /// The device.
        device: String,
    },
    /// Another daemon has it.
    #[error("--vip-cidr: another daemon on this host has {0}; give each its own")]
    InUse(Cidr),
    /// It cannot be made the host's.
    #[error(
        "--vip-cidr: {range} cannot be made this host's: {reason}; start the daemon with \
         CAP_NET_ADMIN, or give a range in 127.0.0.0/8"
    )]
    NotPermitted {
        /// What was asked for.
        range: Cidr,
        /// What the system said.
        reason: String,
    },
}

/// What a node serves virtual addresses from, until it is released.
pub(crate) struct Vips {
    pub(crate) range: VipRange,
    /// What people should know about it.
    pub(crate) note: Option<String>,
    routes: Option<Routes>,
    guard: Option<OwnedFd>,
}

impl fmt::Debug for Vips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vips({:?})", self.range)
    }
}

/// Whose range it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) node: NodeId,
    pub(crate) cluster: [u8; 16],
    /// Whether its peers are on this host too.
    pub(crate) loopback: bool,
}

impl Vips {
    /// Takes the range that a person asked for, or the best there is.
    /// `inherited` may have the claim to the range of the daemon before.
    pub(crate) async fn settle(
        asked: Option<Cidr>,
        owner: Owner,
        inherited: &mut Sockets,
    ) -> Result<Self, VipError> {
        match asked {
            Some(cidr) => {
                let base = network(cidr)?;
                if base.is_loopback() {
                    let guard = guard(cidr, inherited).ok_or(VipError::InUse(cidr))?;
                    return Ok(Self::loopback(base, Some(guard), None));
                }
                Self::own(base, owner, inherited).await
            }
            None if owner.loopback => Ok(Self::any_loopback(owner.node, None, inherited)),
            None => match Self::own(DEFAULT_V4, owner, inherited).await {
                Ok(vips) => Ok(vips),
                Err(why) => {
                    let note = format!(
                        "virtual addresses are taken from 127.0.0.0/8, which containers and other \
                         hosts do not reach: {why}"
                    );
                    Ok(Self::any_loopback(owner.node, Some(note), inherited))
                }
            },
        }
    }

    /// A range that is made the host's.
    async fn own(base: Ipv4Addr, owner: Owner, inherited: &mut Sockets) -> Result<Self, VipError> {
        let range = v4_cidr(base);
        let taken = fs::read_to_string("/proc/net/route").unwrap_or_default();
        if let Some((other, device)) = collision(range, &taken) {
            return Err(VipError::Taken {
                range,
                other,
                device,
            });
        }
        let guard = guard(range, inherited).ok_or(VipError::InUse(range))?;
        let not_permitted = |error: io::Error| VipError::NotPermitted {
            range,
            reason: error.to_string(),
        };
        let mut routes = Routes::open().map_err(not_permitted)?;
        routes.add_v4(base).await.map_err(not_permitted)?;
        let v6 = ula(&owner.cluster);
        // Hosts without IPv6 are none the worse for it.
        let v6 = routes.add_v6(v6).await.is_ok().then_some(v6);
        Ok(Self {
            range: VipRange::new(Some(base), v6),
            note: None,
            routes: Some(routes),
            guard: Some(guard),
        })
    }

    /// The range of the daemon before, or the first free one of this host's loopback, beginning at
    /// one that the node's id names, so that it mostly has the same one again.
    fn any_loopback(node: NodeId, note: Option<String>, inherited: &mut Sockets) -> Self {
        let first = node.as_bytes()[0] % LOOPBACKS;
        let all = (0..LOOPBACKS).map(|step| {
            let second = FIRST_LOOPBACK + (first + step) % LOOPBACKS;
            Ipv4Addr::new(127, second, 0, 0)
        });
        let had = |base: &Ipv4Addr| inherited.contains_key(&handed_name(v4_cidr(*base)));
        let before: Vec<Ipv4Addr> = all.clone().filter(had).collect();
        for base in before.into_iter().chain(all) {
            if let Some(guard) = guard(v4_cidr(base), inherited) {
                return Self::loopback(base, Some(guard), note);
            }
        }
        let note = "all ranges of virtual addresses in 127.0.0.0/8 are taken by other daemons";
        Self {
            range: VipRange::default(),
            note: Some(note.to_owned()),
            routes: None,
            guard: None,
        }
    }

    fn loopback(base: Ipv4Addr, guard: Option<OwnedFd>, note: Option<String>) -> Self {
        Self {
            range: VipRange::new(Some(base), None),
            note,
            routes: None,
            guard,
        }
    }

    /// Whether there are routes for the range.
    pub(crate) fn has_routes(&self) -> bool {
        self.routes.is_some()
    }

    /// The claim to the range, to be handed over.
    pub(crate) fn claim(&self) -> Sockets {
        let claim = self.guard.as_ref().zip(self.range.v4());
        let claim = claim
            .and_then(|(guard, base)| Some((handed_name(v4_cidr(base)), guard.try_clone().ok()?)));
        claim.into_iter().collect()
    }

    /// Takes the routes away again.
    pub(crate) async fn release(self) {
        if let Some(routes) = self.routes {
            routes.remove().await;
        }
    }
}

fn network(cidr: Cidr) -> Result<Ipv4Addr, VipError> {
    match cidr.address() {
        IpAddr::V4(base) if cidr.prefix() == VipRange::V4_PREFIX => Ok(base),
        IpAddr::V4(_) | IpAddr::V6(_) => Err(VipError::Size(cidr)),
    }
}

fn v4_cidr(base: Ipv4Addr) -> Cidr {
    cidr(base.into(), VipRange::V4_PREFIX)
}

/// Constants and checked numbers only.
fn cidr(address: IpAddr, prefix: u8) -> Cidr {
    Cidr::new(address, prefix).unwrap_or_else(|| unreachable!("{prefix} bits fit"))
}

/// The cluster's own network of unique local addresses (RFC 4193): the same on all nodes, and no
/// other network's but by a chance of one in 2^40.
fn ula(cluster: &[u8]) -> Ipv6Addr {
    let hash = blake3::derive_key("dunlin 2026 virtual addresses IPv6", cluster);
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&hash[..5]);
    octets.into()
}

/// Reserves a range among the daemons of this host, until it is dropped: an abstract Unix socket,
/// which goes with the process and belongs to the network namespace as the range does.
fn guard(range: Cidr, inherited: &mut Sockets) -> Option<OwnedFd> {
    if let Some(claim) = inherited.remove(&handed_name(range)) {
        return Some(claim);
    }
    let name = format!("dunlin/vips/{range}");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?;
    let holder = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
    bind(&holder, &address).ok()?;
    Some(holder)
}

/// The name by which the claim to a range is handed over.
fn handed_name(range: Cidr) -> String {
    format!("range {range}")
}

/// Removes the routes of a range whose daemon has ended.
pub(crate) async fn forget_routes(range: VipRange) {
    let Ok(mut routes) = Routes::open() else {
        return;
    };
    // Adding what is there changes nothing, and tells what is to be removed.
    if let Some(base) = range.v4() {
        let _added = routes.add_v4(base).await;
    }
    if let Some(base) = range.v6() {
        let _added = routes.add_v6(base).await;
    }
    routes.remove().await;
}

/// A network in `/proc/net/route` that shares addresses with the range; the default route does not
/// count.
fn collision(range: Cidr, table: &str) -> Option<(Cidr, String)> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let device = fields.next()?;
        let address = u32::from_str_radix(fields.next()?, 16).ok()?;
        let mask = u32::from_str_radix(fields.nth(5)?, 16).ok()?;
        // Both are in the byte order of the network, read as the host's.
        let address = Ipv4Addr::from(address.to_ne_bytes());
        let prefix = u32::from_be_bytes(mask.to_ne_bytes()).leading_ones();
        let other = Cidr::new(address.into(), u8::try_from(prefix).ok()?)?;
        (prefix > 0 && other.overlaps(&range)).then(|| (other, device.to_owned()))
    })
}

/// Routes that this process has added.
struct Routes {
    handle: Handle,
    connection: JoinHandle<()>,
    loopback: u32,
    added: Vec<RouteMessage>,
}

impl Routes {
    fn open() -> io::Result<Self> {
        let index = fs::read_to_string("/sys/class/net/lo/ifindex").unwrap_or_default();
        let (connection, handle, _messages) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            // Ends when the handle is dropped, or with `remove`.
            connection: tokio::spawn(connection),
            // The loopback device is the first of every network namespace.
            loopback: index.trim().parse().unwrap_or(1),
            added: Vec::new(),
        })
    }

    async fn add_v4(&mut self, base: Ipv4Addr) -> io::Result<()> {
        let builder = RouteMessageBuilder::<Ipv4Addr>::new();
        let route = builder
            .destination_prefix(base, VipRange::V4_PREFIX)
            .output_interface(self.loopback)
            .table_id(LOCAL_TABLE)
            .protocol(RouteProtocol::Other(PROTOCOL))
            .scope(RouteScope::Host)
            .kind(RouteType::Local);
        self.add(route.build()).await
    }

    async fn add_v6(&mut self, base: Ipv6Addr) -> io::Result<()> {
        let builder = RouteMessageBuilder::<Ipv6Addr>::new();
        let route = builder
            .destination_prefix(base, VipRange::V6_PREFIX)
            .output_interface(self.loopback)
            .table_id(LOCAL_TABLE)
            .protocol(RouteProtocol::Other(PROTOCOL))
            .kind(RouteType::Local);
        self.add(route.build()).await
    }

    /// Adds a route; one that a daemon left behind that was killed is taken over.
    async fn add(&mut self, route: RouteMessage) -> io::Result<()> {
        let adding = self.handle.route().add(route.clone()).replace().execute();
        adding.await.map_err(|error| match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        })?;
        self.added.push(route);
        Ok(())
    }

    async fn remove(self) {
        for route in self.added {
            if let Err(error) = self.handle.route().del(route).execute().await {
                tracing::warn!(%error, "a route of virtual addresses is left behind");
            }
        }
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        vpn0\t00005D0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";

    #[test]
    fn a_range_that_is_somebody_elses_is_found() {
        // The file is in the byte order of the host; this one is of a little-endian one.
        if cfg!(target_endian = "little") {
            let (other, device) = collision("10.93.0.0/16".parse().unwrap(), TABLE).unwrap();
            assert_eq!(
                (other.to_string().as_str(), device.as_str()),
                ("10.93.0.0/16", "vpn0")
            );
            assert!(collision("192.168.0.0/16".parse().unwrap(), TABLE).is_some());
            assert!(collision("10.94.0.0/16".parse().unwrap(), TABLE).is_none());
            assert!(collision("10.93.0.0/16".parse().unwrap(), "garbage\nx y z").is_none());
        }
    }

    fn owner(first: u8) -> Owner {
        Owner {
            node: NodeId::from_bytes([first; 32]),
            cluster: [7; 16],
            loopback: true,
        }
    }

    fn none() -> Sockets {
        Sockets::new()
    }

    #[tokio::test]
    async fn a_daemon_has_the_range_of_the_one_before_it() {
        let one = Vips::settle(None, owner(77), &mut none()).await.unwrap();
        let (range, mut claim) = (one.range, one.claim());
        one.release().await;
        // Held in between.
        let other = Vips::settle(None, owner(77), &mut none()).await.unwrap();
        assert_ne!(other.range, range);
        let next = Vips::settle(None, owner(77), &mut claim).await.unwrap();
        assert_eq!(next.range, range);
        assert!(claim.is_empty());
    }

    #[tokio::test]
    async fn daemons_of_one_host_get_ranges_of_their_own() {
        let one = Vips::settle(None, owner(9), &mut none()).await.unwrap();
        let two = Vips::settle(None, owner(9), &mut none()).await.unwrap();
        assert!(one.range.v4().is_some() && two.range.v4().is_some());
        assert_ne!(one.range, two.range);
        let asked = v4_cidr(one.range.v4().unwrap());
        let refused = Vips::settle(Some(asked), owner(1), &mut none()).await;
        assert!(matches!(refused, Err(VipError::InUse(_))), "{refused:?}");
        one.release().await;
        assert!(
            Vips::settle(Some(asked), owner(1), &mut none())
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn a_range_of_another_size_is_refused() {
        for text in ["10.0.0.0/8", "10.0.0.0/24", "fd00::/64", "10.0.0.1"] {
            let refused = Vips::settle(Some(text.parse().unwrap()), owner(1), &mut none()).await;
            assert!(
                matches!(refused, Err(VipError::Size(_))),
                "{text}: {refused:?}"
            );
        }
    }

    #[test]
    fn clusters_have_networks_of_their_own() {
        assert_eq!(ula(&[1; 32]).octets()[0], 0xfd);
        assert_ne!(ula(&[1; 32]), ula(&[2; 32]));
        assert!(VipRange::new(None, Some(ula(&[1; 32]))).contains(ula(&[1; 32]).into()));
    }
}
