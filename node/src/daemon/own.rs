//! Who a node is, which cluster it is in, and where it listens.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use dunlin_gossip::membership::{MemberId, Profile};
use dunlin_lb::proxy::hop::PORT_OFFSET;
use dunlin_trust::{SecretKey, Ticket};

use super::clock::wall_millis;
use super::{UpError, publishing};
use crate::cluster::Belonging;
use crate::config::UpConfig;
use crate::host;
use crate::identity::{Identity, IdentityError};

/// Who the node is and where it listens.
pub(super) struct Own {
    pub(super) member: MemberId,
    pub(super) name: String,
    pub(super) belonging: Belonging,
    pub(super) seed: [u8; 32],
    /// Where published ports answer.
    pub(super) publish_ip: IpAddr,
    /// Where peers bring connections to this node's replicas.
    pub(super) data_plane: UdpSocket,
    pub(super) identity: Identity,
}

/// Who this node is, which cluster it is in, and its bound membership socket.
pub(super) fn settle(
    config: &UpConfig,
    invitation: Option<&Ticket>,
) -> Result<(Own, UdpSocket), UpError> {
    let name = name(config)?;
    let identity = Identity::open(&config.data_dir, wall_millis() / 1_000)?;
    let seed = identity.key.to_bytes();
    let key = SecretKey::from_seed(seed);
    let now = wall_millis() / 1_000;
    let belonging = Belonging::settle(&config.data_dir, invitation, &key, now)?;
    let (membership, address) = bind_membership(config)?;
    let member = MemberId {
        node: identity.node(),
        boot: identity.boot,
        address,
    };
    let publish_ip = publishing::bind_ip(config.advertise, &membership)
        .map_err(|source| UpError::Bind { address, source })?;
    let data_plane = bind_data_plane(&membership)?;
    Ok((
        Own {
            member,
            name,
            belonging,
            seed,
            publish_ip,
            data_plane,
            identity,
        },
        membership,
    ))
}

/// Whether nobody beyond this host could be a peer, so that asking the network only finds strangers.
pub(super) fn of_this_host_only(config: &UpConfig, own: SocketAddr) -> bool {
    own.ip().is_loopback() || matches!(config.profile, Profile::Local)
}

/// Supervisors are given paths below it, and a later life may start in another folder.
pub(super) fn absolute(data_dir: PathBuf) -> Result<PathBuf, IdentityError> {
    std::path::absolute(&data_dir).map_err(|source| IdentityError::Io {
        action: "resolve",
        path: data_dir,
        source,
    })
}

/// The ticket, given as such or as the path of a file that holds it.
pub(super) fn invitation(join: Option<&str>) -> Result<Option<Ticket>, UpError> {
    let Some(text) = join.map(str::trim).filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let path = Path::new(text);
    if !text.starts_with("dunlin") || text.contains('/') {
        if !path.exists() {
            return Err(UpError::NoTicketFile(path.to_owned()));
        }
        let content = fs::read_to_string(path).map_err(|source| UpError::TicketFile {
            path: path.to_owned(),
            source,
        })?;
        return Ok(Some(content.parse()?));
    }
    Ok(Some(text.parse()?))
}

fn name(config: &UpConfig) -> Result<String, UpError> {
    let name = config.name.clone().unwrap_or_else(host::name);
    dunlin_state::model::check_label("node", &name)?;
    Ok(name)
}

/// Binds the advertised address itself, so that several daemons share a host. An address that is
/// not this host's own (behind NAT) is advertised all the same, and every address is listened on.
fn bind_membership(config: &UpConfig) -> Result<(UdpSocket, SocketAddr), UpError> {
    let advertised = SocketAddr::new(
        config.advertise.unwrap_or_else(host::default_address),
        config.port,
    );
    let bound = match UdpSocket::bind(advertised) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            let any: IpAddr = match advertised {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            UdpSocket::bind((any, config.port))
        }
        other => other,
    };
    let socket = bound.map_err(|source| UpError::Bind {
        address: advertised,
        source,
    })?;
    Ok((socket, advertised))
}

/// Binds the data plane where membership listens, some ports on.
fn bind_data_plane(membership: &UdpSocket) -> Result<UdpSocket, UpError> {
    let unknown = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let mut address = membership.local_addr().map_err(|source| UpError::BindHop {
        address: unknown,
        source,
    })?;
    address.set_port(address.port().saturating_add(PORT_OFFSET));
    UdpSocket::bind(address).map_err(|source| UpError::BindHop { address, source })
}
