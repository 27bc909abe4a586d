//! Where this node answers DNS queries, whom it answers, and how its replicas find it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use dunlin_dns::{Allow, BindError, Bound, Counters, DnsServer, Suffix, Upstreams};
use dunlin_lb::publish::Sockets;
use dunlin_state::model::VipRange;
use dunlin_state::route::RouteTable;
use tokio::sync::watch;

use super::UpError;
use crate::config::{DnsChoice, UpConfig};
use crate::runtime::{Names, Resolver, RuntimesHandle};

/// The port that programs ask; a resolv.conf cannot name another one.
const PORT: u16 = 53;

/// The port where DNS is answered when the address of virtual addresses cannot be had: it needs no
/// rights, and nothing else uses it.
const FALLBACK_PORT: u16 = 5300;

/// What the names of sockets begin with under which daemons hand them over.
const UDP: &str = "dns udp ";
const TCP: &str = "dns tcp ";

/// A bound server and the domain it answers for.
pub(super) struct Naming {
    server: DnsServer,
    suffix: Suffix,
}

/// Binds what was asked for, or goes on with what the daemon before has left. What nobody asked for
/// may be missing, and then a note says so.
pub(super) async fn bind(
    config: &UpConfig,
    range: VipRange,
    inherited: &mut Sockets,
    notes: &mut Vec<String>,
) -> Result<Option<Naming>, UpError> {
    let mut left = Left::take_from(inherited);
    let suffix = match &config.dns_suffix {
        Some(text) => text.parse()?,
        None => Suffix::default(),
    };
    let server = match config.dns {
        DnsChoice::Off => return Ok(None),
        DnsChoice::At(address) => left.or_bind(address).await?,
        DnsChoice::Auto => match bind_somewhere(range, config.advertise, &mut left).await {
            Ok(server) => server,
            Err(reason) => {
                let note = format!("names are not answered: {reason}; say where with --dns");
                tracing::warn!("{note}");
                notes.push(note);
                return Ok(None);
            }
        },
    };
    let upstreams = match config.upstream_dns.as_slice() {
        [] => Upstreams::of_host(),
        fixed => Upstreams::Fixed(fixed.to_vec()),
    };
    let server = server.upstreams(upstreams);
    tracing::info!(addresses = ?server.addresses(), %suffix, "names are answered");
    Ok(Some(Naming { server, suffix }))
}

/// The gateway of virtual addresses, where containers reach it too, else loopback: daemons that
/// share a host for a trial each have a loopback address of their own.
async fn bind_somewhere(
    range: VipRange,
    advertise: Option<IpAddr>,
    left: &mut Left,
) -> Result<DnsServer, BindError> {
    if let Some(gateway) = range.gateway().addresses().next() {
        match left.or_bind((gateway, PORT).into()).await {
            Ok(server) => return Ok(server),
            Err(error) => tracing::debug!(%error, "no DNS for containers"),
        }
    }
    let own = advertise.filter(IpAddr::is_loopback);
    let address = own.unwrap_or(Ipv4Addr::LOCALHOST.into());
    left.or_bind((address, FALLBACK_PORT).into()).await
}

/// Sockets of the daemon before. What is not asked for is closed with this.
struct Left(Sockets);

impl Left {
    fn take_from(inherited: &mut Sockets) -> Self {
        Self(
            inherited
                .extract_if(.., |name, _| name.starts_with(UDP) || name.starts_with(TCP))
                .collect(),
        )
    }

    async fn or_bind(&mut self, address: SocketAddr) -> Result<DnsServer, BindError> {
        let udp = self.0.remove(&format!("{UDP}{address}"));
        let tcp = self.0.remove(&format!("{TCP}{address}"));
        if let Some((udp, tcp)) = udp.zip(tcp) {
            match DnsServer::on(address, Bound { udp, tcp }) {
                Ok(server) => return Ok(server),
                Err(error) => {
                    tracing::warn!(%error, %address, "DNS sockets of the daemon before are of no use")
                }
            }
        }
        DnsServer::bind(address).await
    }
}

impl Naming {
    /// Where it answers.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.server.addresses()
    }

    /// Its sockets, for the daemon after this one.
    pub(super) fn sockets(&self) -> Sockets {
        let bound = self.server.bound().unwrap_or_else(|error| {
            tracing::warn!(%error, "DNS will not be handed over");
            Vec::new()
        });
        let named = bound.into_iter().flat_map(|(address, bound)| {
            [
                (format!("{UDP}{address}"), bound.udp),
                (format!("{TCP}{address}"), bound.tcp),
            ]
        });
        named.collect()
    }

    /// What it counts.
    pub(super) fn counters(&self) -> Counters {
        self.server.counters()
    }

    /// The domain of service names.
    pub(super) fn suffix(&self) -> &Suffix {
        &self.suffix
    }

    /// The server for replicas: one that answers on DNS's own port, at an address that means this
    /// host inside a container too.
    pub(super) fn resolver(&self) -> Option<Resolver> {
        let reachable =
            |a: &&SocketAddr| a.port() == PORT && !a.ip().is_loopback() && !a.ip().is_unspecified();
        let addresses = self.server.addresses();
        let found = addresses.iter().find(reachable)?;
        Some(Resolver {
            address: found.ip(),
            suffix: self.suffix.to_string(),
        })
    }

    /// The server for programs of this host: on DNS's own port, if it has that anywhere.
    pub(super) fn for_processes(&self) -> Option<Names> {
        let addresses = self.server.addresses();
        let usual = addresses.iter().find(|a| a.port() == PORT);
        let mut server = *usual.or(addresses.first())?;
        if server.ip().is_unspecified() {
            server.set_ip(match server.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let suffix = self.suffix.to_string();
        Some(Names { server, suffix })
    }

    /// The server, which lets in members and this host's containers.
    pub(super) fn serving(
        self,
        routes: watch::Receiver<Arc<RouteTable>>,
        runtimes: RuntimesHandle,
    ) -> (DnsServer, Suffix) {
        let allow: Allow = Arc::new(move |client: IpAddr| {
            let routes = routes.borrow().clone();
            let addresses = routes.nodes.values().filter_map(|node| node.address);
            addresses
                .map(|a| a.ip().to_canonical())
                .any(|ip| ip == client)
                || runtimes.has_container(client)
        });
        (self.server.allow(allow), self.suffix)
    }
}
